"""The driver's side of a split virtqueue (virtio 1.3, 2.7).

The device may be as hostile to us as a driver to a device.  It gets addresses of buffers, and it can write whatever
it likes into the used ring, so

* what a chain consists of is kept here, in `_Record`; the descriptors in shared memory are written and never read;
* a used element must name a chain that was published and has not come back, and no more bytes than it offered.

`SplitDriver.add` writes descriptors, which nobody looks at yet; `SplitDriver.publish` makes all of them visible at
once and decides about the kick once.  Fences and their absence are as in ``split_device.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from vhostuser.memory.ordering import FENCE_IS_FULL, acquire_fence, full_fence, release_fence
from vhostuser.virtqueue.indirect import NEXT, WRITE
from vhostuser.virtqueue.notification import needs_event
from vhostuser.virtqueue.ring import INDEX_MASK, BrokenQueue, QueueFull, Used, ring_name, ring_words
from vhostuser.virtqueue.segments import measure
from vhostuser.wire.features import VirtioFeature
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
    from collections.abc import Sequence

    from vhostuser.virtqueue.indirect import IndirectTables
    from vhostuser.virtqueue.ring import RingLayout, Segment

Token = TypeVar("Token")

INDIRECT = DescFlags.INDIRECT.value
NO_INTERRUPT, NO_NOTIFY = AvailFlags.NO_INTERRUPT.value, UsedFlags.NO_NOTIFY.value

FLAGS, IDX, RING = FLAGS_OFFSET // 2, IDX_OFFSET // 2, RING_OFFSET // 2
_pack_into = codec(VirtqDesc).pack_into


class _Record(NamedTuple, Generic[Token]):
    """What we know about a chain that is out."""

    token: Token
    descriptors: list[int]
    writable: int


class SplitDriver(Generic[Token]):
    """A `vhostuser.virtqueue.queue.DriverQueue` over a split ring."""

    __slots__ = (
        "_added",
        "_avail",
        "_desc_table",
        "_elements",
        "_event_idx",
        "_free",
        "_indirect",
        "_last_used",
        "_lie",
        "_name",
        "_next_avail",
        "_published",
        "_queue_size",
        "_used",
    )

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
        self._name = ring_name("split", queue_index)
        self._event_idx = bool(features & VirtioFeature.EVENT_IDX)
        self._queue_size = layout.queue_size
        self._indirect = indirect if features & VirtioFeature.INDIRECT_DESC else None
        if self._indirect is not None:
            self._indirect.check(layout.queue_size)
        self._desc_table = layout.descriptor
        self._avail, self._used = ring_words(layout.driver), ring_words(layout.device)
        self._elements = layout.device[RING_OFFSET : RING_OFFSET + 8 * self._queue_size].cast("I")
        self._free = list(range(self._queue_size - 1, -1, -1))
        self._added: dict[int, _Record[Token]] = {}
        self._published: dict[int, _Record[Token]] = {}
        self._lie: str | None = None
        self._start_at(base & INDEX_MASK)

    def _start_at(self, base: int) -> None:
        """An empty ring: the driver prepares all of it, the device's part too, before the device may look (3.1.1)."""
        self._next_avail = self._last_used = base
        self._avail[FLAGS] = self._used[FLAGS] = 0
        self._avail[IDX] = self._used[IDX] = base
        if self._event_idx:
            self._avail[-1] = self._used[-1] = base

    @property
    def free(self) -> int:
        """Descriptors that `add` can still take; with indirect tables, that many chains."""
        return len(self._free)

    @property
    def outstanding(self) -> int:
        """Chains added and not reaped yet."""
        return len(self._added) + len(self._published)

    # --- chains out --------------------------------------------------------------------------------------------------

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment], token: Token) -> None:
        """See `vhostuser.virtqueue.queue.DriverQueue.add`."""
        count, offered = measure(self._name, self._queue_size, readable, writable)
        tables = self._indirect if self._indirect is not None and 1 < count <= self._indirect.entries else None
        needed = count if tables is None else 1
        if needed > len(self._free):
            raise QueueFull(f"{self._name}: {needed} descriptors needed, {len(self._free)} of {self._queue_size} free")
        taken = self._free[: -needed - 1 : -1]  # from the end: what was used last is still in the cache
        del self._free[-needed:]
        if tables is None:
            self._write_direct(taken, readable, writable)
        else:
            addr = tables.fill(taken[0], readable, writable)
            _pack_into(self._desc_table, taken[0] * DESC_SIZE, addr, count * DESC_SIZE, INDIRECT, 0)
        self._avail[RING + (self._next_avail & (self._queue_size - 1))] = taken[0]
        self._next_avail = (self._next_avail + 1) & INDEX_MASK
        self._added[taken[0]] = _Record(token, taken, offered)

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

    def publish(self) -> bool:
        """See `vhostuser.virtqueue.queue.DriverQueue.publish`."""
        if not self._added:
            return False
        before = (self._next_avail - len(self._added)) & INDEX_MASK
        self._published.update(self._added)
        self._added.clear()
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

    def reap(self, limit: int) -> list[Used[Token]]:
        """See `vhostuser.virtqueue.queue.DriverQueue.reap`."""
        reaped: list[Used[Token]] = []
        if self._lie is None:
            self._lie = self._reap_into(reaped, limit)
        if self._lie is not None and not reaped:
            raise BrokenQueue(self._name, self._lie)
        return reaped

    def _reap_into(self, reaped: list[Used[Token]], limit: int) -> str | None:
        """Fill ``reaped``; what the device did wrong, if it did."""
        published, elements, slots = self._published, self._elements, self._queue_size - 1
        used_idx = self._used[IDX]
        arrived = (used_idx - self._last_used) & INDEX_MASK
        if arrived > len(published):
            return f"used.idx jumped from {self._last_used} to {used_idx}, with {len(published)} chains outstanding"
        acquire_fence()
        for _ in range(min(limit, arrived)):
            at = (self._last_used & slots) << 1
            head, length = elements[at], elements[at + 1]
            record = published.get(head)
            if record is None:
                return f"used element names chain {head}, which is not outstanding"
            if length > record.writable:
                return f"used element says {length} bytes written to chain {head}, which offered {record.writable}"
            del published[head]
            self._free += record.descriptors[::-1]
            self._last_used = (self._last_used + 1) & INDEX_MASK
            reaped.append(Used(record.token, length))
        return None

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
