"""The device's side of a split virtqueue (virtio 1.3, 2.7).

What the driver wrote is not trusted: ``walk.py`` says how chains are checked, and an index may not be further
ahead than the queue is long.  A lie ends the queue (`BrokenQueue`); the chains popped before it are good, and can
still be completed.

Indices, flags and event words are loaded and stored through 16-bit views, in one access each.  ``struct`` and slices
may tear: a driver would see half of one index and half of another.

Order: what an index announces is read after the index (acquire) and written before it (release).  Where a *store* of
ours must be seen before a later *load* is made, which no processor does by itself, stands a full fence with a
paragraph.  Where the machine has none (`FENCE_IS_FULL`), we never suppress a kick and always notify.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.memory.ordering import FENCE_IS_FULL, acquire_fence, full_fence, release_fence
from vhostuser.virtqueue.device_side import MAX_USED_LENGTH, DeviceSide
from vhostuser.virtqueue.notification import needs_event
from vhostuser.virtqueue.ring import (
    INDEX_MASK,
    PUBLISH_EVERY,
    Lie,
    RingLayout,
    not_in_flight,
    ring_name,
    ring_words,
)
from vhostuser.virtqueue.split_walk import SplitWalker
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.split import FLAGS_OFFSET, IDX_OFFSET, RING_OFFSET, AvailFlags, UsedFlags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vhostuser.memory.map import GuestMemory
    from vhostuser.virtqueue.chain import Chain

NO_INTERRUPT, NO_NOTIFY = AvailFlags.NO_INTERRUPT.value, UsedFlags.NO_NOTIFY.value  # plain ints: IntFlag's & is slow
FLAGS, IDX, RING = FLAGS_OFFSET // 2, IDX_OFFSET // 2, RING_OFFSET // 2


class SplitDevice(DeviceSide):
    """A `vhostuser.virtqueue.queue.DeviceQueue` over a split ring."""

    __slots__ = ("_avail", "_elements", "_on_empty", "_used", "_walker")

    def __init__(
        self, layout: RingLayout, memory: GuestMemory, features: int, *, base: int, queue_index: int | None
    ) -> None:
        self._on_empty = bool(features & VirtioFeature.NOTIFY_ON_EMPTY)  # legacy drivers only
        super().__init__(ring_name("split", queue_index), layout, memory, features)
        self._next_avail = base & INDEX_MASK
        self._next_used = self._used[IDX]  # SET_VRING_BASE carries no used index: it is read when the ring starts

    def _bind(self, layout: RingLayout, memory: GuestMemory) -> None:
        self._avail, self._used = ring_words(layout.driver), ring_words(layout.device)
        indirect = bool(self._features & VirtioFeature.INDIRECT_DESC)
        self._walker = SplitWalker(layout.descriptor, memory, layout.queue_size, indirect=indirect)
        self._elements = layout.device[RING_OFFSET : RING_OFFSET + 8 * self._queue_size].cast("Q")

    @property
    def base(self) -> int:
        """See `vhostuser.virtqueue.queue.DeviceQueue.base`."""
        return self._next_avail

    # --- chains in ---------------------------------------------------------------------------------------------------

    def _pop_into(self, chains: list[Chain], limit: int) -> None:
        in_flight, ring, slots = self._in_flight, self._avail, self._queue_size - 1
        make_chain = self._walker.chain
        avail_idx = ring[IDX]
        available = (avail_idx - self._next_avail) & INDEX_MASK
        if available > self._queue_size:
            raise Lie(f"avail.idx jumped from {self._next_avail} to {avail_idx}, a queue of {self._queue_size}")
        acquire_fence()
        for _ in range(min(limit, available)):
            head = ring[RING + (self._next_avail & slots)]
            if head in in_flight:
                raise Lie(f"chain {head} made available again while it is in flight")
            chain = in_flight[head] = make_chain(head)
            chains.append(chain)
            self._next_avail = (self._next_avail + 1) & INDEX_MASK

    # --- used elements out -------------------------------------------------------------------------------------------

    def _give_back(self, chains: Iterable[Chain]) -> bool:
        in_flight, elements, slots = self._in_flight, self._elements, self._queue_size - 1
        next_used = before = self._next_used
        try:
            for chain in chains:
                if in_flight.get(chain.head) is not chain:
                    raise not_in_flight(self._name, chain)
                del in_flight[chain.head]
                written = chain.written
                if written > MAX_USED_LENGTH:
                    written = MAX_USED_LENGTH
                elements[next_used & slots] = written << 32 | chain.head
                next_used = (next_used + 1) & INDEX_MASK
                if not next_used % PUBLISH_EVERY:
                    release_fence()
                    self._used[IDX] = next_used
        finally:
            if next_used != before:  # nothing to say: the ring is not touched
                release_fence()
                self._used[IDX] = self._next_used = next_used
        return next_used != before and self._should_notify(next_used)

    def _should_notify(self, next_used: int) -> bool:
        # Store used.idx, then load what the driver wants.  The driver does the mirror of this: it stores "wake me",
        # then loads used.idx.  A processor may let our load overtake our store (x86 too: the store waits in a
        # buffer), and then each side can miss what the other stored: we do not notify, the driver goes to sleep,
        # and the completion stays unseen for ever.  With a full fence on both sides one of them must see.
        full_fence()
        if not FENCE_IS_FULL:
            return True
        avail = self._avail
        signalled, self._signalled_used = self._signalled_used, next_used
        if self._on_empty and not self._in_flight and avail[IDX] == self._next_avail:
            return True
        if self._event_idx:
            return signalled is None or needs_event(avail[-1], next_used, signalled)
        return not avail[FLAGS] & NO_INTERRUPT

    # --- kicks -------------------------------------------------------------------------------------------------------

    def arm(self) -> bool:
        """See `vhostuser.virtqueue.queue.DeviceQueue.arm`."""
        if self._event_idx:
            self._used[-1] = self._next_avail
        else:
            self._used[FLAGS] = 0
        # Store "kick me", then look whether a kick is needed: the other half of the race described above.  The
        # driver stores avail.idx, then loads the word that we have just stored.  Without the fence our load of
        # avail.idx can come first: it finds nothing, the driver finds kicks still suppressed, and we sleep on a
        # ring that is not empty.
        full_fence()
        return self._lie is not None or self._avail[IDX] != self._next_avail

    def disarm(self) -> None:
        """See `vhostuser.virtqueue.queue.DeviceQueue.disarm`."""
        if FENCE_IS_FULL and not self._event_idx:  # with EVENT_IDX, leaving avail_event behind says the same
            self._used[FLAGS] = NO_NOTIFY
