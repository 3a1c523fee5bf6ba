"""Positions and turns in a packed ring (virtio 1.3, 2.8): what both sides of it share.

**Positions.**  A position is an entry together with a *wrap counter*, a bit that begins at 1 and flips at the end of
the ring.  Two laps therefore make a round, and here a position is one number modulo twice the queue size: the entry
itself in a lap with wrap counter 1, the entry plus the queue size in a lap with wrap counter 0.  To move on is an
addition, how far one position is ahead of another a subtraction.

**Turns.**  Both flags AVAIL and USED of an entry together say whose turn it is:

* available: AVAIL equals the wrap counter and USED does not, so 0x0080 in a lap with 1 and 0x8000 in a lap with 0;
* used: both equal it, so 0x8080 and 0x0000.

No value of one lap means anything in the next, so nobody has to clean up behind himself: an entry that its owner skips
keeps its flags, and whoever comes by a lap later finds them stale.

**Suppression.**  Each side has four bytes to say when it wants to be notified: always, never, or (EVENT_IDX) when a
given position is passed.
"""

from __future__ import annotations

from vhostuser.memory.ordering import acquire_fence, release_fence
from vhostuser.virtqueue.notification import needs_event
from vhostuser.virtqueue.ring import UnsupportedRing
from vhostuser.wire.packed import (
    DESC_SIZE,
    EVENT_FLAGS_OFFSET,
    OFF_WRAP_OFFSET,
    WRAP_BIT,
    EventFlags,
    PackedBase,
    PackedDesc,
    PackedDescFlags,
    Position,
    available_flags,
    used_flags,
)

# Plain ints: an operator of IntFlag costs 0.5 µs.
AVAILABLE = available_flags(True).value, available_flags(False).value
USED = used_flags(True).value, used_flags(False).value
TURN = (PackedDescFlags.AVAIL | PackedDescFlags.USED).value
"""The two flags that say whose turn it is."""

DESC_WORDS, ID, FLAGS = DESC_SIZE // 2, PackedDesc.wire_offset("id") // 2, PackedDesc.wire_offset("flags") // 2
"""A descriptor, and where in it `id` and `flags` are, in 16-bit words."""
DESC_LENGTHS, LENGTH = DESC_SIZE // 4, PackedDesc.wire_offset("len") // 4
"""A descriptor, and where in it `len` is, in units of its size."""

_OFF_WRAP, _EVENT_FLAGS = OFF_WRAP_OFFSET // 2, EVENT_FLAGS_OFFSET // 2
_EVENT_FLAGS_MASK = 3
_ENABLE, _DISABLE, _DESC = EventFlags.ENABLE.value, EventFlags.DISABLE.value, EventFlags.DESC.value


# --- positions -------------------------------------------------------------------------------------------------------


def position_of(off_wrap: int, queue_size: int) -> int:
    """The position that 16 bits stand for; one that is not in the ring comes out as nothing in particular."""
    return off_wrap - WRAP_BIT if off_wrap & WRAP_BIT else off_wrap + queue_size


def off_wrap_of(position: int, queue_size: int) -> int:
    """`position_of`, backwards."""
    return position | WRAP_BIT if position < queue_size else position - queue_size


def positions_of(base: int, queue_size: int) -> tuple[int, int]:
    """Next available and next used position out of what SET_VRING_BASE carries.

    DPDK's front-end fills in the lower half only.  An upper half of 0 is taken to mean that nothing is in flight; when
    it truly says "entry 0, wrap counter 0" this is as good, since a back-end drains a ring before it tells the base.

    Raises:
        UnsupportedRing: no ring of ``queue_size`` entries can stand there.
    """
    both = PackedBase.of(base)
    next_avail, next_used = both.next_avail, both.next_used if int(both.next_used) else both.next_avail
    for what, place in (("available", next_avail), ("used", next_used)):
        if place.offset >= queue_size:
            raise UnsupportedRing(f"base {base:#x}: next {what} entry {place.offset} of a ring of {queue_size}")
    avail, used = position_of(int(next_avail), queue_size), position_of(int(next_used), queue_size)
    if (avail - used) % (2 * queue_size) > queue_size:
        raise UnsupportedRing(f"base {base:#x}: more entries used than available, in a ring of {queue_size}")
    return avail, used


def base_of(next_avail: int, next_used: int, queue_size: int) -> int:
    """`positions_of`, backwards: both halves, for GET_VRING_BASE."""
    avail, used = (Position.of(off_wrap_of(position, queue_size)) for position in (next_avail, next_used))
    return int(PackedBase(avail, used))


def clear(ring: memoryview, position: int, queue_size: int) -> None:
    """Make ``ring`` look as if a device had used every entry up to ``position``: then nothing in it is available."""
    offset, wrap_counter = position % queue_size, position < queue_size
    behind, ahead = (PackedDesc(0, 0, 0, used_flags(lap)).build() for lap in (wrap_counter, not wrap_counter))
    ring[:] = behind * offset + ahead * (queue_size - offset)


# --- suppression -----------------------------------------------------------------------------------------------------


def ask(event: memoryview, position: int, queue_size: int, *, event_idx: bool) -> None:
    """Write into our own ``event``: notify me, with EVENT_IDX when ``position`` is passed.  Then fence in full."""
    if event_idx:
        event[_OFF_WRAP] = off_wrap_of(position, queue_size)
        release_fence()  # the flags say that off_wrap counts
        event[_EVENT_FLAGS] = _DESC
    else:
        event[_EVENT_FLAGS] = _ENABLE


def decline(event: memoryview) -> None:
    """Write into our own ``event``: no notifications for now."""
    event[_EVENT_FLAGS] = _DISABLE


def is_asked(event: memoryview, new: int, old: int | None, queue_size: int, *, event_idx: bool) -> bool:
    """Does the owner of ``event`` want to hear that we moved on from ``old`` to ``new``?  Fence in full before.

    Without a position to compare with (``old`` is None) a given position counts as passed.  What no rule allows is
    taken for "always": one notification too many hurts nobody.
    """
    flags = event[_EVENT_FLAGS] & _EVENT_FLAGS_MASK
    if flags == _DISABLE:
        return False
    if flags != _DESC or not event_idx or old is None:
        return True
    acquire_fence()
    wanted = position_of(event[_OFF_WRAP], queue_size)
    return needs_event(wanted, new, old, 2 * queue_size)
