"""See ``load.pyx``."""

from libc.stdint cimport uint32_t, uint64_t

from vhostuser.virtqueue.engine.driver cimport NativeDriver
from vhostuser.virtqueue.engine.types cimport DriverRing, Used

cdef struct Slot:
    # Guest memory for one request, and what is in it now.
    char *host
    uint64_t addr
    uint64_t began  # ns
    uint64_t sector
    uint32_t kind


cdef class BlkLoad:
    cdef NativeDriver queue
    cdef object keep  # the views that slots point into
    cdef object counted  # the array that `buckets` points into
    cdef uint64_t *buckets
    cdef Slot *slots
    cdef uint32_t *idle
    cdef uint32_t idle_count
    cdef uint32_t *slot_of  # by head
    cdef uint32_t depth
    cdef uint32_t block_size
    cdef uint64_t blocks
    cdef uint64_t write_share  # of 2^32
    cdef uint64_t pattern  # 0: what is read is not looked at
    cdef uint64_t chance  # state of the random numbers
    cdef uint64_t watch_ns
    cdef uint64_t next_block  # of a run from the first to the last
    cdef bint in_turn
    cdef uint32_t stopping
    cdef uint64_t requests
    cdef uint64_t mismatches
    cdef uint64_t bad_sector
    cdef int bad_status

    cdef int work(self, int kick, int call, int stop, uint64_t until) except? -1 nogil
    cdef bint watch(self, DriverRing *ring) noexcept nogil
    cdef bint more(self, uint64_t until) noexcept nogil
    cdef bint begin(self, uint64_t now) noexcept nogil
    cdef void prepare(self, Slot *slot) noexcept nogil
    cdef void end(self, const Used *used, uint64_t now) noexcept nogil
    cdef bint is_right(self, const Slot *slot) noexcept nogil
    cdef uint64_t random(self) noexcept nogil
