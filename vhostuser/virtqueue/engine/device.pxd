"""See ``device.pyx``.  A loop without the GIL works on ``queue.ring`` while nobody else uses the queue."""

from vhostuser.virtqueue.engine.memory cimport NativeMemory
from vhostuser.virtqueue.engine.types cimport Chain, DeviceRing


cdef class NativeDevice:
    cdef DeviceRing ring
    cdef NativeMemory memory  # what ring.memory points into
    cdef tuple parts  # views that keep the three parts mapped
    cdef object name
    cdef object features
    cdef object token  # what chains of this queue are known by
    cdef Chain scratch

    cdef int allocate(self, bint in_order) except -1
    cdef object error(self)  # what to raise for ring.lie
