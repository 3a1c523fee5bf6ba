"""Chains in the order in which they went out: what IN_ORDER asks of both sides (virtio 1.3, 2.7.9 and 2.8.8).

A line never holds more chains than the queue has entries, and only good heads join it.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from vhostuser.virtqueue.engine.types cimport Line


cdef inline bint line_is_empty(const Line *line) noexcept nogil:
    return line.joined == line.left


cdef inline void line_join(Line *line, uint32_t head, uint32_t queue_size) noexcept nogil:
    line.heads[line.joined % queue_size] = <uint16_t> head
    line.joined += 1


cdef inline uint32_t line_first(const Line *line, uint32_t queue_size) noexcept nogil:
    return line.heads[line.left % queue_size]


cdef inline uint64_t line_place(const Line *line, uint32_t head, uint32_t queue_size) noexcept nogil:
    """How many stand in front of a chain that is in the line."""
    cdef uint64_t place = line.left
    while line.heads[place % queue_size] != head:
        place += 1
    return place - line.left
