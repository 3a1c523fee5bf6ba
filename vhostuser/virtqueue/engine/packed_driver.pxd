"""The driver's side of a packed ring: the twin of ``packed_driver.py`` (virtio 1.3, 2.8).

The device looks at one entry only, the next in order.  So descriptors are written in full but for the flags of the
first one since the last publication: while those are held back nobody sees any of them.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from vhostuser.virtqueue.engine.atomics cimport copy_once, full_fence, load16_acquire, store16, store16_release
from vhostuser.virtqueue.engine.packed_words cimport (
    DESC_FLAGS,
    DESC_WORDS,
    DISABLE,
    EVENT_FLAGS,
    TURN,
    ask,
    available_flags,
    is_asked,
    moved_on,
    offset_of,
    used_flags,
)
from vhostuser.virtqueue.engine.types cimport (
    DESC_SIZE,
    ENTRY_TOO_LONG,
    ENTRY_UNKNOWN,
    INDIRECT,
    NEXT,
    NOTHING,
    ONE,
    WRITE,
    Desc,
    DriverRing,
    Record,
    Segment,
    Used,
)
from vhostuser.virtqueue.engine.walk cimport lied


cdef inline uint16_t *driver_flags(DriverRing *ring, uint32_t position) noexcept nogil:
    """The flags of the entry at a position."""
    return <uint16_t *> ring.descriptor + offset_of(position, ring.queue_size) * DESC_WORDS + DESC_FLAGS


cdef inline void packed_write(
    DriverRing *ring, uint64_t addr, uint32_t length, uint32_t head, uint32_t flags
) noexcept nogil:
    """Write one descriptor at the next entry, and all but the first since `publish` with its flags."""
    cdef uint16_t *flags_at = driver_flags(ring, ring.next_avail)
    cdef uint16_t chain_id = <uint16_t> head
    memcpy(flags_at - 7, &addr, 8)
    memcpy(flags_at - 3, &length, 4)
    memcpy(flags_at - 1, &chain_id, 2)
    flags |= available_flags(ring.next_avail, ring.queue_size)
    if ring.next_avail == ring.visible:
        ring.held = <uint16_t> flags
    else:
        store16(flags_at, <uint16_t> flags)
    ring.next_avail = moved_on(ring.next_avail, 1, ring.queue_size)


cdef inline void packed_write_table(
    DriverRing *ring, uint32_t head, const Segment *segments, uint32_t readable, uint32_t count
) noexcept nogil:
    """A table has no links, and of the flags only WRITE (2.8.7)."""
    cdef char *table = ring.tables + <uint64_t> head * ring.table_entries * DESC_SIZE
    cdef uint32_t index
    cdef Desc desc
    desc.flags = 0
    for index in range(count):
        desc.addr = segments[index].addr
        desc.length = segments[index].length
        desc.next = 0 if index < readable else WRITE
        memcpy(table + index * DESC_SIZE, &desc, DESC_SIZE)
    packed_write(ring, ring.tables_addr + (table - ring.tables), count * DESC_SIZE, head, INDIRECT)


cdef inline uint32_t packed_add(
    DriverRing *ring, const Segment *segments, uint32_t readable, uint32_t count, bint table
) noexcept nogil:
    """Write a chain for which there is room; its id."""
    cdef uint32_t head, index, flags
    ring.free_ids -= 1
    head = ring.free_list[ring.free_ids]
    if table:
        ring.free -= 1
        packed_write_table(ring, head, segments, readable, count)
        return head
    ring.free -= count
    for index in range(count):
        flags = (0 if index < readable else WRITE) | (NEXT if index + 1 < count else 0)
        packed_write(ring, segments[index].addr, segments[index].length, head, flags)
    return head


cdef inline bint packed_driver_publish(DriverRing *ring) noexcept nogil:
    cdef uint32_t before = ring.visible
    ring.visible = ring.next_avail
    # Release: all entries and buffers are seen before the flags that give the first of them to the device.
    store16_release(driver_flags(ring, before), ring.held)
    # Store the flags, then load what the device wants.  The device does the mirror of this before it sleeps: it stores
    # "kick me", then loads those flags.  Without a full fence between the two, on both sides, it could find nothing
    # while we find kicks suppressed: nobody would ever look at these chains.
    full_fence()
    return is_asked(ring.device, ring.visible, before, True, ring.queue_size, ring.event_idx)


cdef inline void packed_take_back(DriverRing *ring, uint32_t head) noexcept nogil:
    """Go past a chain that was used; its entries and its id are free again."""
    ring.free_list[ring.free_ids] = <uint16_t> head
    ring.free_ids += 1
    ring.free += ring.records[head].entries
    ring.next_used = moved_on(ring.next_used, ring.records[head].entries, ring.queue_size)


cdef inline int packed_named(DriverRing *ring, Used *used) noexcept nogil:
    """What the next entry says, if it is used and that can be."""
    cdef uint16_t *flags_at = driver_flags(ring, ring.next_used)
    # Acquire: the rest of the entry and the buffers are read after the flags that give them back.
    cdef uint16_t flags = load16_acquire(flags_at), chain_id
    cdef uint32_t offset = offset_of(ring.next_used, ring.queue_size)
    cdef Record *record
    if (flags & TURN) != used_flags(ring.next_used, ring.queue_size):
        return NOTHING
    copy_once(&used.length, flags_at - 3, 4)
    copy_once(&chain_id, flags_at - 1, 2)
    used.head = chain_id
    if used.head >= ring.queue_size or not ring.records[used.head].published:
        return lied(&ring.lie, ENTRY_UNKNOWN, offset, used.head, 0, 0)
    record = ring.records + used.head
    if used.length > record.writable:
        if flags & WRITE:
            return lied(&ring.lie, ENTRY_TOO_LONG, offset, used.length, used.head, record.writable)
        used.length = 0  # 2.8.4: without WRITE the field means nothing; QEMU's devices use it all the same
    return ONE


cdef inline bint packed_driver_has_more(DriverRing *ring) noexcept nogil:
    return (load16_acquire(driver_flags(ring, ring.next_used)) & TURN) == used_flags(ring.next_used, ring.queue_size)


cdef inline bint packed_driver_arm(DriverRing *ring) noexcept nogil:
    ask(ring.driver, ring.next_used, ring.queue_size, ring.event_idx)
    # Store "wake me", then look once more: the mirror of what the device does when it publishes.  Without the fence our
    # load of the flags can come before our store: it finds nothing new, the device finds notifications still
    # suppressed, and we sleep on a completion.
    full_fence()
    return packed_driver_has_more(ring)


cdef inline void packed_driver_disarm(DriverRing *ring) noexcept nogil:
    store16(ring.driver + EVENT_FLAGS, DISABLE)
