"""Driver of a block device (virtio 1.3, section 5.2).

A request needs a header, room for data and a status byte in guest memory.  These are made once, as *slots*, and used
again and again; there are as many as requests can be in flight.  A large read or write is cut into slots, and keeps
all of them busy: while the device works on some, the next are filled.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from frontend.bringup import MissingFeature, Plan
from frontend.queue import Segment
from vhostuser.errors import VhostUserError
from vhostuser.memory.map import GuestAddr
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.schema import codec
from vhostuser.wire.virtio.blk import (
    ID_SIZE,
    SECTOR_SIZE,
    BlkConfig,
    BlkFeature,
    BlkHeader,
    BlkRange,
    BlkRangeFlags,
    BlkStatus,
    BlkType,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from frontend.bringup import DeviceLink
    from frontend.guest.memory import Buffer
    from frontend.queue import Queue

FEATURES = (
    BlkFeature.SIZE_MAX
    | BlkFeature.SEG_MAX
    | BlkFeature.RO
    | BlkFeature.BLK_SIZE
    | BlkFeature.FLUSH
    | BlkFeature.TOPOLOGY
    | BlkFeature.MQ
    | BlkFeature.DISCARD
    | BlkFeature.WRITE_ZEROES
)
CONFIG_SIZE = BlkConfig.wire_offset("write_zeroes_may_unmap") + 1
"""57 bytes, all that these features need and what QEMU asks for; qemu-storage-daemon refuses more than 96."""
DEFAULT_DEPTH = 32
DEFAULT_BLOCK_SIZE = 64 * 1024
_HEADER = codec(BlkHeader)
_MOST_PARTS = 3
"""Descriptors in a request: header, data, status."""
_OK = BlkStatus.OK.value
_NO_STATUS = 0xFF
"""What a status byte is before the device writes it."""


@dataclass(frozen=True, kw_only=True)
class BlkPlan(Plan):
    """A `Plan` that also says how the driver is to use the device.

    Attributes:
        depth: requests in flight at most; fewer where the rings have no room for so many.
        block_size: bytes per request at most, a multiple of 512.
    """

    depth: int = DEFAULT_DEPTH
    block_size: int = DEFAULT_BLOCK_SIZE


class BlkError(VhostUserError, OSError):
    """The device did not do what it was asked.

    Attributes:
        status: its status byte.
    """

    def __init__(self, what: str, sector: int, status: int) -> None:
        name = BlkStatus(status).name if status in set(BlkStatus) else f"status {status}"
        super().__init__(f"{what} at sector {sector}: the device answered {name}")
        self.status = status


@dataclass(slots=True)
class Request:
    """One request before it has a slot.

    Attributes:
        type: what to do.
        sector: where.
        data: what the device reads.
        wanted: how many bytes it is to write.
        done: called with those bytes, which are only lent: the slot is used again afterwards.
    """

    type: BlkType
    sector: int
    data: bytes | memoryview = b""
    wanted: int = 0
    done: Callable[[memoryview], None] | None = None


class _Slot:
    """Guest memory for one request, on one queue."""

    __slots__ = ("_data", "_header", "_segment", "_status", "buffer", "queue")

    def __init__(self, queue: Queue, buffer: Buffer) -> None:
        self.queue = queue
        self.buffer = buffer
        self._header = Segment(buffer.addr, _HEADER.size)
        self._status = Segment(GuestAddr(buffer.addr + _HEADER.size), 1)
        self._data = buffer.view[_STATUS_END:]
        self._segment = Segment(GuestAddr(buffer.addr + _STATUS_END), len(self._data))

    def start(self, request: Request, done: Callable[[int], None]) -> None:
        view = self.buffer.view
        _HEADER.pack_into(view, 0, request.type, 0, request.sector)
        view[_HEADER.size] = _NO_STATUS
        readable, writable = [self._header], [self._status]
        if request.data:
            self._data[: len(request.data)] = request.data
            readable.append(self._data_segment(len(request.data)))
        elif request.wanted:
            writable.insert(0, self._data_segment(request.wanted))
        self.queue.start(readable, writable, done)

    def _data_segment(self, length: int) -> Segment:
        if length != self._segment.length:  # requests mostly have the length of the one before
            self._segment = Segment(self._segment.addr, length)
        return self._segment

    @property
    def status(self) -> int:
        return self.buffer.view[_HEADER.size]

    def data(self, length: int) -> memoryview:
        return self._data[:length]


_STATUS_END = 64
"""Data begins here, so that it does not share a cache line with header and status."""


class BlkDriver:
    """Reads and writes a disk.

    Args:
        link: the device, brought up with `plan`.
        depth: requests in flight at most.
        block_size: bytes per request at most.
    """

    def __init__(self, link: DeviceLink) -> None:
        self.link = link
        depth, self.block_size = DEFAULT_DEPTH, DEFAULT_BLOCK_SIZE
        if isinstance(link.plan, BlkPlan):
            depth, self.block_size = link.plan.depth, link.plan.block_size
        queues = link.queues
        self._slots = deque(
            _Slot(queues[number % len(queues)], link.ram.buffer(_STATUS_END + self.block_size, align=64))
            for number in range(min(depth, sum(_requests_in(queue, link.features) for queue in queues)))
        )
        self._all_slots = tuple(self._slots)
        self._room = trio.Event()
        self.requests = 0
        """How many requests the device has answered."""

    @classmethod
    def plan(cls, *, depth: int = DEFAULT_DEPTH, block_size: int = DEFAULT_BLOCK_SIZE, **options: Any) -> Plan:
        """A plan for ``depth`` requests of ``block_size`` bytes in flight; ``options`` go into the `Plan`."""
        return BlkPlan(
            depth=depth, block_size=block_size, **{"wanted": int(FEATURES), "config_size": CONFIG_SIZE, **options}
        )

    # --- what the device says of itself ---

    @property
    def config(self) -> BlkConfig:
        """Configuration space, as last read."""
        return BlkConfig.parse(self.link.config.ljust(BlkConfig.wire_size(), b"\0"))

    @property
    def capacity(self) -> int:
        """Size of the disk in sectors of 512 bytes."""
        return self.config.capacity

    @property
    def size(self) -> int:
        """Size of the disk in bytes."""
        return self.capacity * SECTOR_SIZE

    @property
    def read_only(self) -> bool:
        """The device refuses writes."""
        return bool(self.link.features & BlkFeature.RO)

    def buffers(self, queue: Queue) -> list[Buffer]:
        """Guest memory of the slots of ``queue``, for a loop that makes requests while this driver makes none.

        Each has room for a header, a status, and from byte 64 on a block.
        """
        return [slot.buffer for slot in self._all_slots if slot.queue is queue]

    # --- requests ---

    async def read(self, sector: int, sectors: int) -> bytes:
        """``sectors`` sectors from ``sector`` on.

        Raises:
            BlkError: the device reported an error.
            QueueClosed: the back-end is gone.
        """
        found = bytearray(sectors * SECTOR_SIZE)
        await self.run(self.reads(sector, memoryview(found)))
        return bytes(found)

    async def write(self, sector: int, data: bytes | memoryview) -> None:
        """Write ``data``, whole sectors, from ``sector`` on.  Raises as `read` does."""
        await self.run(self.writes(sector, data))

    async def flush(self) -> None:
        """Make what was written durable.  Without the FLUSH feature every write is durable already."""
        if self.link.features & BlkFeature.FLUSH:
            await self.run([Request(BlkType.FLUSH, 0)])

    async def get_id(self) -> str:
        """The device's name of at most 20 characters."""
        found = bytearray(ID_SIZE)
        await self.run([Request(BlkType.GET_ID, 0, wanted=ID_SIZE, done=_into(found, 0))])
        return found.rstrip(b"\0").decode("ascii", "replace")

    async def discard(self, sector: int, sectors: int) -> None:
        """These sectors are of no interest any more."""
        await self._ranges(BlkType.DISCARD, sector, sectors, self.config.max_discard_sectors, BlkRangeFlags(0))

    async def write_zeroes(self, sector: int, sectors: int, *, unmap: bool = False) -> None:
        """Make these sectors read as zero; with ``unmap`` the device may give the space back."""
        flags = BlkRangeFlags.UNMAP if unmap else BlkRangeFlags(0)
        await self._ranges(BlkType.WRITE_ZEROES, sector, sectors, self.config.max_write_zeroes_sectors, flags)

    def reads(self, sector: int, into: memoryview) -> Iterator[Request]:
        """Requests that fill ``into`` from ``sector`` on."""
        for at in range(0, len(into), self.block_size):
            length = min(self.block_size, len(into) - at)
            yield Request(BlkType.IN, sector + at // SECTOR_SIZE, wanted=length, done=_into(into, at))

    def writes(self, sector: int, data: bytes | memoryview) -> Iterator[Request]:
        """Requests that write ``data`` from ``sector`` on."""
        if len(data) % SECTOR_SIZE:
            raise ValueError(f"{len(data)} bytes are not a multiple of {SECTOR_SIZE}")
        view = memoryview(data)
        for at in range(0, len(view), self.block_size):
            yield Request(BlkType.OUT, sector + at // SECTOR_SIZE, data=view[at : at + self.block_size])

    async def run(self, requests: Iterable[Request]) -> None:
        """Do all of ``requests``, in no particular order, keeping as many in flight as there are slots.

        The next one is asked for only when there is a slot for it.

        Raises:
            BlkError: the first error; requests that were in flight then have ended, later ones were not begun.
            QueueClosed: the back-end is gone.
        """
        flow = _Flow()
        coming = iter(requests)
        while True:
            while not self._slots:
                await self._wait_for_room()
            if flow.error is not None or (request := next(coming, None)) is None:
                break
            self._start(request, flow)
        self._flush()
        if flow.in_flight:
            flow.idle = trio.Event()
            await self.link.queues[0].until(flow.idle)
        if flow.error is not None:
            raise flow.error

    def _start(self, request: Request, flow: _Flow) -> None:
        slot = self._slots.popleft()

        def done(_used_length: int) -> None:
            self.requests += 1
            flow.finished(request, slot)
            self._slots.append(slot)
            self._room.set()

        try:
            slot.start(request, done)
        except BaseException:
            self._slots.append(slot)
            raise
        flow.in_flight += 1

    def _flush(self) -> None:
        for queue in self.link.queues:
            queue.flush()

    async def _wait_for_room(self) -> None:
        self._flush()
        if self._room.is_set():  # else somebody waits for it already
            self._room = trio.Event()
        # Any queue will do: when one fails, the link fails them all.
        await self.link.queues[0].until(self._room)

    async def _ranges(self, kind: BlkType, sector: int, sectors: int, most: int, flags: BlkRangeFlags) -> None:
        if not most:
            raise MissingFeature(f"the device does not offer {kind.name}")
        await self.run(
            Request(kind, 0, data=BlkRange(at, min(most, sector + sectors - at), flags).build())
            for at in range(sector, sector + sectors, most)
        )


def _requests_in(queue: Queue, features: int) -> int:
    """How many requests the ring holds: one a descriptor with indirect tables, else as many as they have parts."""
    parts = 1 if features & VirtioFeature.INDIRECT_DESC else _MOST_PARTS
    return max(queue.queue_size // parts, 1)


class _Flow:
    """What `BlkDriver.run` knows of its requests."""

    __slots__ = ("error", "idle", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self.error: BlkError | None = None
        self.idle: trio.Event | None = None

    def finished(self, request: Request, slot: _Slot) -> None:
        self.in_flight -= 1
        if slot.status != _OK:
            self.error = self.error or BlkError(request.type.name, request.sector, slot.status)
        elif request.done is not None:
            request.done(slot.data(request.wanted))
        if self.idle is not None and not self.in_flight:
            self.idle.set()


def _into(target: memoryview | bytearray, at: int) -> Callable[[memoryview], None]:
    def store(data: memoryview) -> None:
        target[at : at + len(data)] = data

    return store
