"""Network device (virtio 1.3, section 5.1) at the end of a wire that comes back: each frame sent is received again.

For drivers and for measurements: two queues, a thread for each, no GIL.  There is no such device in Python: between two
frames it would have to hold receive buffers that a ring which stops wants back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.device import Device, Serving
from vhostuser.virtqueue.engine import why_not_native
from vhostuser.virtqueue.ring import UnsupportedRing
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetConfig, NetFeature

if TYPE_CHECKING:
    from vhostuser.device import CompiledLoop
    from vhostuser.virtqueue.chain import Chain

RECEIVE, TRANSMIT = range(2)
MAC = bytes.fromhex("020000000001")
"""Locally administered, as long as nobody says otherwise."""


class EchoDevice(Device):
    """Sends each frame back.

    Args:
        mac: its address.

    Raises:
        UnsupportedRing: the compiled engine does not run.
    """

    type = DeviceType.NET
    serving = Serving.NATIVE

    def __init__(self, mac: bytes = MAC) -> None:
        why_not = why_not_native()
        if why_not is not None:
            raise UnsupportedRing(f"the compiled engine does not run here: {why_not}")
        from vhostuser.virtqueue.engine.net import EchoLoop, Wire

        super().__init__(features=NetFeature.MAC, num_queues=2)
        self._mac, self._wire, self._loop = mac, Wire(), EchoLoop

    @property
    def config(self) -> bytes:
        return NetConfig(self._mac).build()

    @property
    def counts(self) -> tuple[int, int]:
        """Frames that came back, or are about to, and frames that were lost."""
        return self._wire.counts

    def compiled_loop(self, queue: int) -> CompiledLoop:
        return self._loop(self._wire, receiving=queue == RECEIVE)

    async def process(self, queue: int, chain: Chain) -> None:
        raise NotImplementedError("this device has compiled loops only")
