"""See ``memory.pyx``."""

from vhostuser.virtqueue.engine.types cimport Map


cdef class NativeMemory:
    cdef readonly object guest
    cdef Map map
    cdef tuple views
    cdef object piece(self, char *host, size_t length)


cdef char *address_of(object view) except NULL
