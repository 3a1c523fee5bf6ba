"""Driver of an entropy device (virtio 1.3, section 5.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from frontend.bringup import Plan
from frontend.queue import Segment
from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from frontend.bringup import DeviceLink
    from frontend.guest.memory import GuestRam
    from frontend.queue import Queue

MAX_READ = 4096
"""Bytes asked for at once."""


class NoEntropy(VhostUserError):
    """The device answered a request without a single byte."""


class RngDriver:
    """Random bytes from a device.

    Args:
        link: the device, brought up with `plan`.
    """

    def __init__(self, link: DeviceLink) -> None:
        self.link = link

    @classmethod
    def plan(cls, **options: Any) -> Plan:
        """One queue of four, as QEMU's own driver has it; ``options`` go into the `Plan`."""
        return Plan(**{"queue_size": 4, **options})

    async def read(self, length: int) -> bytes:
        """``length`` random bytes; as many requests as the device makes of it.

        Raises:
            NoEntropy: the device answered with nothing.
            QueueClosed: the back-end is gone.
        """
        found = bytearray()
        while len(found) < length:
            found += await self._ask(min(length - len(found), MAX_READ))
        return bytes(found)

    async def _ask(self, wanted: int) -> bytes:
        """What the device makes of one request for ``wanted`` bytes."""
        queue, request = self.link.queues[0], _Request(self.link.ram, wanted)
        request.start(queue)
        await queue.until(request.finished)
        if not request.data:
            raise NoEntropy("the device completed a request with no bytes (virtio 1.3, 5.4.6.1: at least one)")
        return request.data


class _Request:
    """A buffer that is given back when the device has done with it, whoever still waits for it then."""

    __slots__ = ("_buffer", "_ram", "data", "finished")

    def __init__(self, ram: GuestRam, wanted: int) -> None:
        self._ram = ram
        self._buffer = ram.buffer(wanted)
        self.data = b""
        self.finished = trio.Event()

    def start(self, queue: Queue) -> None:
        try:
            queue.start([], [Segment(self._buffer.addr, len(self._buffer))], self._done)
        except BaseException:
            self._ram.release(self._buffer)
            raise
        queue.flush()

    def _done(self, used_length: int) -> None:
        self.data = bytes(self._buffer.view[:used_length])
        self._ram.release(self._buffer)
        self.finished.set()
