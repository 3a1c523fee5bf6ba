"""Our back-end with messages that it has no effects for: what is special about a device is in the files beside this.

They exist so that cases about rare features run for real: ``python -m tests.conformance.backends.NAME … SOCKET``.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

import trio

from vhostuser.backend.connection import Backend
from vhostuser.backend.requester import ConfigNotifier
from vhostuser.errors import RemoteProtocolError
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.transport.unix import listen
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.device import Device


class Protocol(BackendProtocol):
    """Every message that is understood can be carried out."""

    effects_come_later = frozenset()


class Extended(Backend):
    """A back-end that offers more; subclasses say what, and act on it in `_act`.

    Attributes:
        extra: protocol features besides the usual ones.
    """

    extra: ClassVar[ProtocolFeature]

    def __init__(self, device: Device) -> None:
        super().__init__(device, ring_features=RING_FEATURES | VirtioFeature.RING_PACKED)
        state = self.protocol.state
        self.protocol = Protocol(
            features=state.offered_features or 0,
            protocol_features=(state.offered_protocol_features or 0) | self.extra,
            num_queues=device.num_queues,
        )
        self._config = ConfigNotifier(self.protocol)


async def serve(make: Callable[[], Backend], path: str) -> None:
    """One front-end after the other, each with a back-end of its own."""
    logging.basicConfig(level=logging.INFO)
    async with listen(path) as listener:
        while True:
            async with await listener.accept() as channel:
                try:
                    await make().run(channel)
                except* (RemoteProtocolError, trio.BrokenResourceError) as group:
                    logging.info("closing: %s", group.exceptions)
