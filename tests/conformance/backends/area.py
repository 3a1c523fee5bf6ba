"""The inflight area as a back-end has it: made, taken over, and written to field by field.

Somebody is killed in the middle of it sooner or later, so each field is loaded and stored in one access, and the order
of the stores in ``recorded_split.py`` and ``recorded_packed.py`` is what keeps it true.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

from vhostuser.memory.backends import MemoryBackendMemfd
from vhostuser.memory.region import MappedRegion, MappingError, check_bounds
from vhostuser.virtqueue.ring import UnsupportedRing
from vhostuser.wire.inflight import packed_region_size, split_region_size
from vhostuser.wire.records import MemoryRegion
from vhostuser.wire.schema import layouts
from vhostuser.wire.split import MAX_QUEUE_SIZE

if TYPE_CHECKING:
    from vhostuser.fd import Fd
    from vhostuser.memory.backends import MemoryBlock
    from vhostuser.wire.records import Inflight
    from vhostuser.wire.schema import Structure


_known: dict[Any, list[tuple[str, int, int]]] = {}


def _fields(kind: type[Structure]) -> list[tuple[str, int, int]]:
    """Name, width and offset of each."""
    if kind not in _known:
        sizes = {name: layout.sizeof() for name, layout in layouts(kind)}
        _known[kind] = [(name, sizes[name], kind.wire_offset(name)) for name in kind.__match_args__]
    return _known[kind]


class Live:
    """A record in shared memory: its fields are attributes, each loaded and stored in one access.

    Args:
        kind: which record.
        views: the memory, by the width of what is stored in it.
        at: where the record begins.
    """

    def __init__(self, kind: type[Structure], views: dict[int, memoryview], at: int) -> None:
        places = {name: (views[width], (at + offset) // width) for name, width, offset in _fields(kind)}
        object.__setattr__(self, "_places", places)

    def __getattr__(self, name: str) -> Any:
        view, index = self._places[name]
        return view[index]

    def __setattr__(self, name: str, value: int) -> None:
        view, index = self._places[name]
        view[index] = value


class Part:
    """One queue's part of the area: a header, and an entry for each descriptor."""

    def __init__(self, view: memoryview, size: int, header: type[Structure], entry: type[Structure]) -> None:
        views = {1: view, 2: view.cast("H"), 4: view.cast("I"), 8: view.cast("Q")}
        self.header = Live(header, views, 0)
        places = range(header.wire_size(), header.wire_size() + size * entry.wire_size(), entry.wire_size())
        self.entries = [Live(entry, views, at) for at in places]

    def in_flight(self) -> list[int]:
        """Entries in flight, oldest first."""
        found = [number for number, entry in enumerate(self.entries) if entry.inflight]
        return sorted(found, key=lambda number: self.entries[number].counter)


class Area:
    """The memory that the front-end keeps for us.

    Args:
        told: what SET_INFLIGHT_FD says of it.
        fd: of the memory; still the caller's.
        queues: how many there are.

    Raises:
        MappingError: the message makes no sense, or the file does not hold what it says.
    """

    def __init__(self, told: Inflight, fd: Fd, queues: int) -> None:
        check_sizes(told, queues)
        region = MemoryRegion(0, told.mmap_size, 0, told.mmap_offset)
        check_bounds(region)
        self._memory = MappedRegion.map(region, fd)
        self._queues, self._queue_size = told.num_queues, told.queue_size

    def part(self, index: int, size: int, *, packed: bool) -> memoryview | None:
        """What belongs to a ring of ``size`` entries; None for a ring that the area was not made for.

        Raises:
            UnsupportedRing: the ring has more entries than the area has room for.
        """
        if index >= self._queues:
            return None
        stride = _stride(self._queue_size, packed=packed)
        view = self._memory.view[index * stride : (index + 1) * stride]
        if size > self._queue_size or len(view) != stride:
            raise UnsupportedRing(f"ring {index}: {size} entries, its inflight area is for {self._queue_size}")
        return view


def new_area(told: Inflight, queues: int, *, packed: bool) -> MemoryBlock:
    """Memory for an area that nobody has written to; the caller closes it.

    Raises:
        MappingError: no such area can be.
    """
    check_sizes(told, queues)
    length = told.num_queues * _stride(told.queue_size, packed=packed)
    return MemoryBackendMemfd(size=-(-length // mmap.PAGESIZE) * mmap.PAGESIZE).allocate()


def check_sizes(told: Inflight, queues: int) -> None:
    """Whether an area can be for so many queues of such a size.

    Raises:
        MappingError: it cannot.
    """
    if not (1 <= told.num_queues <= queues and 1 <= told.queue_size <= MAX_QUEUE_SIZE):
        raise MappingError(
            f"inflight area: found {told.num_queues} queues of {told.queue_size}, "
            f"expected 1 to {queues} of 1 to {MAX_QUEUE_SIZE}"
        )


def _stride(size: int, *, packed: bool) -> int:
    return packed_region_size(size) if packed else split_region_size(size)
