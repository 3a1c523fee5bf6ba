"""A ring of either format from the device's side, for C: what the classes and the loops without the GIL are made of.

A loop::

    device_disarm(ring)
    while device_pop(ring, &chain) == ONE:
        ...                                       # chain.pieces: the first `readable` to read, the others to fill
        device_complete(ring, chain.head, written)
    if device_publish(ring) and device_should_notify(ring):
        ...                                       # ring the call
    if not device_arm(ring):
        ...                                       # sleep on the kick

The memory behind ``chain.pieces`` is the caller's, to be freed with ``free``; `device_pop` makes it larger where it is
too small, so it may begin as NULL with a capacity of 0.
"""

from libc.stdint cimport uint32_t

from vhostuser.virtqueue.engine.line cimport line_first, line_is_empty, line_join
from vhostuser.virtqueue.engine.packed_device cimport (
    packed_arm,
    packed_complete,
    packed_disarm,
    packed_pop,
    packed_publish,
    packed_should_notify,
)
from vhostuser.virtqueue.engine.split_device cimport (
    split_arm,
    split_complete,
    split_disarm,
    split_look,
    split_pop,
    split_publish,
    split_should_notify,
)
from vhostuser.virtqueue.engine.types cimport LIED, NO_LIE, ONE, Chain, DeviceRing


cdef inline int device_look(DeviceRing *ring) noexcept nogil:
    """Look how much there is, as once for each batch; `LIED` when it cannot be true.

    `device_pop` does it by itself when it has nothing left.
    """
    if ring.lie.code != NO_LIE:
        return LIED
    return ONE if ring.packed else split_look(ring)


cdef inline int device_pop(DeviceRing *ring, Chain *chain) noexcept nogil:
    """Take the next chain: `ONE`, `NOTHING`, or `LIED` with ``ring.lie`` set, and then for ever.

    Its used length is the caller's to count; it is in flight until `device_complete`.
    """
    cdef int found
    if ring.lie.code != NO_LIE:
        return LIED
    found = packed_pop(ring, chain) if ring.packed else split_pop(ring, chain)
    if found == ONE:
        ring.taken[chain.head] = <unsigned short> chain.entries
        ring.in_flight += 1
        if ring.line.heads != NULL:
            line_join(&ring.line, chain.head, ring.queue_size)
    return found


cdef inline void give_back(DeviceRing *ring, uint32_t head, uint32_t written) noexcept nogil:
    """Write the used element of a chain."""
    cdef uint32_t entries = ring.taken[head]
    ring.taken[head] = 0
    ring.in_flight -= 1
    ring.unpublished += 1
    ring.completed += 1
    if ring.packed:
        packed_complete(ring, head, entries, written)
    else:
        split_complete(ring, head, written)


cdef inline void give_back_in_order(DeviceRing *ring, uint32_t head, uint32_t written) noexcept nogil:
    """With IN_ORDER a chain that is done before its turn waits for those in front of it; ``in_order.py`` says more."""
    cdef uint32_t first
    ring.done[head].written = written
    ring.done[head].done = 1
    while not line_is_empty(&ring.line):
        first = line_first(&ring.line, ring.queue_size)
        if not ring.done[first].done:
            return
        ring.done[first].done = 0
        ring.line.left += 1
        give_back(ring, first, ring.done[first].written)


cdef inline bint device_complete(DeviceRing *ring, uint32_t head, uint32_t written) noexcept nogil:
    """Give a chain back, with so many bytes written from its start; false when it is not in flight.

    The driver sees it after `device_publish`, or earlier: every 16 are published on the way.
    """
    if head >= ring.chains or ring.taken[head] == 0:
        return False
    if ring.line.heads == NULL:
        give_back(ring, head, written)
    elif ring.done[head].done:
        return False
    else:
        give_back_in_order(ring, head, written)
    return True


cdef inline bint device_publish(DeviceRing *ring) noexcept nogil:
    """Let the driver see what was completed; true when anything was, since the last `device_should_notify`.

    Nothing completed: the ring is not touched.
    """
    if ring.unpublished:
        ring.unpublished = 0
        if ring.packed:
            packed_publish(ring)
        else:
            split_publish(ring)
    return ring.completed > 0


cdef inline bint device_should_notify(DeviceRing *ring) noexcept nogil:
    """Does the driver want to be told of what was published?  At the latest after a queue size of completions."""
    ring.completed = 0
    return packed_should_notify(ring) if ring.packed else split_should_notify(ring)


cdef inline bint device_arm(DeviceRing *ring) noexcept nogil:
    """Ask for kicks; true when there is something to pop already, or a lie to hear of."""
    cdef bint more = packed_arm(ring) if ring.packed else split_arm(ring)
    return more or ring.lie.code != NO_LIE


cdef inline void device_disarm(DeviceRing *ring) noexcept nogil:
    """Tell the driver that kicks are a waste now."""
    if ring.packed:
        packed_disarm(ring)
    else:
        split_disarm(ring)
