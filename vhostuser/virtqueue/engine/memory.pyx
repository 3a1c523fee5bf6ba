"""Guest memory as a table of plain pointers, and who keeps it mapped."""

from cpython.buffer cimport PyBUF_WRITABLE, Py_buffer, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from vhostuser.virtqueue.engine.types cimport Region


cdef class NativeMemory:
    """A snapshot of a `GuestMemory`, which never changes either.  Its pointers are good for as long as it lives.

    Args:
        guest: the memory.
    """

    def __cinit__(self, object guest):
        cdef uint32_t index
        self.guest = guest
        self.views = tuple([memoryview(one.view) for one in guest.mapped])  # ours: nobody else can release them
        self.map.count = <uint32_t> len(self.views)
        self.map.regions = <Region *> calloc(max(self.map.count, 1), sizeof(Region))
        if self.map.regions == NULL:
            raise MemoryError
        for index, one in enumerate(guest.mapped):
            self.map.regions[index].start = one.guest_addr
            self.map.regions[index].size = one.size
            self.map.regions[index].host = address_of(self.views[index])

    def __dealloc__(self):
        free(self.map.regions)

    cdef object piece(self, char *host, size_t length):
        """A view of these bytes, which were found in one region; it keeps that region mapped, and nothing else."""
        cdef uint32_t index
        cdef Region *region
        cdef size_t offset
        for index in range(self.map.count):
            region = self.map.regions + index
            offset = <size_t> (host - region.host)
            if host >= region.host and offset <= region.size and length <= region.size - offset:
                return self.views[index][offset : offset + length]
        raise SystemError("a piece of a chain lies in no region")


cdef char *address_of(object view) except NULL:
    """The address of a writable view's first byte; it is good for as long as somebody keeps the view."""
    cdef Py_buffer buffer
    cdef char *address
    PyObject_GetBuffer(view, &buffer, PyBUF_WRITABLE)
    address = <char *> buffer.buf
    PyBuffer_Release(&buffer)
    return address
