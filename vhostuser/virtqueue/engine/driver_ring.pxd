"""A ring of either format from the driver's side, for C: the counterpart of ``ring.pxd``.

A loop::

    while free and (head := driver_add(ring, segments, readable, writable)) >= 0:
        ...                                       # what belongs to the chain is kept by its head
    if driver_publish(ring):
        ...                                       # ring the kick
    while driver_reap(ring, &used) == ONE:
        ...                                       # used.head, used.length
    if not driver_arm(ring):
        ...                                       # sleep on the call
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from vhostuser.virtqueue.engine.line cimport line_first, line_join
from vhostuser.virtqueue.engine.packed_driver cimport (
    packed_add,
    packed_driver_arm,
    packed_driver_disarm,
    packed_driver_has_more,
    packed_driver_publish,
    packed_named,
    packed_take_back,
)
from vhostuser.virtqueue.engine.split_driver cimport (
    split_add,
    split_driver_arm,
    split_driver_disarm,
    split_driver_has_more,
    split_driver_look,
    split_driver_publish,
    split_named,
    split_take_back,
)
from vhostuser.virtqueue.engine.types cimport LIED, NO_LIE, ONE, DriverRing, Record, Segment, Used


cdef inline bint driver_uses_table(const DriverRing *ring, uint32_t count) noexcept nogil:
    """Does a chain of so many segments go into an indirect table, and take one descriptor?"""
    return ring.tables != NULL and 1 < count <= ring.table_entries


cdef inline int64_t driver_add(
    DriverRing *ring, const Segment *segments, uint32_t readable, uint32_t writable
) noexcept nogil:
    """Write one chain, of one to ``queue_size`` segments; the device sees it after `driver_publish`.

    Returns its head, smaller than ``queue_size``, by which it comes back; or -1: not enough descriptors are free now.
    """
    cdef uint32_t count = readable + writable, index, head
    cdef bint table = driver_uses_table(ring, count)
    cdef uint64_t offered = 0
    if (1 if table else count) > ring.free:
        return -1
    for index in range(readable, count):
        offered += segments[index].length
    if ring.packed:
        head = packed_add(ring, segments, readable, count, table)
    else:
        head = split_add(ring, segments, readable, count, table)
    ring.records[head].writable = offered
    ring.records[head].entries = <uint16_t> (1 if table else count)
    ring.added_list[ring.added] = <uint16_t> head
    ring.added += 1
    return head


cdef inline bint driver_publish(DriverRing *ring) noexcept nogil:
    """Let the device see what was added; does it want a kick for that?"""
    cdef uint32_t count = ring.added, index
    if count == 0:
        return False
    for index in range(count):
        ring.records[ring.added_list[index]].published = 1
        if ring.line.heads != NULL:
            line_join(&ring.line, ring.added_list[index], ring.queue_size)
    ring.published += count
    ring.added = 0
    return packed_driver_publish(ring) if ring.packed else split_driver_publish(ring, count)


cdef inline int driver_look(DriverRing *ring) noexcept nogil:
    """Look how much has come back, as once for each batch; `LIED` when it cannot be true.

    `driver_reap` does it by itself when it has nothing left.
    """
    if ring.lie.code != NO_LIE:
        return LIED
    return ONE if ring.packed else split_driver_look(ring)


cdef inline int driver_named(DriverRing *ring, Used *used) noexcept nogil:
    return packed_named(ring, used) if ring.packed else split_named(ring, used)


cdef inline int driver_next_in_order(DriverRing *ring, Used *used) noexcept nogil:
    """With IN_ORDER an element may stand for a batch: those in front of the one it names are full to the last byte."""
    cdef int found
    if not ring.in_batch:
        found = driver_named(ring, &ring.batch)
        if found != ONE:
            return found
        ring.in_batch = True
    used.head = line_first(&ring.line, ring.queue_size)
    ring.line.left += 1
    if used.head == ring.batch.head:
        used.length = ring.batch.length
        ring.in_batch = False
    else:
        used.length = <uint32_t> min(ring.records[used.head].writable, <uint64_t> 0xFFFFFFFF)
    return ONE


cdef inline int driver_reap(DriverRing *ring, Used *used) noexcept nogil:
    """Take the next chain that the device has used: `ONE`, `NOTHING`, or `LIED` with ``ring.lie`` set, for ever."""
    cdef int found
    if ring.lie.code != NO_LIE:
        return LIED
    found = driver_named(ring, used) if ring.line.heads == NULL else driver_next_in_order(ring, used)
    if found == ONE:
        if ring.packed:
            packed_take_back(ring, used.head)
        else:
            split_take_back(ring, used.head)
        ring.records[used.head].published = 0
        ring.published -= 1
    return found


cdef inline bint driver_has_more(DriverRing *ring) noexcept nogil:
    """Look for a chain that was used, without asking for notifications."""
    return packed_driver_has_more(ring) if ring.packed else split_driver_has_more(ring)


cdef inline bint driver_arm(DriverRing *ring) noexcept nogil:
    """Ask for notifications; true when there is something to reap already, or a lie to hear of."""
    cdef bint more = packed_driver_arm(ring) if ring.packed else split_driver_arm(ring)
    return more or ring.in_batch or ring.lie.code != NO_LIE


cdef inline void driver_disarm(DriverRing *ring) noexcept nogil:
    """Tell the device that notifications are a waste now."""
    if ring.packed:
        packed_driver_disarm(ring)
    else:
        split_driver_disarm(ring)
