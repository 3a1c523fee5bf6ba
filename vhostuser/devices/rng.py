"""Entropy device (virtio 1.3, section 5.4): one queue of empty buffers to fill with random bytes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vhostuser.device import Device
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.virtqueue.chain import Chain

MAX_BYTES = 64 * 1024
"""A request may be answered short; this keeps a huge one from stalling the others."""


class RngDevice(Device):
    """Fills each buffer with random bytes.

    Args:
        source: returns that many random bytes; the system's generator unless a test wants to know the answer.
    """

    type = DeviceType.RNG

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__()
        self._source = source

    async def process(self, queue: int, chain: Chain) -> None:
        """Write at least one byte, as 5.4.6.1 demands, and at most `MAX_BYTES`."""
        chain.writable.write(self._source(min(chain.writable.remaining, MAX_BYTES)))
