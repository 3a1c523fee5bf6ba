"""See ``blk.pyx``."""

from libc.stdint cimport uint32_t, uint64_t

from vhostuser.virtqueue.engine.device cimport NativeDevice
from vhostuser.virtqueue.engine.loop cimport Bell
from vhostuser.virtqueue.engine.types cimport Chain


cdef class Image:
    cdef object keep  # the buffer that `bytes` points into
    cdef int fd
    cdef char *bytes
    cdef uint64_t size  # of `bytes`
    cdef bint null
    cdef uint64_t sectors
    cdef uint64_t writable
    cdef uint64_t repairs  # of the SIGBUS guard when the buffer was known to be whole
    cdef uint64_t requests
    cdef uint64_t bytes_read
    cdef uint64_t bytes_written


cdef class BlkLoop:
    cdef Image image
    cdef object serve
    cdef NativeDevice queue
    cdef Chain chain
    cdef Bell bell
    cdef uint32_t stopping
    cdef uint32_t wary
    cdef uint64_t requests  # served here and not added to the image's yet
    cdef uint64_t bytes_read
    cdef uint64_t bytes_written

    cdef int work(self) except? -1 nogil
    cdef int serve_one(self) except -1 nogil
    cdef bint try_here(self) noexcept nogil
    cdef bint read_blocks(self, uint64_t sector) noexcept nogil
    cdef bint write_blocks(self, uint64_t sector) noexcept nogil
    cdef bint on_disk(self, uint64_t sector, uint64_t length) noexcept nogil
    cdef bint move(self, uint64_t offset, uint32_t first, uint32_t count, uint64_t length, bint to_guest) noexcept nogil
    cdef bint copy(self, uint64_t offset, uint32_t first, uint32_t count, uint64_t length, bint to_guest) noexcept nogil
    cdef ssize_t read_file(self, uint64_t offset, uint32_t first, uint32_t count) noexcept nogil
    cdef void finish(self) noexcept nogil
    cdef int ask_python(self) except -1
