"""The device's side of a packed ring: the twin of ``packed_device.py`` and ``packed_walk.py`` (virtio 1.3, 2.8)."""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

from vhostuser.virtqueue.engine.atomics cimport copy_once, full_fence, load16, load16_acquire, store16, store16_release
from vhostuser.virtqueue.engine.packed_words cimport (
    DESC_FLAGS,
    DESC_WORDS,
    DISABLE,
    EVENT_FLAGS,
    ID,
    TURN,
    ahead,
    ask,
    available_flags,
    is_asked,
    moved_on,
    offset_of,
    used_flags,
)
from vhostuser.virtqueue.engine.types cimport (
    CHAIN_IN_FLIGHT,
    DESC_SIZE,
    ENTRIES_IN_FLIGHT,
    ENTRY_NOT_AVAILABLE,
    INDIRECT,
    LIED,
    LIST_INDIRECT_AFTER_DIRECT,
    LIST_INDIRECT_AND_NEXT,
    LIST_INDIRECT_NOT_NEGOTIATED,
    LIST_TOO_LONG,
    NEXT,
    NOTHING,
    ONE,
    PUBLISH_EVERY,
    WRITE,
    Chain,
    Desc,
    DeviceRing,
)
from vhostuser.virtqueue.engine.walk cimport assemble, copy_table, lied


cdef inline uint16_t *packed_flags(DeviceRing *ring, uint32_t position) noexcept nogil:
    """The flags of the entry at a position."""
    return <uint16_t *> ring.descriptor + offset_of(position, ring.queue_size) * DESC_WORDS + DESC_FLAGS


cdef inline bint packed_is_available(DeviceRing *ring) noexcept nogil:
    """Is it our turn at the next entry?

    Acquire: its other fields, the entries behind it and the buffers are read after the flags that give them to us.
    """
    cdef uint16_t flags = load16_acquire(packed_flags(ring, ring.next_avail))
    return (flags & TURN) == available_flags(ring.next_avail, ring.queue_size)


cdef inline int packed_table(
    DeviceRing *ring, Chain *chain, uint32_t offset, const Desc *desc, bint inside
) noexcept nogil:
    """A chain in an indirect table.  2.8.7: of its entries' flags only WRITE means anything, and ``id`` nothing."""
    if not ring.indirect:
        return lied(&ring.lie, LIST_INDIRECT_NOT_NEGOTIATED, offset, 0, 0, 0)
    if inside:
        return lied(&ring.lie, LIST_INDIRECT_AFTER_DIRECT, offset, 0, 0, 0)
    if desc.next & NEXT:
        return lied(&ring.lie, LIST_INDIRECT_AND_NEXT, offset, 0, 0, 0)
    chain.head = desc.flags
    chain.entries = 1
    if copy_table(ring, chain.head, desc.addr, desc.length, ring.queue_size) == LIED:
        return LIED
    return assemble(ring, chain, ring.table, desc.length // DESC_SIZE, True)


cdef inline int packed_walk(DeviceRing *ring, Chain *chain) noexcept nogil:
    """Copy the list of entries at ``next_avail``; once around the ring is its end at the latest."""
    cdef uint32_t position = ring.next_avail, size = ring.queue_size, count = 0
    cdef uint32_t first = offset_of(position, size)
    cdef Desc desc
    while True:
        copy_once(&desc, ring.descriptor + offset_of(position, size) * DESC_SIZE, DESC_SIZE)
        if (desc.next & TURN) != available_flags(position, size):
            # The whole list is written before its first entry is made available, so all of it must be.
            return lied(&ring.lie, ENTRY_NOT_AVAILABLE, first, offset_of(position, size), 0, 0)
        if desc.next & INDIRECT:
            return packed_table(ring, chain, first, &desc, count > 0)
        ring.elements[count] = desc
        count += 1
        if not desc.next & NEXT:
            chain.head = desc.flags  # 2.8.5: the last entry has the buffer id that counts
            chain.entries = count
            return assemble(ring, chain, ring.elements, count, True)
        if count == size:
            return lied(&ring.lie, LIST_TOO_LONG, first, size, 0, 0)
        position = moved_on(position, 1, size)


cdef inline int packed_pop(DeviceRing *ring, Chain *chain) noexcept nogil:
    cdef uint32_t size = ring.queue_size
    if not packed_is_available(ring):
        return NOTHING
    if packed_walk(ring, chain) == LIED:
        return LIED
    if ahead(ring.next_avail, ring.next_used, size) + chain.entries > size:
        return lied(&ring.lie, ENTRIES_IN_FLIGHT, offset_of(ring.next_avail, size), 0, 0, 0)
    if ring.taken[chain.head]:
        return lied(&ring.lie, CHAIN_IN_FLIGHT, chain.head, 0, 0, 0)
    ring.next_avail = moved_on(ring.next_avail, chain.entries, size)
    return ONE


cdef inline void packed_publish(DeviceRing *ring) noexcept nogil:
    """Release: all used descriptors of the group, and the buffers, are seen before the flags that open it."""
    if ring.group:
        store16_release(ring.held_at, ring.held)
        ring.group = 0


cdef inline void packed_complete(DeviceRing *ring, uint32_t head, uint32_t entries, uint32_t written) noexcept nogil:
    # The driver looks at one entry only, the next in order.  So a group is written back to front in time: while the
    # flags of its first entry are held back, nobody sees any of it.
    cdef uint16_t *flags_at = packed_flags(ring, ring.next_used)
    cdef uint16_t flags = used_flags(ring.next_used, ring.queue_size)
    cdef uint16_t chain_id = <uint16_t> head
    if written:
        flags |= WRITE
    memcpy(flags_at - 3, &written, 4)
    memcpy(flags_at - 1, &chain_id, 2)
    ring.next_used = moved_on(ring.next_used, entries, ring.queue_size)
    if ring.group:
        store16(flags_at, flags)
    else:
        ring.held_at = flags_at
        ring.held = flags
    ring.group += 1
    if ring.group == PUBLISH_EVERY:
        packed_publish(ring)


cdef inline bint packed_should_notify(DeviceRing *ring) noexcept nogil:
    cdef uint32_t before = ring.signalled_used
    cdef bint signalled = ring.signalled
    ring.signalled = True
    ring.signalled_used = ring.next_used
    # Store the flags of an entry, then load what the driver wants.  The driver does the mirror of this: it stores
    # "wake me", then loads those flags.  Without a full fence between the two, on both sides, each can miss what the
    # other stored, and a completion stays unseen for ever (see split_device.pxd).
    full_fence()
    return is_asked(ring.driver, ring.next_used, before, signalled, ring.queue_size, ring.event_idx)


cdef inline bint packed_arm(DeviceRing *ring) noexcept nogil:
    ask(ring.device, ring.next_avail, ring.queue_size, ring.event_idx)
    # Store "kick me", then look whether a kick is needed: the other half of that race.  The driver stores the flags of
    # its chain, then loads what we have just stored.  Without the fence our load of those flags can come first: it
    # finds nothing, the driver finds kicks still suppressed, and we sleep on a ring that is not empty.
    full_fence()
    return packed_is_available(ring)


cdef inline void packed_disarm(DeviceRing *ring) noexcept nogil:
    store16(ring.device + EVENT_FLAGS, DISABLE)
