"""A packed queue that records what is in flight ("Inflight I/O tracking", the part about packed virtqueues).

Descriptors of a packed ring are overwritten by used ones, so the area has copies, in entries of a list of free ones.
Three fields of the header come twice: the new ones say how it shall be, the old ones how it was.  Somebody who was
killed in between left them different, and then the ring decides: has the driver seen the used descriptor, what is new
is true, and otherwise what is old.

A batch is one chain: of several, the used descriptors behind the first would be in the ring before they count, and
after a crash another order of completion would make them count for something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.backends.area import Part
from tests.conformance.backends.recorded import Recorded
from vhostuser.memory.ordering import release_fence
from vhostuser.virtqueue.packed_device import PackedDevice
from vhostuser.virtqueue.packed_ring import AVAILABLE, DESC_WORDS, FLAGS, TURN
from vhostuser.virtqueue.packed_walk import PackedWalker
from vhostuser.virtqueue.ring import Lie
from vhostuser.wire.inflight import DescStatePacked, QueueRegionPacked
from vhostuser.wire.packed import DESC_SIZE, PackedDesc
from vhostuser.wire.schema import codec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vhostuser.memory.map import GuestMemory
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.ring import RingLayout

_desc = codec(PackedDesc)


class RecordedPacked(Recorded, PackedDevice):
    """A packed ring whose chains stand in ``view`` while they are in flight.

    Raises:
        UnsupportedRing: as for any ring, or because of what stands in the area.
    """

    def __init__(
        self, view: memoryview, layout: RingLayout, memory: GuestMemory, features: int, *, base: int, index: int
    ) -> None:
        super().__init__(layout, memory, features, base=base, queue_index=index)
        self._entry_of: dict[int, int] = {}  # by buffer id, for what is in flight
        self._open_part(Part(view, self._queue_size, QueueRegionPacked, DescStatePacked))
        taken = sum(self._part.entries[head].num for head in self._again)
        if taken > self._queue_size:
            raise self._nonsense(f"{taken} descriptors in flight")
        self._next_avail = (self._next_used + taken) % self._span

    # --- the list of free entries ---

    def _begin(self) -> None:
        header, entries = self._part.header, self._part.entries
        for number, entry in enumerate(entries):
            entry.inflight, entry.next = 0, number + 1
        header.free_head = header.old_free_head = 0
        self._move_to(self._next_used)
        self._keep()

    def _recover(self) -> None:
        header = self._part.header
        if self._place_of(header.used_idx, header.used_wrap_counter) != self._old_place and self._seen_by_driver():
            self._keep()
        header.free_head = header.old_free_head
        self._next_used = self._old_place
        self._move_to(self._next_used)
        for number in self._free():
            self._part.entries[number].inflight = 0

    def _seen_by_driver(self) -> bool:
        """Whether the used descriptor has been written that the driver looks for at the old place."""
        lap, offset = divmod(self._old_place, self._queue_size)
        flags: int = self._words[offset * DESC_WORDS + FLAGS]
        return flags & TURN != AVAILABLE[lap]

    def _free(self) -> Iterator[int]:
        """The list of free entries; the last names one that there is not."""
        number = self._part.header.free_head
        for _ in range(self._queue_size):
            if number >= self._queue_size:
                return
            yield number
            number = self._part.entries[number].next

    # --- positions, twice ---

    @property
    def _old_place(self) -> int:
        header = self._part.header
        return self._place_of(header.old_used_idx, header.old_used_wrap_counter)

    def _place_of(self, index: int, wrap_counter: int) -> int:
        if index >= self._queue_size:
            raise self._nonsense(f"used index {index}")
        return index if wrap_counter else index + self._queue_size

    def _move_to(self, position: int) -> None:
        """The new place."""
        lap, self._part.header.used_idx = divmod(position, self._queue_size)
        self._part.header.used_wrap_counter = 1 - lap

    def _keep(self) -> None:
        """What is new is what counts from now on."""
        header = self._part.header
        header.old_free_head = header.free_head
        header.old_used_idx = header.used_idx
        header.old_used_wrap_counter = header.used_wrap_counter

    # --- chains in ---

    def _record(self, chain: Chain, position: int) -> None:
        header, entries = self._part.header, self._part.entries
        head = self._entry_of[chain.head] = header.old_free_head
        entries[head].num, entries[head].counter = 0, self._count()
        release_fence()
        entries[head].inflight = 1
        for number in range(position, position + chain.entries):
            place = header.free_head
            entry = entries[place]
            entries[head].last = place
            entries[head].num += 1
            at = number % self._queue_size * DESC_SIZE
            entry.addr, entry.len, entry.id, entry.flags = _desc.unpack_from(self._walker._table, at)
            header.free_head = entry.next
        release_fence()
        header.old_free_head = header.free_head

    def _take_again(self, entry: int) -> Chain:
        descs, number = [], entry
        for _ in range(self._part.entries[entry].num):
            if number >= self._queue_size:
                raise Lie(f"entry {entry} of the inflight area goes to {number}, a queue of {self._queue_size}")
            found = self._part.entries[number]
            descs.append(_desc.pack(found.addr, found.len, found.id, found.flags & ~TURN | AVAILABLE[0]))
            number = found.next
        table = memoryview(b"".join(descs).ljust(self._queue_size * DESC_SIZE, b"\0"))
        indirect = self._walker._indirect
        chain = PackedWalker(table, self._walker._memory, self._queue_size, indirect=indirect).chain(0, AVAILABLE[0])
        if chain.entries != len(descs) or chain.head in self._entry_of:
            raise Lie(f"entry {entry} of the inflight area is for {len(descs)} descriptors of chain {chain.head}")
        self._entry_of[chain.head] = entry
        return chain

    # --- used descriptors out ---

    @property
    def _batch(self) -> int:
        return 1

    def _prepare(self, batch: Sequence[Chain]) -> None:
        header, entries = self._part.header, self._part.entries
        (chain,) = batch
        head = self._entry_of[chain.head]
        entries[entries[head].last].next = header.free_head
        header.free_head = head
        self._move_to((self._next_used + chain.entries) % self._span)
        release_fence()

    def _settle(self, batch: Sequence[Chain]) -> None:
        (chain,) = batch
        release_fence()
        self._part.entries[self._entry_of.pop(chain.head)].inflight = 0
        release_fence()
        self._keep()
