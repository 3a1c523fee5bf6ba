"""A device driven through a ring built by hand: chains of any shape in, status, bytes and used lengths out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vhostuser.memory.map import GuestAddr
from vhostuser.testing.rings import RingBuilder
from vhostuser.virtqueue.queue import Segment
from vhostuser.wire.schema import codec
from vhostuser.wire.virtio.blk import BlkHeader, BlkRange, BlkRangeFlags, BlkStatus

if TYPE_CHECKING:
    from vhostuser.device import Device
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.queue import DeviceQueue

NO_STATUS = 0xEE
"""What a status byte is before the device writes it."""
_header = codec(BlkHeader)


class RingSource:
    """A ring whose driver has stopped offering: all chains that are there, in batches, and then the end."""

    def __init__(self, queue: DeviceQueue, batch: int = 128) -> None:
        self._queue = queue
        self._batch = batch
        self.given_back: list[int] = []

    def __aiter__(self) -> RingSource:
        return self

    async def __anext__(self) -> list[Chain]:
        chains = self._queue.pop(self._batch)
        if not chains:
            raise StopAsyncIteration
        return chains

    def done(self, *chains: Chain) -> None:
        self.given_back += [chain.head for chain in chains]
        self._queue.complete(chains)


class DrivenRing:
    """A ring with one device behind it."""

    def __init__(self, device: Device, *, queue_size: int = 64) -> None:
        self.device = device
        self.ring = RingBuilder(queue_size)
        self.queue = self.ring.open_device()
        self._next_desc = 0

    def offer(self, *elements: tuple[Segment, bool]) -> int:
        """Make a chain of (segment, device-writable) available; its head."""
        head = self._next_desc
        self._next_desc += len(elements)
        self.ring.chain(head, *elements)
        self.ring.offer(head)
        return head

    async def run(self, *, batch: int = 128) -> RingSource:
        """Let the device serve all that is there."""
        source = RingSource(self.queue, batch)
        await self.device.run_queue(0, source)
        assert self.queue.in_flight == 0
        return source

    async def used_length(self, *elements: tuple[Segment, bool]) -> int:
        """Serve one chain; what the device says it wrote."""
        head = self.offer(*elements)
        await self.run()
        found, length = self.ring.used()[-1]
        assert found == head
        return length


class Answer(NamedTuple):
    """What became of a block request."""

    status: int
    data: bytes
    used_length: int


class Placed(NamedTuple):
    """A block request in the ring."""

    data: Segment
    status: Segment
    head: int


class BlkRing(DrivenRing):
    """A ring of block requests.

    Attributes:
        cut_headers: whether headers come in two pieces, so that no chain is a frame.
    """

    cut_headers = False

    def header(self, kind: int, sector: int = 0) -> Segment:
        return self.ring.buffer(_header.size, _header.pack(kind, 0, sector))

    def status(self) -> Segment:
        return self.ring.buffer(1, bytes([NO_STATUS]))

    def place(self, kind: int, sector: int = 0, *, out: bytes = b"", wanted: int = 0) -> Placed:
        """Make the usual chain available: header, data in one direction or none, status."""
        data, status = self.ring.buffer(len(out) or wanted, out), self.status()
        middle = [(data, bool(wanted))] if data.length else []
        header = self.header(kind, sector)
        first = (Segment(header.addr, 5), Segment(GuestAddr(header.addr + 5), header.length - 5))
        headers = first if self.cut_headers else (header,)
        head = self.offer(*((each, False) for each in headers), *middle, (status, True))
        return Placed(data, status, head)

    async def ask(self, kind: int, sector: int = 0, *, out: bytes = b"", wanted: int = 0) -> Answer:
        """Serve one request."""
        placed = self.place(kind, sector, out=out, wanted=wanted)
        await self.run()
        return Answer(self.bytes(placed.status)[0], self.bytes(placed.data), self.ring.used()[-1][1])

    def bytes(self, segment: Segment) -> bytes:
        return self.ring.memory.read(segment.addr, segment.length)


def ranges(*each: tuple[int, int, int]) -> bytes:
    """Ranges of a DISCARD or WRITE_ZEROES request: sector, number of sectors, flags."""
    return b"".join(BlkRange(sector, count, BlkRangeFlags(flags)).build() for sector, count, flags in each)


OK = Answer(BlkStatus.OK, b"", 1)
