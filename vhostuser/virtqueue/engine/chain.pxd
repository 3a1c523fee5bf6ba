"""See ``chain.pyx``."""

from libc.stdint cimport uint32_t, uint64_t
from posix.uio cimport iovec

from vhostuser.virtqueue.engine.memory cimport NativeMemory
from vhostuser.virtqueue.engine.types cimport Chain

cdef enum:
    FEW = 4  # pieces that need no memory of their own: header, data, status, and one more


cdef class Stream:
    cdef NativeMemory memory
    cdef iovec *pieces
    cdef uint32_t first  # piece not used up
    cdef uint32_t end
    cdef readonly uint64_t remaining
    cdef iovec few[FEW]

    cdef int fill(self, NativeMemory memory, const iovec *pieces, uint32_t count, uint64_t total) except -1
    cdef int check(self, uint64_t length) except -1
    cdef uint64_t asked(self, object length) except? 0
    cdef void skip_bytes(self, uint64_t length) noexcept
    cdef list peek(self, uint64_t length)


cdef class NativeReader(Stream):
    pass


cdef class NativeWriter(Stream):
    cdef uint64_t size
    cdef NativeWriter tail

    cdef uint64_t count_written(self) noexcept


cdef class NativeChain:
    cdef readonly uint32_t head
    cdef readonly uint32_t entries
    cdef object token  # of the queue that it is in flight in; None: of none
    cdef NativeMemory memory
    cdef uint32_t readable_count
    cdef uint32_t writable_count
    cdef uint64_t readable_bytes
    cdef uint64_t writable_bytes
    cdef iovec *pieces
    cdef iovec few[FEW]
    cdef NativeReader reader
    cdef NativeWriter writer
    cdef size_t header  # bytes that `frame` was told of
    cdef size_t trailer
    cdef bint answered

    cdef int begin(self, NativeMemory memory, object token, const Chain *chain) except -1
    cdef list views(self, uint32_t first, uint32_t count, size_t before, size_t behind)
    cdef uint64_t count_written(self) noexcept
