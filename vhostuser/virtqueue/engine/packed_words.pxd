"""Positions, turns and suppression in a packed ring: the twin of ``packed_ring.py``, where the theory stands."""

from libc.stdint cimport uint16_t, uint32_t

from vhostuser.virtqueue.engine.atomics cimport load16, load16_acquire, store16, store16_release

cdef enum:
    WRAP_BIT = 0x8000
    TURN = 0x8080  # both flags that say whose turn it is
    DESC_WORDS = 8  # a descriptor in 16-bit words, and where in it are
    ID = 6
    DESC_FLAGS = 7
    OFF_WRAP = 0  # the words of an event suppression structure
    EVENT_FLAGS = 1
    EVENT_MASK = 3
    ENABLE = 0
    DISABLE = 1
    PASSED = 2  # "DESC": when one given position is passed


cdef inline uint32_t offset_of(uint32_t position, uint32_t queue_size) noexcept nogil:
    return position if position < queue_size else position - queue_size


cdef inline uint16_t available_flags(uint32_t position, uint32_t queue_size) noexcept nogil:
    return 0x0080 if position < queue_size else 0x8000


cdef inline uint16_t used_flags(uint32_t position, uint32_t queue_size) noexcept nogil:
    return 0x8080 if position < queue_size else 0


cdef inline uint32_t moved_on(uint32_t position, uint32_t entries, uint32_t queue_size) noexcept nogil:
    position += entries
    return position if position < 2 * queue_size else position - 2 * queue_size


cdef inline uint32_t ahead(uint32_t position, uint32_t other, uint32_t queue_size) noexcept nogil:
    """How far ``position`` is ahead of ``other``."""
    return position - other if position >= other else position + 2 * queue_size - other


cdef inline uint16_t off_wrap_of(uint32_t position, uint32_t queue_size) noexcept nogil:
    return <uint16_t> (position | WRAP_BIT if position < queue_size else position - queue_size)


cdef inline uint32_t position_of(uint32_t off_wrap, uint32_t queue_size) noexcept nogil:
    """The position that 16 bits stand for; bits that are none come out as nothing in particular."""
    return off_wrap - WRAP_BIT if off_wrap & WRAP_BIT else off_wrap + queue_size


cdef inline void ask(uint16_t *event, uint32_t position, uint32_t queue_size, bint event_idx) noexcept nogil:
    """Write into our own ``event``: notify me, with EVENT_IDX when ``position`` is passed.  Then fence in full."""
    if event_idx:
        store16(event + OFF_WRAP, off_wrap_of(position, queue_size))
        # Release: whoever sees the flags that say "off_wrap counts" sees the off_wrap that is meant.
        store16_release(event + EVENT_FLAGS, PASSED)
    else:
        store16(event + EVENT_FLAGS, ENABLE)


cdef inline bint is_asked(
    uint16_t *event, uint32_t new, uint32_t old, bint has_old, uint32_t queue_size, bint event_idx
) noexcept nogil:
    """Does the owner of ``event`` want to hear that we moved on from ``old`` to ``new``?  Fence in full before.

    What no rule allows is taken for "always": one notification too many hurts nobody.
    """
    # Acquire: off_wrap is read after the flags that make it count, the mirror of `ask`.
    cdef uint32_t flags = load16_acquire(event + EVENT_FLAGS) & EVENT_MASK
    cdef uint32_t span = 2 * queue_size, wanted
    if flags == DISABLE:
        return False
    if flags != PASSED or not event_idx or not has_old:
        return True
    # Whatever the 16 bits are, this is a place in the ring; the Python engine's modulo gives the same one.
    wanted = position_of(load16(event + OFF_WRAP), queue_size) % span
    return (new + 2 * span - wanted - 1) % span < ahead(new, old, queue_size)
