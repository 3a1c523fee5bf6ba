"""The driver's side of a split ring: the twin of ``split_driver.py`` (virtio 1.3, 2.7).

Of what a chain consists is kept in private memory; the descriptors are written and never read.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from vhostuser.virtqueue.engine.atomics cimport copy_once, full_fence, load16, load16_acquire, store16, store16_release
from vhostuser.virtqueue.engine.line cimport line_place
from vhostuser.virtqueue.engine.split_device cimport ELEMENTS, FLAGS, IDX, RING, SUPPRESSED
from vhostuser.virtqueue.engine.types cimport (
    BATCH_TOO_LONG,
    DESC_SIZE,
    INDIRECT,
    LIED,
    NEXT,
    NOTHING,
    ONE,
    USED_JUMPED,
    USED_TOO_LONG,
    USED_UNKNOWN,
    WRITE,
    Desc,
    DriverRing,
    Record,
    Segment,
    Used,
)
from vhostuser.virtqueue.engine.walk cimport lied


cdef inline void split_write(
    char *at, uint64_t addr, uint32_t length, uint32_t flags, uint32_t following
) noexcept nogil:
    """Write one descriptor; nobody looks at it before an index says so."""
    cdef Desc desc
    desc.addr = addr
    desc.length = length
    desc.flags = <uint16_t> flags
    desc.next = <uint16_t> following
    memcpy(at, &desc, DESC_SIZE)


cdef inline void split_write_table(
    DriverRing *ring, uint32_t head, const Segment *segments, uint32_t readable, uint32_t count
) noexcept nogil:
    cdef char *table = ring.tables + <uint64_t> head * ring.table_entries * DESC_SIZE
    cdef uint32_t index, flags, more
    for index in range(count):
        more = index + 1 < count
        flags = (0 if index < readable else WRITE) | (NEXT if more else 0)
        split_write(table + index * DESC_SIZE, segments[index].addr, segments[index].length, flags, (index + 1) * more)
    split_write(
        ring.descriptor + head * DESC_SIZE, ring.tables_addr + (table - ring.tables), count * DESC_SIZE, INDIRECT, 0
    )


cdef inline uint32_t split_free_desc(DriverRing *ring, uint32_t number) noexcept nogil:
    """One of the next descriptors to use: what was used last is still in the cache, but IN_ORDER wants it in a row."""
    if ring.line.heads != NULL:
        return (ring.next_desc + number) & (ring.queue_size - 1)
    return ring.free_list[ring.free - 1 - number]


cdef inline uint32_t split_add(
    DriverRing *ring, const Segment *segments, uint32_t readable, uint32_t count, bint table
) noexcept nogil:
    """Write a chain for which there is room; its head."""
    cdef uint32_t head = split_free_desc(ring, 0), at = head, following, index, flags
    if table:
        split_write_table(ring, head, segments, readable, count)
    else:
        for index in range(count):
            flags = 0 if index < readable else WRITE
            if index + 1 < count:
                following = split_free_desc(ring, index + 1)
                ring.links[at] = <uint16_t> following
                flags |= NEXT
            else:
                following = 0
            split_write(
                ring.descriptor + at * DESC_SIZE, segments[index].addr, segments[index].length, flags, following
            )
            at = following
    ring.free -= 1 if table else count
    ring.next_desc += 1 if table else count
    store16(ring.driver + RING + (ring.next_avail & (ring.queue_size - 1)), <uint16_t> head)
    ring.next_avail = (ring.next_avail + 1) & 0xFFFF
    return head


cdef inline bint split_driver_publish(DriverRing *ring, uint32_t count) noexcept nogil:
    """Make the last ``count`` chains visible; does the device want a kick?"""
    cdef uint32_t before = (ring.next_avail - count) & 0xFFFF
    # Release: descriptors, heads and buffers are seen before the index that announces them.
    store16_release(ring.driver + IDX, <uint16_t> ring.next_avail)
    # Store avail.idx, then load what the device wants.  The device does the mirror of this before it sleeps: it stores
    # "kick me", then loads avail.idx.  If our load overtook our store, it could find nothing while we find kicks
    # suppressed: nobody would ever look at these chains.  With a full fence on both sides one must see the other's
    # store.
    full_fence()
    if ring.event_idx:
        return ((ring.next_avail - load16(ring.device + RING + 4 * ring.queue_size) - 1) & 0xFFFF) < (
            (ring.next_avail - before) & 0xFFFF
        )
    return not load16(ring.device + FLAGS) & SUPPRESSED


cdef inline int split_driver_look(DriverRing *ring) noexcept nogil:
    """Load ``used.idx``, and bound it.  Acquire: the elements and the buffers are read after it."""
    cdef uint32_t used_idx = load16_acquire(ring.device + IDX)
    if ((used_idx - ring.next_used) & 0xFFFF) > ring.published:
        return lied(&ring.lie, USED_JUMPED, ring.next_used, used_idx, ring.published, 0)
    ring.used_seen = used_idx
    return ONE


cdef inline void split_take_back(DriverRing *ring, uint32_t head) noexcept nogil:
    """Go past a chain that was used; its descriptors are free again, its head on top."""
    cdef uint32_t at = head, entries = ring.records[head].entries, index
    if ring.line.heads == NULL:
        for index in range(entries):
            ring.free_list[ring.free + entries - 1 - index] = <uint16_t> at
            at = ring.links[at]
    ring.free += entries
    ring.next_used = (ring.next_used + 1) & 0xFFFF


cdef inline int split_named(DriverRing *ring, Used *used) noexcept nogil:
    """What the next used element says, if that can be."""
    cdef uint64_t place
    cdef Record *record
    if ring.next_used == ring.used_seen:
        if split_driver_look(ring) == LIED:
            return LIED
        if ring.next_used == ring.used_seen:
            return NOTHING
    copy_once(used, <char *> ring.device + ELEMENTS + 8 * (ring.next_used & (ring.queue_size - 1)), sizeof(Used))
    if used.head >= ring.queue_size or not ring.records[used.head].published:
        return lied(&ring.lie, USED_UNKNOWN, used.head, 0, 0, 0)
    record = ring.records + used.head
    if used.length > record.writable:
        return lied(&ring.lie, USED_TOO_LONG, used.length, used.head, record.writable, 0)
    if ring.line.heads != NULL:
        place = line_place(&ring.line, used.head, ring.queue_size)
        if place >= ((ring.used_seen - ring.next_used) & 0xFFFF):
            return lied(
                &ring.lie, BATCH_TOO_LONG, used.head, place + 1, (ring.used_seen - ring.next_used) & 0xFFFF, 0
            )
    return ONE


cdef inline bint split_driver_has_more(const DriverRing *ring) noexcept nogil:
    return load16(ring.device + IDX) != ring.next_used


cdef inline bint split_driver_arm(DriverRing *ring) noexcept nogil:
    if ring.event_idx:
        store16(ring.driver + RING + ring.queue_size, <uint16_t> ring.next_used)
    else:
        store16(ring.driver + FLAGS, 0)
    # Store "wake me", then look once more: the mirror of what the device does when it publishes.  Without the fence our
    # load of used.idx can come before our store: it finds nothing new, the device finds notifications still suppressed,
    # and we sleep on a completion.
    full_fence()
    return split_driver_has_more(ring)


cdef inline void split_driver_disarm(DriverRing *ring) noexcept nogil:
    if not ring.event_idx:  # with EVENT_IDX, leaving used_event behind says the same
        store16(ring.driver + FLAGS, SUPPRESSED)
