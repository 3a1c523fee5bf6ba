"""The device's side of a split ring: the twin of ``split_device.py`` and ``split_walk.py`` (virtio 1.3, 2.7).

Shared words are loaded and stored by the functions of ``atomics.h`` and nowhere else.
"""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy

from vhostuser.virtqueue.engine.atomics cimport (
    copy_once,
    foresee,
    full_fence,
    load16,
    load16_acquire,
    store16,
    store16_release,
)
from vhostuser.virtqueue.engine.types cimport (
    AVAIL_JUMPED,
    CHAIN_IN_FLIGHT,
    CHAIN_TOO_LONG,
    DESC_SIZE,
    DESCRIPTOR_OUTSIDE,
    INDIRECT,
    INDIRECT_AND_NEXT,
    INDIRECT_INSIDE,
    INDIRECT_NOT_NEGOTIATED,
    LIED,
    NEXT,
    NOTHING,
    ONE,
    PUBLISH_EVERY,
    Chain,
    Desc,
    DeviceRing,
    Used,
)
from vhostuser.virtqueue.engine.walk cimport assemble, copy_table, lied

cdef enum:
    FLAGS = 0  # words of the available and of the used ring
    IDX = 1
    RING = 2
    ELEMENTS = 4  # bytes in front of the used elements
    SUPPRESSED = 1  # NO_INTERRUPT and NO_NOTIFY


cdef inline uint16_t *split_used_event(DeviceRing *ring) noexcept nogil:
    return ring.driver + RING + ring.queue_size


cdef inline uint16_t *split_avail_event(DeviceRing *ring) noexcept nogil:
    return ring.device + RING + 4 * ring.queue_size


cdef inline uint32_t split_head(DeviceRing *ring) noexcept nogil:
    """The head of the next chain, as the driver says: any 16 bits."""
    return load16(ring.driver + RING + (ring.next_avail & (ring.queue_size - 1)))


cdef inline int split_look(DeviceRing *ring) noexcept nogil:
    """Load ``avail.idx``, and bound it.

    Acquire: the heads, descriptors and buffers that the index announces are read after it.  On x86 this costs nothing;
    on arm64 a plain load would let the later ones overtake it.
    """
    cdef uint32_t avail_idx = load16_acquire(ring.driver + IDX)
    if ((avail_idx - ring.next_avail) & 0xFFFF) > ring.queue_size:
        return lied(&ring.lie, AVAIL_JUMPED, ring.next_avail, avail_idx, ring.queue_size, 0)
    ring.avail_seen = avail_idx
    return ONE


cdef inline int split_check_indirect(DeviceRing *ring, uint32_t head, uint32_t flags, bint inside) noexcept nogil:
    if not ring.indirect:
        return lied(&ring.lie, INDIRECT_NOT_NEGOTIATED, head, 0, 0, 0)
    if inside:
        return lied(&ring.lie, INDIRECT_INSIDE, head, 0, 0, 0)
    if flags & NEXT:
        return lied(&ring.lie, INDIRECT_AND_NEXT, head, 0, 0, 0)
    return ONE


cdef inline int split_walk(DeviceRing *ring, Chain *chain) noexcept nogil:
    """Follow the chain that begins with ``chain.head``; a budget of as many elements as the queue has ends any loop."""
    cdef uint32_t head = chain.head, index = head, entries = ring.queue_size, budget = ring.queue_size, count = 0
    cdef bint inside = False
    cdef Desc desc
    while True:
        if index >= entries:
            return lied(&ring.lie, DESCRIPTOR_OUTSIDE, head, index, entries, 0)
        if inside:
            desc = ring.table[index]
        else:
            copy_once(&desc, ring.descriptor + index * DESC_SIZE, DESC_SIZE)
        if desc.flags & INDIRECT:
            if split_check_indirect(ring, head, desc.flags, inside) == LIED:
                return LIED
            if copy_table(ring, head, desc.addr, desc.length, budget) == LIED:  # direct ones may stand before it
                return LIED
            entries = desc.length // DESC_SIZE
            index = 0
            inside = True
            continue
        if budget == 0:
            return lied(&ring.lie, CHAIN_TOO_LONG, head, ring.queue_size, 0, 0)
        budget -= 1
        ring.elements[count] = desc
        count += 1
        if not desc.flags & NEXT:
            return assemble(ring, chain, ring.elements, count, False)
        index = desc.next


cdef inline int split_pop(DeviceRing *ring, Chain *chain) noexcept nogil:
    cdef uint32_t head
    if ring.next_avail == ring.avail_seen:
        if split_look(ring) == LIED:
            return LIED
        if ring.next_avail == ring.avail_seen:
            return NOTHING
    head = split_head(ring)
    if head < ring.queue_size and ring.taken[head]:
        return lied(&ring.lie, CHAIN_IN_FLIGHT, head, 0, 0, 0)
    chain.head = head
    chain.entries = 1
    if split_walk(ring, chain) == LIED:
        return LIED
    ring.next_avail = (ring.next_avail + 1) & 0xFFFF
    if ring.next_avail != ring.avail_seen:  # the driver's processor still has the descriptors of the next chain
        foresee(ring.descriptor + DESC_SIZE * split_head(ring))
    return ONE


cdef inline void split_publish(DeviceRing *ring) noexcept nogil:
    """Release: the used elements and what the buffers got are seen before the index that announces them."""
    store16_release(ring.device + IDX, <uint16_t> ring.next_used)


cdef inline void split_complete(DeviceRing *ring, uint32_t head, uint32_t written) noexcept nogil:
    cdef Used element
    element.head = head
    element.length = written
    # Nobody looks at an element before the index has passed it, so this store need not be atomic.
    memcpy(<char *> ring.device + ELEMENTS + 8 * (ring.next_used & (ring.queue_size - 1)), &element, sizeof(Used))
    ring.next_used = (ring.next_used + 1) & 0xFFFF
    if ring.next_used % PUBLISH_EVERY == 0:
        split_publish(ring)


cdef inline bint split_should_notify(DeviceRing *ring) noexcept nogil:
    cdef uint32_t before = ring.signalled_used
    cdef bint signalled = ring.signalled
    ring.signalled = True
    ring.signalled_used = ring.next_used
    # Store used.idx, then load what the driver wants.  The driver does the mirror of this: it stores "wake me", then
    # loads used.idx.  A processor may let our load overtake our store (x86 too: the store waits in a buffer), and then
    # each side can miss what the other stored: we do not notify, the driver goes to sleep, and the completion stays
    # unseen for ever.  With a full fence on both sides one of them must see.
    full_fence()
    if ring.on_empty and not ring.in_flight and load16(ring.driver + IDX) == ring.next_avail:
        return True
    if ring.event_idx:
        return not signalled or (
            ((ring.next_used - load16(split_used_event(ring)) - 1) & 0xFFFF) < ((ring.next_used - before) & 0xFFFF)
        )
    return not load16(ring.driver + FLAGS) & SUPPRESSED


cdef inline bint split_arm(DeviceRing *ring) noexcept nogil:
    if ring.event_idx:
        store16(split_avail_event(ring), <uint16_t> ring.next_avail)
    else:
        store16(ring.device + FLAGS, 0)
    # Store "kick me", then look whether a kick is needed: the other half of the race described above.  The driver
    # stores avail.idx, then loads the word that we have just stored.  Without the fence our load of avail.idx can come
    # first: it finds nothing, the driver finds kicks still suppressed, and we sleep on a ring that is not empty.
    full_fence()
    return load16(ring.driver + IDX) != ring.next_avail


cdef inline void split_disarm(DeviceRing *ring) noexcept nogil:
    if not ring.event_idx:  # with EVENT_IDX, leaving avail_event behind says the same
        store16(ring.device + FLAGS, SUPPRESSED)
