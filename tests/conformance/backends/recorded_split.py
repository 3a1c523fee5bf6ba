"""A split queue that records what is in flight ("Inflight I/O tracking", the part about split virtqueues).

The entries of the chains that go back together are a list, which begins at ``last_batch_head``.  Whoever finds the used
index of the ring ahead of the one in the area knows that somebody was killed between telling the driver and striking
these entries out; the difference says how many there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.backends.area import Part
from tests.conformance.backends.recorded import Recorded
from vhostuser.memory.ordering import release_fence
from vhostuser.virtqueue.ring import INDEX_MASK, PUBLISH_EVERY
from vhostuser.virtqueue.split_device import SplitDevice
from vhostuser.wire.inflight import DescStateSplit, QueueRegionSplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.memory.map import GuestMemory
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.ring import RingLayout


class RecordedSplit(Recorded, SplitDevice):
    """A split ring whose chains stand in ``view`` while they are in flight.

    Raises:
        UnsupportedRing: as for any ring, or because of what stands in the area.
    """

    def __init__(
        self, view: memoryview, layout: RingLayout, memory: GuestMemory, features: int, *, base: int, index: int
    ) -> None:
        super().__init__(layout, memory, features, base=base, queue_index=index)
        self._open_part(Part(view, self._queue_size, QueueRegionSplit, DescStateSplit))
        self._next_avail = (self._next_used + len(self._again)) & INDEX_MASK

    def _begin(self) -> None:
        header = self._part.header
        for entry in self._part.entries:
            entry.inflight = entry.next = entry.counter = 0
        header.last_batch_head, header.used_idx = 0, self._next_used

    def _recover(self) -> None:
        header, entries = self._part.header, self._part.entries
        unsettled = (self._next_used - header.used_idx) & INDEX_MASK
        number = header.last_batch_head
        if unsettled > self._queue_size:
            raise self._nonsense(f"used index {header.used_idx}, with the ring's at {self._next_used}")
        for _ in range(unsettled):
            if number >= self._queue_size:
                raise self._nonsense(f"entry {number} in the last batch")
            entries[number].inflight = 0
            number = entries[number].next
        header.used_idx = self._next_used

    def _take_again(self, entry: int) -> Chain:
        return self._walker.chain(entry)

    def _record(self, chain: Chain, position: int) -> None:
        entry = self._part.entries[chain.head]
        entry.counter = self._count()
        release_fence()
        entry.inflight = 1

    @property
    def _batch(self) -> int:
        return PUBLISH_EVERY - self._next_used % PUBLISH_EVERY

    def _prepare(self, batch: Sequence[Chain]) -> None:
        header, entries = self._part.header, self._part.entries
        for chain in batch:
            entries[chain.head].next = header.last_batch_head
            header.last_batch_head = chain.head
        release_fence()

    def _settle(self, batch: Sequence[Chain]) -> None:
        release_fence()
        for chain in batch:
            self._part.entries[chain.head].inflight = 0
        release_fence()
        self._part.header.used_idx = self._next_used
