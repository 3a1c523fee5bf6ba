"""The driver's side of a split virtqueue (virtio 1.3, 2.7).

The device may be as hostile to us as a driver to a device.  It gets addresses of buffers, and it can write whatever
it likes into the used ring, so

* what a chain consists of is kept here, in `Record`; the descriptors in shared memory are written and never read;
* a used element must name a chain that was published and has not come back, and no more bytes than it offered.

`SplitDriver.add` writes descriptors, which nobody looks at yet; `SplitDriver.publish` makes all of them visible at
once and decides about the kick once.  Fences and their absence are as in ``split_device.py``.

Free descriptors are a pile.  What came back last is taken first: it is still in the cache.  With IN_ORDER chains have
to lie one after the other in the table (2.7.5.2), and since they come back in order too, all it takes is to put them
under the pile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from vhostuser.memory.ordering import FENCE_IS_FULL, acquire_fence, full_fence, release_fence
from vhostuser.virtqueue.driver_side import DriverSide, Record
from vhostuser.virtqueue.indirect import NEXT, WRITE
from vhostuser.virtqueue.notification import needs_event
from vhostuser.virtqueue.ring import INDEX_MASK, Lie, QueueFull, make_used, ring_name, ring_words
from vhostuser.virtqueue.segments import measure
from vhostuser.wire.schema import codec
from vhostuser.wire.split import (
    DESC_SIZE,
    FLAGS_OFFSET,
    IDX_OFFSET,
    RING_OFFSET,
    AvailFlags,
    DescFlags,
    UsedFlags,
    VirtqDesc,
)

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from vhostuser.virtqueue.indirect import IndirectTables
    from vhostuser.virtqueue.ring import RingLayout, Segment, Used

Token = TypeVar("Token")

INDIRECT = DescFlags.INDIRECT.value
NO_INTERRUPT, NO_NOTIFY = AvailFlags.NO_INTERRUPT.value, UsedFlags.NO_NOTIFY.value

FLAGS, IDX, RING = FLAGS_OFFSET // 2, IDX_OFFSET // 2, RING_OFFSET // 2
_pack_into = codec(VirtqDesc).pack_into


class SplitDriver(DriverSide[Token]):
    """A `vhostuser.virtqueue.queue.DriverQueue` over a split ring."""

    __slots__ = ("_avail", "_desc_table", "_elements", "_free", "_last_used", "_next_avail", "_used", "_visible")

    def __init__(
        self,
        layout: RingLayout,
        features: int,
        *,
        indirect: IndirectTables | None,
        base: int,
        queue_index: int | None,
    ) -> None:
        layout = layout.cut(features)
        super().__init__(ring_name("split", queue_index), layout.queue_size, features, indirect)
        self._desc_table = layout.descriptor
        self._avail, self._used = ring_words(layout.driver), ring_words(layout.device)
        self._elements = layout.device[RING_OFFSET : RING_OFFSET + 8 * self._queue_size].cast("I")
        self._free = list(range(self._queue_size - 1, -1, -1))
        self._start_at(base & INDEX_MASK)

    def _start_at(self, base: int) -> None:
        """An empty ring: the driver prepares all of it, the device's part too, before the device may look (3.1.1)."""
        self._next_avail = self._visible = self._last_used = base
        self._avail[FLAGS] = self._used[FLAGS] = 0
        self._avail[IDX] = self._used[IDX] = base
        if self._event_idx:
            self._avail[-1] = self._used[-1] = base

    @property
    def free(self) -> int:
        """Descriptors that `add` can still take; with indirect tables, that many chains."""
        return len(self._free)

    # --- chains out --------------------------------------------------------------------------------------------------

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment], token: Token) -> None:
        """See `vhostuser.virtqueue.queue.DriverQueue.add`."""
        count, offered = measure(self._name, self._queue_size, readable, writable)
        tables = self._indirect if self._indirect is not None and 1 < count <= self._indirect.entries else None
        needed = count if tables is None else 1
        if needed > len(self._free):
            raise QueueFull(f"{self._name}: {needed} descriptors needed, {len(self._free)} of {self._queue_size} free")
        taken = self._free[: -needed - 1 : -1]
        del self._free[-needed:]
        if tables is None:
            self._write_direct(taken, readable, writable)
        else:
            addr = tables.fill(taken[0], readable, writable)
            _pack_into(self._desc_table, taken[0] * DESC_SIZE, addr, count * DESC_SIZE, INDIRECT, 0)
        self._avail[RING + (self._next_avail & (self._queue_size - 1))] = taken[0]
        self._next_avail = (self._next_avail + 1) & INDEX_MASK
        self._added[taken[0]] = Record(token, offered, needed, taken)

    def _write_direct(self, taken: list[int], readable: Sequence[Segment], writable: Sequence[Segment]) -> None:
        position, last = 0, len(taken) - 1
        for flags, segments in ((0, readable), (WRITE, writable)):
            for addr, length in segments:
                at = taken[position] * DESC_SIZE
                if position < last:
                    position += 1
                    _pack_into(self._desc_table, at, addr, length, flags | NEXT, taken[position])
                else:
                    _pack_into(self._desc_table, at, addr, length, flags, 0)

    def _expose(self) -> bool:
        before, self._visible = self._visible, self._next_avail
        release_fence()
        self._avail[IDX] = self._next_avail
        # Store avail.idx, then load what the device wants.  The device does the mirror of this before it sleeps: it
        # stores "kick me", then loads avail.idx.  If our load overtook our store, it could find nothing while we
        # find kicks suppressed: nobody would ever look at these chains.  With a full fence on both sides one must
        # see the other's store.
        full_fence()
        if self._event_idx:
            return needs_event(self._used[-1], self._next_avail, before)
        return not (FENCE_IS_FULL and self._used[FLAGS] & NO_NOTIFY)

    # --- chains back -------------------------------------------------------------------------------------------------

    def _reap_into(self, reaped: list[Used[Token]], limit: int) -> None:
        published, elements, slots = self._published, self._elements, self._queue_size - 1
        for _ in range(min(limit, self._arrived())):
            at = (self._last_used & slots) << 1
            head, length = elements[at], elements[at + 1]
            record = published.get(head)
            if record is None or length > record.writable:
                raise self._untrue("used element", head, length)
            del published[head]
            self._free += record.descriptors[::-1]
            self._last_used = (self._last_used + 1) & INDEX_MASK
            reaped.append(make_used((record.token, length)))

    def _next_batch(self, line: deque[int]) -> tuple[int, int] | None:
        arrived = self._arrived()
        if not arrived:
            return None
        at = (self._last_used & (self._queue_size - 1)) << 1
        head, length = self._elements[at], self._elements[at + 1]
        record = self._published.get(head)
        if record is None or length > record.writable:
            raise self._untrue("used element", head, length)
        if line.index(head) >= arrived:
            raise Lie(f"used element names chain {head}, number {line.index(head) + 1} of {arrived} that were used")
        return head, length

    def _arrived(self) -> int:
        """How many chains the device has used that we have not taken back."""
        used_idx = self._used[IDX]
        arrived: int = (used_idx - self._last_used) & INDEX_MASK
        if arrived > len(self._published):
            jump = f"used.idx jumped from {self._last_used} to {used_idx}"
            raise Lie(f"{jump}, with {len(self._published)} chains outstanding")
        acquire_fence()
        return arrived

    def _take_back(self, head: int, record: Record[Token]) -> None:
        self._free[:0] = record.descriptors[::-1]
        self._last_used = (self._last_used + 1) & INDEX_MASK

    # --- notifications -----------------------------------------------------------------------------------------------

    def arm(self) -> bool:
        """See `vhostuser.virtqueue.queue.DriverQueue.arm`."""
        if self._event_idx:
            self._avail[-1] = self._last_used
        else:
            self._avail[FLAGS] = 0
        # Store "wake me", then look once more: the mirror of what the device does in complete.  Without the fence
        # our load of used.idx can come before our store: it finds nothing new, the device finds notifications
        # still suppressed, and we sleep on a completion.
        full_fence()
        return self._lie is not None or self._used[IDX] != self._last_used

    def disarm(self) -> None:
        """See `vhostuser.virtqueue.queue.DriverQueue.disarm`."""
        if FENCE_IS_FULL and not self._event_idx:  # with EVENT_IDX, leaving used_event behind says the same
            self._avail[FLAGS] = NO_INTERRUPT
