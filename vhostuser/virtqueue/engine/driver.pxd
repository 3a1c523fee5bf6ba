"""See ``driver.pyx``.  A loop without the GIL works on ``queue.ring`` while nobody else uses the queue."""

from libc.stdint cimport uint32_t, uint64_t

from vhostuser.virtqueue.engine.types cimport DriverRing, Segment


cdef class NativeDriver:
    cdef DriverRing ring
    cdef tuple parts  # views that keep the three parts mapped, and the indirect tables
    cdef object name
    cdef list tokens  # by head
    cdef Segment *segments  # room for a chain

    cdef int allocate(self, bint in_order) except -1
    cdef int use_tables(self, object indirect) except -1
    cdef int measure_into(self, object segments, uint32_t at, uint64_t *total) except -1
    cdef object error(self)  # what to raise for ring.lie
