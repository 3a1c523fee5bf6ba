"""A disk's driver without the GIL: requests at random places, or from the first block to the last, many in flight.

The load is closed: each request that ends makes room for the next.  Latencies are counted in buckets whose width is a
64th of their value, so a run of any length takes the same memory.

With a pattern, each 64-bit word of the disk is one more than the word before it.  A block that went to another place, a
read that was answered and not done (what was in the buffer before is spoiled) and a torn block all show.
"""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from vhostuser.virtqueue.engine.atomics cimport load32_acquire, store32_release
from vhostuser.virtqueue.engine.driver cimport NativeDriver
from vhostuser.virtqueue.engine.driver_ring cimport (
    driver_add,
    driver_arm,
    driver_disarm,
    driver_has_more,
    driver_publish,
    driver_reap,
)
from vhostuser.virtqueue.engine.loop cimport (
    LOOKS,
    POLLIN,
    load64,
    now_ns,
    pollfd,
    relax,
    signal_through,
    sleep_on,
    store64,
)
from vhostuser.virtqueue.engine.types cimport LIED, ONE, DriverRing, Segment, Used

cdef enum:
    IN = 0  # BlkType
    OUT = 1
    HEADER = 16
    DATA = 64  # behind header and status, in a cache line of its own
    NO_STATUS = 0xFF
    SECTOR_SIZE = 512
    WORDS = 64  # of a sector
    AT_ONCE = 16  # requests taken back or begun before the others are let see
    PATIENCE_MS = 100

BUCKETS = 64 * 59
"""Buckets of latencies: see `bucket_end`."""
SLOT_OVERHEAD = DATA
"""Bytes of a slot besides its block."""


def bucket_end(object index):
    """The largest number of nanoseconds that counts in this bucket; a Python number, since it takes 64 bits."""
    if index < 64:
        return index
    return ((64 + index % 64 + 1) << (index // 64 - 1)) - 1


cdef inline uint32_t bucket_of(uint64_t ns) noexcept nogil:
    cdef uint32_t shift = 0
    while ns >> shift >= 128:
        shift += 1
    return shift * 64 + <uint32_t> (ns >> shift)


@cython.final
cdef class BlkLoad:
    """Load for one queue.

    Args:
        queue: a driver's queue of the compiled engine with nothing in flight; nobody else touches it.
        slots: guest address and writable view of each slot; as many requests are in flight at most.
        block_size: bytes of a request, whole sectors.
        blocks: of that size that the disk has.
        write_share: how many of the requests are writes, from 0 to 1.
        pattern: first word of the disk, to be written and looked for; 0 for neither.
        seed: of the random numbers.
        latencies: array of `BUCKETS` 64-bit numbers, counted up.
        watch_seconds: how long to look at a ring in which nothing has come back before sleeping.
    """

    def __cinit__(self, queue, slots, *, uint32_t block_size, uint64_t blocks, double write_share, uint64_t pattern,
                  uint64_t seed, latencies, double watch_seconds=0.0):
        cdef Py_buffer found
        cdef uint32_t index
        if not isinstance(queue, NativeDriver):
            raise TypeError(f"{type(queue).__name__} does not belong to the compiled engine")
        if not blocks or not block_size or block_size % SECTOR_SIZE:
            raise ValueError(f"{blocks} blocks of {block_size} bytes")
        self.queue = queue
        self.keep = [view for _, view in slots]
        self.depth = self.idle_count = <uint32_t> len(self.keep)
        self.block_size, self.blocks, self.pattern = block_size, blocks, pattern
        self.write_share = <uint64_t> (write_share * 4294967296.0)
        self.chance = seed | 1
        self.watch_ns = <uint64_t> (watch_seconds * 1e9)
        self.slots = <Slot *> calloc(self.depth + 1, sizeof(Slot))
        self.idle = <uint32_t *> calloc(self.depth + 1, sizeof(uint32_t))
        self.slot_of = <uint32_t *> calloc(1 << 16, sizeof(uint32_t))
        if self.slots == NULL or self.idle == NULL or self.slot_of == NULL:
            raise MemoryError
        for index, (addr, view) in enumerate(slots):
            PyObject_GetBuffer(view, &found, PyBUF_WRITABLE)
            self.slots[index].host, self.slots[index].addr = <char *> found.buf, addr
            PyBuffer_Release(&found)
            if <uint64_t> found.len < DATA + <uint64_t> block_size:
                raise ValueError(f"a slot of {found.len} bytes for blocks of {block_size}")
            self.idle[index] = index
        self.counted = memoryview(latencies)
        PyObject_GetBuffer(self.counted, &found, PyBUF_WRITABLE)
        self.buckets = <uint64_t *> found.buf
        PyBuffer_Release(&found)
        if found.len != 8 * BUCKETS:
            raise ValueError(f"{found.len} bytes for latencies, expected {8 * BUCKETS}")
        self.bad_status = -1

    def __dealloc__(self):
        free(self.slots)
        free(self.idle)
        free(self.slot_of)

    def stop(self):
        """Begin no more, wait for nothing; from any thread, and the loop has to be woken."""
        store32_release(&self.stopping, 1)

    def run(self, int kick, int call, int stop, double seconds):
        """Requests at random places for so many seconds, and then until all are back; without the GIL.

        Args:
            kick: descriptor to notify the device through.
            call: descriptor to sleep on.
            stop: a descriptor that is readable after `stop`.
            seconds: how long; less than 0: once each block from the first to the last instead.

        Raises:
            BrokenQueue: the device broke the ring.
        """
        cdef uint64_t until = now_ns() + <uint64_t> (max(seconds, 0.0) * 1e9)
        cdef int found
        self.in_turn = seconds < 0
        self.next_block = 0
        with nogil:
            found = self.work(kick, call, stop, until)
        if found == LIED:
            raise self.queue.error()

    @property
    def done(self):
        """Requests that came back."""
        return load64(&self.requests)

    @property
    def failure(self):
        """Sector and status byte of the first request that the device refused, else None."""
        return None if self.bad_status < 0 else (self.bad_sector, self.bad_status)

    @property
    def wrong(self):
        """How many blocks were not what the pattern says."""
        return load64(&self.mismatches)

    # --- without the GIL -----------------------------------------------------------------------------------------------

    cdef int work(self, int kick, int call, int stop, uint64_t until) except? -1 nogil:
        cdef DriverRing *ring = &self.queue.ring
        cdef pollfd ends[2]
        cdef Used used
        cdef uint64_t now
        cdef int found = ONE, count
        ends[0].fd, ends[0].events = call, POLLIN
        ends[1].fd, ends[1].events = stop, POLLIN
        driver_disarm(ring)
        while load32_acquire(&self.stopping) == 0:
            now = now_ns()
            for count in range(AT_ONCE):
                if not self.more(until) or not self.begin(now):
                    break
            if driver_publish(ring):
                signal_through(kick)
            if self.idle_count == self.depth:
                return 0
            for count in range(AT_ONCE):
                found = driver_reap(ring, &used)
                if found != ONE:
                    break
                self.end(&used, now_ns())
            if found == LIED:
                return LIED
            if count == 0 and not (self.idle_count and self.more(until)):
                if not self.watch(ring) and not driver_arm(ring):
                    sleep_on(ends, 2, PATIENCE_MS)
                driver_disarm(ring)
        return 0

    cdef bint watch(self, DriverRing *ring) noexcept nogil:
        """Spare the device a notification; true when something has come back, or there is a reason to stop."""
        cdef uint64_t until
        cdef int look
        if self.watch_ns == 0:
            return False
        until = now_ns() + self.watch_ns
        while now_ns() < until:
            for look in range(LOOKS):
                if driver_has_more(ring) or load32_acquire(&self.stopping) != 0:
                    return True
                relax()
        return False

    cdef bint more(self, uint64_t until) noexcept nogil:
        """Is there something left to begin?  However late it has become, there is a first request."""
        if self.bad_status >= 0:
            return False
        return self.next_block < self.blocks if self.in_turn else self.next_block == 0 or now_ns() < until

    cdef bint begin(self, uint64_t now) noexcept nogil:
        """Put one more request into the ring; false when there is no room."""
        cdef Segment segments[3]
        cdef Slot *slot
        cdef long head
        cdef uint32_t index
        if self.idle_count == 0:
            return False
        index = self.idle[self.idle_count - 1]
        slot = self.slots + index
        self.prepare(slot)
        segments[0].addr, segments[0].length = slot.addr, HEADER
        segments[1].addr, segments[1].length = slot.addr + DATA, self.block_size
        segments[2].addr, segments[2].length = slot.addr + HEADER, 1
        head = <long> driver_add(&self.queue.ring, segments, 1 if slot.kind == IN else 2, 2 if slot.kind == IN else 1)
        if head < 0:
            return False
        self.idle_count -= 1
        self.slot_of[head] = index
        self.next_block += 1
        slot.began = now
        return True

    cdef void prepare(self, Slot *slot) noexcept nogil:
        """Choose a place, write the header, and the pattern where one is wanted."""
        cdef uint64_t block = self.next_block if self.in_turn else <uint64_t> (
            (<double> (self.random() >> 11)) / 9007199254740992.0 * <double> self.blocks)
        cdef uint64_t *words = <uint64_t *> (slot.host + DATA)
        cdef uint64_t first, index
        slot.sector = block * (self.block_size // SECTOR_SIZE)
        slot.kind = OUT if (self.random() >> 32) < self.write_share else IN
        (<uint32_t *> slot.host)[0] = slot.kind
        (<uint32_t *> slot.host)[1] = 0
        (<uint64_t *> slot.host)[1] = slot.sector
        (<unsigned char *> slot.host)[HEADER] = NO_STATUS
        if self.pattern == 0:
            return
        if slot.kind == OUT:
            first = self.pattern + slot.sector * WORDS
            for index in range(self.block_size // 8):
                words[index] = first + index
        else:
            for index in range(self.block_size // SECTOR_SIZE):
                words[index * WORDS] = 0  # whoever answers without reading is found out

    cdef void end(self, const Used *used, uint64_t now) noexcept nogil:
        """A request is back: look at it, count it, and let its slot be used again."""
        cdef uint32_t index = self.slot_of[used.head]
        cdef Slot *slot = self.slots + index
        cdef int status = (<unsigned char *> slot.host)[HEADER]
        self.idle[self.idle_count] = index
        self.idle_count += 1
        store64(&self.requests, self.requests + 1)
        self.buckets[bucket_of(now - slot.began)] += 1
        if status != 0 or used.length != (self.block_size + 1 if slot.kind == IN else 1):
            if self.bad_status < 0:
                self.bad_status, self.bad_sector = status, slot.sector
        elif slot.kind == IN and self.pattern and not self.is_right(slot):
            if self.mismatches == 0:
                self.bad_sector = slot.sector
            store64(&self.mismatches, self.mismatches + 1)

    cdef bint is_right(self, const Slot *slot) noexcept nogil:
        cdef const uint64_t *words = <const uint64_t *> (slot.host + DATA)
        cdef uint64_t first = self.pattern + slot.sector * WORDS, index, differ = 0
        for index in range(self.block_size // 8):
            differ |= words[index] ^ (first + index)  # no way out in between: the compiler takes many at once
        return differ == 0

    cdef uint64_t random(self) noexcept nogil:
        """xorshift64*: good enough for places, and three instructions."""
        self.chance ^= self.chance >> 12
        self.chance ^= self.chance << 25
        self.chance ^= self.chance >> 27
        return self.chance * <uint64_t> 2685821657736338717
