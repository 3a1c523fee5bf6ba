"""The device's side of a virtqueue, compiled: `vhostuser.virtqueue.queue.DeviceQueue` over ``ring.pxd``.

What is done here needs Python objects; the ring itself is driven by ``ring.pxd``, which needs none.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from vhostuser.virtqueue.engine.atomics cimport load16
from vhostuser.virtqueue.engine.chain cimport NativeChain
from vhostuser.virtqueue.engine.memory cimport NativeMemory, address_of
from vhostuser.virtqueue.engine.ring cimport (
    device_arm,
    device_complete,
    device_disarm,
    device_look,
    device_pop,
    device_publish,
    device_should_notify,
)
from vhostuser.virtqueue.engine.split_device cimport IDX
from vhostuser.virtqueue.engine.types cimport LIED, NO_MEMORY, ONE, Desc, DeviceRing, Done

from vhostuser.virtqueue.engine.lies import lie_text
from vhostuser.virtqueue.packed_ring import base_of, positions_of
from vhostuser.virtqueue.ring import BrokenQueue, UnsupportedRing, ring_name, ring_words
from vhostuser.wire.features import VirtioFeature

cdef uint64_t MAX_USED_LENGTH = 0xFFFFFFFF


cdef class NativeDevice:
    """What both formats share.  Not for two threads at once."""

    def __cinit__(self, layout, memory, features, *, base, queue_index):
        self.ring.packed = isinstance(self, NativePackedDevice)
        self.ring.event_idx = bool(features & VirtioFeature.EVENT_IDX)
        self.ring.indirect = bool(features & VirtioFeature.INDIRECT_DESC)
        self.name = ring_name("packed" if self.ring.packed else "split", queue_index)
        self.features = features
        self.token = object()
        layout.cut(features)  # the size is right, or we end here
        self.ring.queue_size = layout.queue_size
        self.ring.chains = 1 << 16 if self.ring.packed else self.ring.queue_size
        self.allocate(bool(features & VirtioFeature.IN_ORDER))
        self.rebind(layout, memory)

    cdef int allocate(self, bint in_order) except -1:
        cdef size_t size = self.ring.queue_size
        if in_order:
            self.ring.done = <Done *> calloc(self.ring.chains, sizeof(Done))
            self.ring.line.heads = <uint16_t *> malloc(size * sizeof(uint16_t))
            if self.ring.done == NULL or self.ring.line.heads == NULL:
                raise MemoryError
        self.ring.taken = <uint16_t *> calloc(self.ring.chains, sizeof(uint16_t))
        self.ring.elements = <Desc *> malloc(size * sizeof(Desc))
        self.ring.table = <Desc *> malloc(size * sizeof(Desc))
        if self.ring.taken == NULL or self.ring.elements == NULL or self.ring.table == NULL:
            raise MemoryError
        return 0

    def __dealloc__(self):
        free(self.ring.taken)
        free(self.ring.done)
        free(self.ring.line.heads)
        free(self.ring.elements)
        free(self.ring.table)
        free(self.scratch.pieces)

    def rebind(self, layout, memory):
        """See `vhostuser.virtqueue.queue.DeviceQueue.rebind`."""
        if layout.queue_size != self.ring.queue_size:
            raise UnsupportedRing(
                f"{self.name}: resized from {self.ring.queue_size} to {layout.queue_size} while open"
            )
        layout = layout.cut(self.features)
        parts = (layout.descriptor, ring_words(layout.driver), ring_words(layout.device))
        if self.ring.packed:
            ring_words(layout.descriptor)
        snapshot = NativeMemory(memory)
        device_publish(&self.ring)  # to where it was promised
        self.ring.descriptor = address_of(parts[0])
        self.ring.driver = <uint16_t *> address_of(parts[1])
        self.ring.device = <uint16_t *> address_of(parts[2])
        self.ring.memory = (<NativeMemory> snapshot).map
        self.ring.avail_seen = self.ring.next_avail
        self.parts = parts
        self.memory = snapshot

    @property
    def in_flight(self):
        """Chains popped and not given back yet; IN_ORDER holds those back that are completed before their turn."""
        return self.ring.in_flight

    def pop(self, limit):
        """See `vhostuser.virtqueue.queue.DeviceQueue.pop`."""
        cdef Py_ssize_t most = limit, count = 0
        cdef int found = device_look(&self.ring)
        cdef NativeChain chain
        cdef list chains = []
        while found == ONE and count < most:
            found = device_pop(&self.ring, &self.scratch)
            if found == ONE:
                chain = NativeChain.__new__(NativeChain)
                chain.begin(self.memory, self.token, &self.scratch)
                chains.append(chain)
                count += 1
        if found == LIED and count == 0:
            raise self.error()
        return chains

    cdef object error(self):
        if self.ring.lie.code == NO_MEMORY:
            return MemoryError()
        numbers = [number for number in self.ring.lie.numbers]
        return BrokenQueue(self.name, lie_text(self.ring.lie.code, numbers, self.memory.guest))

    def complete(self, chains):
        """See `vhostuser.virtqueue.queue.DeviceQueue.complete`."""
        cdef NativeChain chain
        cdef bint more
        try:
            for given in chains:
                chain = given if type(given) is NativeChain else None
                if chain is None or chain.token is not self.token:
                    raise ValueError(f"{self.name}: {given!r} is not in flight: completed before, or from elsewhere")
                chain.token = None
                device_complete(&self.ring, chain.head, <uint32_t> min(chain.count_written(), MAX_USED_LENGTH))
        finally:
            more = device_publish(&self.ring)
        return more and device_should_notify(&self.ring)

    def arm(self):
        """See `vhostuser.virtqueue.queue.DeviceQueue.arm`."""
        return device_arm(&self.ring)

    def disarm(self):
        """See `vhostuser.virtqueue.queue.DeviceQueue.disarm`."""
        device_disarm(&self.ring)


cdef class NativeSplitDevice(NativeDevice):
    """A `vhostuser.virtqueue.queue.DeviceQueue` over a split ring."""

    def __cinit__(self, layout, memory, features, *, base, queue_index):
        self.ring.on_empty = bool(features & VirtioFeature.NOTIFY_ON_EMPTY)  # legacy drivers only
        self.ring.next_avail = self.ring.avail_seen = base & 0xFFFF
        # SET_VRING_BASE carries no used index: it is read when the ring starts.
        self.ring.next_used = load16(self.ring.device + IDX)

    @property
    def base(self):
        """See `vhostuser.virtqueue.queue.DeviceQueue.base`."""
        return self.ring.next_avail


cdef class NativePackedDevice(NativeDevice):
    """A `vhostuser.virtqueue.queue.DeviceQueue` over a packed ring."""

    def __cinit__(self, layout, memory, features, *, base, queue_index):
        self.ring.next_avail, self.ring.next_used = positions_of(base, layout.queue_size)

    @property
    def base(self):
        """See `vhostuser.virtqueue.queue.DeviceQueue.base`."""
        return base_of(self.ring.next_avail, self.ring.next_used, self.ring.queue_size)
