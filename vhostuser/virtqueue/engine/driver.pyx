"""The driver's side of a virtqueue, compiled: `vhostuser.virtqueue.queue.DriverQueue` over ``driver_ring.pxd``."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from vhostuser.virtqueue.engine.atomics cimport store16
from vhostuser.virtqueue.engine.driver_ring cimport (
    driver_add,
    driver_arm,
    driver_disarm,
    driver_look,
    driver_publish,
    driver_reap,
    driver_uses_table,
)
from vhostuser.virtqueue.engine.memory cimport address_of
from vhostuser.virtqueue.engine.packed_words cimport ask as ask_of
from vhostuser.virtqueue.engine.split_device cimport FLAGS, IDX, RING
from vhostuser.virtqueue.engine.types cimport LIED, ONE, Record, Segment
from vhostuser.virtqueue.engine.types cimport Used as UsedElement

from vhostuser.virtqueue.engine.lies import lie_text
from vhostuser.virtqueue.packed_ring import clear, positions_of
from vhostuser.virtqueue.ring import BrokenQueue, QueueFull, UnsupportedRing, Used, ring_name, ring_words
from vhostuser.virtqueue.segments import measure
from vhostuser.wire.features import VirtioFeature

cdef extern from *:
    """
    /* A named tuple of two, as its constructor makes it, but without calling any Python, where CPython shows how. */
    static PyObject *make_used(PyObject *type, PyObject *token, PyObject *length) {
    #ifdef Py_LIMITED_API
        return PyObject_CallFunctionObjArgs(type, token, length, NULL);
    #else
        PyObject *used = ((PyTypeObject *) type)->tp_alloc((PyTypeObject *) type, 2);
        if (used != NULL) {
            Py_INCREF(token);
            PyTuple_SET_ITEM(used, 0, token);
            Py_INCREF(length);
            PyTuple_SET_ITEM(used, 1, length);
        }
        return used;
    #endif
    }
    #define VHOSTUSER_MOST_BYTES (1ULL << 32)
    """
    object make_used(object type, object token, object length)
    const uint64_t MOST_BYTES "VHOSTUSER_MOST_BYTES"


cdef class NativeDriver:
    """What both formats share.  Not for two threads at once."""

    def __cinit__(self, layout, features, *, indirect, base, queue_index):
        layout = layout.cut(features)
        self.ring.packed = isinstance(self, NativePackedDriver)
        self.ring.event_idx = bool(features & VirtioFeature.EVENT_IDX)
        self.ring.queue_size = self.ring.free = self.ring.free_ids = layout.queue_size
        self.name = ring_name("packed" if self.ring.packed else "split", queue_index)
        self.parts = (layout.descriptor, ring_words(layout.driver), ring_words(layout.device))
        if self.ring.packed:
            ring_words(layout.descriptor)
        self.ring.descriptor = address_of(self.parts[0])
        self.ring.driver = <uint16_t *> address_of(self.parts[1])
        self.ring.device = <uint16_t *> address_of(self.parts[2])
        if indirect is not None and features & VirtioFeature.INDIRECT_DESC:
            self.use_tables(indirect)
        self.tokens = [None] * layout.queue_size
        self.allocate(bool(features & VirtioFeature.IN_ORDER))

    cdef int use_tables(self, object indirect) except -1:
        indirect.check(self.ring.queue_size)
        tables = memoryview(indirect.view)
        self.parts += (tables,)
        self.ring.tables = address_of(tables)
        self.ring.tables_addr = indirect.addr
        self.ring.table_entries = indirect.entries
        return 0

    cdef int allocate(self, bint in_order) except -1:
        cdef size_t size = self.ring.queue_size, place
        if in_order:
            self.ring.line.heads = <uint16_t *> malloc(size * sizeof(uint16_t))
            if self.ring.line.heads == NULL:
                raise MemoryError
        self.ring.free_list = <uint16_t *> malloc(size * sizeof(uint16_t))
        self.ring.links = <uint16_t *> calloc(size, sizeof(uint16_t))
        self.ring.added_list = <uint16_t *> malloc(size * sizeof(uint16_t))
        self.ring.records = <Record *> calloc(size, sizeof(Record))
        self.segments = <Segment *> malloc(size * sizeof(Segment))
        if (
            self.ring.free_list == NULL
            or self.ring.links == NULL
            or self.ring.added_list == NULL
            or self.ring.records == NULL
            or self.segments == NULL
        ):
            raise MemoryError
        for place in range(size):
            self.ring.free_list[place] = <uint16_t> (size - 1 - place)
        return 0

    def __dealloc__(self):
        free(self.ring.free_list)
        free(self.ring.links)
        free(self.ring.line.heads)
        free(self.ring.added_list)
        free(self.ring.records)
        free(self.segments)

    @property
    def free(self):
        """Descriptors that `add` can still take; with indirect tables, that many chains."""
        return self.ring.free

    @property
    def outstanding(self):
        """Chains added and not reaped yet."""
        return self.ring.added + self.ring.published

    def add(self, readable, writable, token):
        """See `vhostuser.virtqueue.queue.DriverQueue.add`."""
        cdef Py_ssize_t read = len(readable), count = read + len(writable)
        cdef uint64_t total = 0
        cdef int64_t head
        if not 0 < count <= self.ring.queue_size:
            measure(self.name, self.ring.queue_size, readable, writable)
        if (
            self.measure_into(readable, 0, &total) != read
            or self.measure_into(writable, <uint32_t> read, &total) != count
            or total > MOST_BYTES
        ):
            measure(self.name, self.ring.queue_size, readable, writable)
            raise ValueError(f"{self.name}: segments and their number do not agree")
        head = driver_add(&self.ring, self.segments, <uint32_t> read, <uint32_t> (count - read))
        if head < 0:
            needed = 1 if driver_uses_table(&self.ring, <uint32_t> count) else count
            raise QueueFull(
                f"{self.name}: {needed} descriptors needed, {self.ring.free} of {self.ring.queue_size} free"
            )
        self.tokens[head] = token

    cdef int measure_into(self, object segments, uint32_t at, uint64_t *total) except -1:
        """Copy segments into C, from place ``at`` on, and add up their bytes; the place behind the last."""
        cdef uint32_t length
        for addr, bytes_ in segments:
            if bytes_ <= 0:
                raise ValueError(f"segment at {addr:#x} has {bytes_} bytes: devices refuse or skip empty ones")
            if at == self.ring.queue_size:
                raise ValueError(f"{self.name}: more segments than their length said")
            length = bytes_
            self.segments[at].addr = addr
            self.segments[at].length = length
            total[0] += length
            at += 1
        return <int> at

    def publish(self):
        """See `vhostuser.virtqueue.queue.DriverQueue.publish`."""
        return driver_publish(&self.ring)

    def reap(self, limit):
        """See `vhostuser.virtqueue.queue.DriverQueue.reap`."""
        cdef Py_ssize_t most = limit, count = 0
        cdef int found = driver_look(&self.ring)
        cdef UsedElement used
        cdef list reaped = []
        while found == ONE and count < most:
            found = driver_reap(&self.ring, &used)
            if found == ONE:
                reaped.append(make_used(Used, self.tokens[used.head], used.length))
                self.tokens[used.head] = None
                count += 1
        if found == LIED and count == 0:
            raise self.error()
        return reaped

    cdef object error(self):
        return BrokenQueue(self.name, lie_text(self.ring.lie.code, [number for number in self.ring.lie.numbers]))

    def arm(self):
        """See `vhostuser.virtqueue.queue.DriverQueue.arm`."""
        return driver_arm(&self.ring)

    def disarm(self):
        """See `vhostuser.virtqueue.queue.DriverQueue.disarm`."""
        driver_disarm(&self.ring)


cdef class NativeSplitDriver(NativeDriver):
    """A `vhostuser.virtqueue.queue.DriverQueue` over a split ring."""

    def __cinit__(self, layout, features, *, indirect, base, queue_index):
        # An empty ring: the driver prepares all of it, the device's part too, before the device may look (3.1.1).
        cdef uint16_t begin = base & 0xFFFF
        self.ring.next_avail = self.ring.next_used = self.ring.used_seen = begin
        store16(self.ring.driver + FLAGS, 0)
        store16(self.ring.device + FLAGS, 0)
        store16(self.ring.driver + IDX, begin)
        store16(self.ring.device + IDX, begin)
        if self.ring.event_idx:
            store16(self.ring.driver + RING + self.ring.queue_size, begin)
            store16(self.ring.device + RING + 4 * self.ring.queue_size, begin)


cdef class NativePackedDriver(NativeDriver):
    """A `vhostuser.virtqueue.queue.DriverQueue` over a packed ring."""

    def __cinit__(self, layout, features, *, indirect, base, queue_index):
        next_avail, next_used = positions_of(base, layout.queue_size)
        if next_avail != next_used:
            raise UnsupportedRing(f"{self.name}: base {base:#x} has chains in flight, a new ring has none")
        self.ring.next_avail = self.ring.next_used = self.ring.visible = next_avail
        clear(self.parts[0], next_avail, layout.queue_size)
        ask_of(self.ring.driver, next_avail, self.ring.queue_size, self.ring.event_idx)
        ask_of(self.ring.device, next_avail, self.ring.queue_size, False)  # a device may leave it at that
