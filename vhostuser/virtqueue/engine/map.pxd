"""From a guest address to one of ours: the only place of the compiled engine that does it.

Every comparison subtracts first and never adds, so no number of the peer's can wrap.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stddef cimport size_t
from vhostuser.virtqueue.engine.types cimport Map, Region


cdef inline Region *region_of(Map *memory, uint64_t addr) noexcept nogil:
    """The region that has this byte, or NULL."""
    cdef Region *found
    cdef uint32_t low = 0, high = memory.count, middle
    if memory.count == 0:
        return NULL
    found = memory.regions + memory.recent
    if addr - found.start < found.size:  # an address below wraps to something huge
        return found
    while low < high:
        middle = (low + high) >> 1
        if memory.regions[middle].start <= addr:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return NULL
    found = memory.regions + low - 1
    if addr - found.start >= found.size:
        return NULL
    memory.recent = low - 1
    return found


cdef inline char *translate(Map *memory, uint64_t addr, uint64_t wanted, uint64_t *length) noexcept nogil:
    """Where ``addr`` is, and how many of the ``wanted`` bytes lie there in a run; NULL where nothing is mapped.

    Bytes may go on in the next region, if that begins right behind: ask again for the rest.
    """
    cdef Region *region = region_of(memory, addr)
    cdef uint64_t offset
    if region == NULL:
        return NULL
    offset = addr - region.start
    length[0] = min(wanted, region.size - offset)
    return region.host + offset
