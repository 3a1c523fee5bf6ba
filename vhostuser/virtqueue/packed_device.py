"""The device's side of a packed virtqueue (virtio 1.3, 2.8).

What the driver wrote is not trusted: ``walk.py`` and ``packed_walk.py`` say how chains are checked, and a chain may
not take entries whose former chain is still in flight.  A lie ends the queue (`BrokenQueue`); the chains popped before
it are good, and can still be completed.

One used descriptor goes back for each chain, to the entry at which the device stands; then the device skips as many
entries as the chain had, and so does the driver, who remembers.  Entries of other chains are overwritten on the way
when chains end out of order, which is why a chain is read completely when it is popped.

Flags and event words are loaded and stored through 16-bit views, in one access each.

Order: an entry is read after its flags (acquire), and written before them (release).  Where a *store* of ours must be
seen before a later *load* is made, which no processor does by itself, stands a full fence with a paragraph.  Where the
machine has none (`FENCE_IS_FULL`), we never suppress a kick and always notify.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.memory.ordering import FENCE_IS_FULL, acquire_fence, full_fence, release_fence
from vhostuser.virtqueue.device_side import MAX_USED_LENGTH, DeviceSide
from vhostuser.virtqueue.packed_ring import (
    AVAILABLE,
    DESC_LENGTHS,
    DESC_WORDS,
    FLAGS,
    ID,
    LENGTH,
    TURN,
    USED,
    ask,
    base_of,
    decline,
    is_asked,
    positions_of,
)
from vhostuser.virtqueue.packed_walk import PackedWalker
from vhostuser.virtqueue.ring import (
    PUBLISH_EVERY,
    Lie,
    RingLayout,
    not_in_flight,
    ring_name,
    ring_words,
)
from vhostuser.virtqueue.walk import WRITE
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vhostuser.memory.map import GuestMemory
    from vhostuser.virtqueue.chain import Chain


class PackedDevice(DeviceSide):
    """A `vhostuser.virtqueue.queue.DeviceQueue` over a packed ring."""

    __slots__ = ("_device_event", "_driver_event", "_lengths", "_span", "_walker", "_words")

    def __init__(
        self, layout: RingLayout, memory: GuestMemory, features: int, *, base: int, queue_index: int | None
    ) -> None:
        super().__init__(ring_name("packed", queue_index), layout, memory, features)
        self._span = 2 * layout.queue_size
        self._next_avail, self._next_used = positions_of(base, layout.queue_size)

    def _bind(self, layout: RingLayout, memory: GuestMemory) -> None:
        parts = (layout.descriptor, layout.driver, layout.device)
        self._words, self._driver_event, self._device_event = [ring_words(part) for part in parts]
        self._lengths = layout.descriptor.cast("I")
        indirect = bool(self._features & VirtioFeature.INDIRECT_DESC)
        self._walker = PackedWalker(layout.descriptor, memory, layout.queue_size, indirect=indirect)

    @property
    def base(self) -> int:
        """See `vhostuser.virtqueue.queue.DeviceQueue.base`."""
        return base_of(self._next_avail, self._next_used, self._queue_size)

    # --- chains in ---------------------------------------------------------------------------------------------------

    def _pop_into(self, chains: list[Chain], limit: int) -> None:
        words, size, in_flight, make_chain = self._words, self._queue_size, self._in_flight, self._walker.chain
        while len(chains) < limit:
            lap, offset = divmod(self._next_avail, size)
            available = AVAILABLE[lap]
            if words[offset * DESC_WORDS + FLAGS] & TURN != available:
                return
            acquire_fence()
            chain = make_chain(offset, available)
            if (self._next_avail - self._next_used) % self._span + chain.entries > size:
                raise Lie(f"the chain at entry {offset} takes entries whose chain is in flight")
            if chain.head in in_flight:
                raise Lie(f"chain {chain.head} made available again while it is in flight")
            in_flight[chain.head] = chain
            chains.append(chain)
            self._next_avail = (self._next_avail + chain.entries) % self._span

    # --- used descriptors out ----------------------------------------------------------------------------------------

    def _give_back(self, chains: Iterable[Chain]) -> bool:
        in_flight, words, lengths = self._in_flight, self._words, self._lengths
        size, span = self._queue_size, self._span
        next_used = before = self._next_used
        # The driver looks at one entry only, the next in order.  So a group is written back to front in time: while
        # the flags of its first entry are held back, nobody sees any of it.
        group = held_at = held = 0
        try:
            for chain in chains:
                if in_flight.get(chain.head) is not chain:
                    raise not_in_flight(self._name, chain)
                del in_flight[chain.head]
                lap, offset = divmod(next_used, size)
                written = chain.written
                lengths[offset * DESC_LENGTHS + LENGTH] = min(written, MAX_USED_LENGTH)
                words[offset * DESC_WORDS + ID] = chain.head
                flags = USED[lap] | WRITE if written else USED[lap]
                next_used = (next_used + chain.entries) % span
                if group:
                    words[offset * DESC_WORDS + FLAGS] = flags
                else:
                    held_at, held = offset * DESC_WORDS + FLAGS, flags
                group += 1
                if group == PUBLISH_EVERY:
                    release_fence()
                    words[held_at] = held
                    group = 0
        finally:
            if group:
                release_fence()
                words[held_at] = held
            self._next_used = next_used
        return next_used != before and self._should_notify(next_used)

    def _should_notify(self, next_used: int) -> bool:
        # Store the flags of an entry, then load what the driver wants.  The driver does the mirror of this: it stores
        # "wake me", then loads those flags.  A processor may let our load overtake our store (x86 too: the store
        # waits in a buffer), and then each side can miss what the other stored: we do not notify, the driver goes to
        # sleep, and the completion stays unseen for ever.  With a full fence on both sides one of them must see.
        full_fence()
        signalled, self._signalled_used = self._signalled_used, next_used
        if not FENCE_IS_FULL:
            return True
        return is_asked(self._driver_event, next_used, signalled, self._queue_size, event_idx=self._event_idx)

    # --- kicks -------------------------------------------------------------------------------------------------------

    def arm(self) -> bool:
        """See `vhostuser.virtqueue.queue.DeviceQueue.arm`."""
        ask(self._device_event, self._next_avail, self._queue_size, event_idx=self._event_idx)
        # Store "kick me", then look whether a kick is needed: the other half of the race described above.  The driver
        # stores the flags of its chain, then loads what we have just stored.  Without the fence our load of those
        # flags can come first: it finds nothing, the driver finds kicks still suppressed, and we sleep on a ring that
        # is not empty.
        full_fence()
        lap, offset = divmod(self._next_avail, self._queue_size)
        return self._lie is not None or self._words[offset * DESC_WORDS + FLAGS] & TURN == AVAILABLE[lap]

    def disarm(self) -> None:
        """See `vhostuser.virtqueue.queue.DeviceQueue.disarm`."""
        if FENCE_IS_FULL:
            decline(self._device_event)
