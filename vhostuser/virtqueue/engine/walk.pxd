"""From descriptors to a chain, whatever the format of the ring: the twin of ``vhostuser/virtqueue/walk.py``.

Descriptors are copied into private memory first, each of them once, and everything is decided on the copy: the driver
can still write to the original while we look.  The order of the checks is that of the Python engine, so both name the
same lie.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc
from posix.uio cimport iovec

from vhostuser.virtqueue.engine.atomics cimport copy_once
from vhostuser.virtqueue.engine.map cimport translate
from vhostuser.virtqueue.engine.types cimport (
    BAD_ADDRESS,
    BAD_TABLE,
    DESC_SIZE,
    LIED,
    NO_MEMORY,
    ONE,
    READABLE_AFTER_WRITABLE,
    TOO_MANY_BYTES,
    WRITE,
    Chain,
    Desc,
    DeviceRing,
    Lie,
    Map,
)

cdef extern from *:
    """
    #define VHOSTUSER_MAX_CHAIN_BYTES (1ULL << 32)
    """
    const uint64_t MAX_CHAIN_BYTES "VHOSTUSER_MAX_CHAIN_BYTES"


cdef inline int lied(
    Lie *lie, int code, uint64_t first, uint64_t second, uint64_t third, uint64_t fourth
) noexcept nogil:
    """Write down what the peer did wrong."""
    lie.code = code
    lie.numbers[0] = first
    lie.numbers[1] = second
    lie.numbers[2] = third
    lie.numbers[3] = fourth
    return LIED


cdef inline bint grow(Chain *chain) noexcept nogil:
    """Make room for more pieces; false where there is no memory for them."""
    cdef uint32_t capacity = chain.capacity * 2 if chain.capacity else 16
    cdef void *pieces = realloc(chain.pieces, capacity * sizeof(iovec))
    if pieces == NULL:
        return False
    chain.pieces = <iovec *> pieces
    chain.capacity = capacity
    return True


cdef inline int add_pieces(Map *memory, Chain *chain, uint64_t addr, uint64_t length, Lie *lie) noexcept nogil:
    """Append the bytes at ``addr``, one piece for each region that they lie in; how many pieces, or `LIED`."""
    cdef uint32_t first = chain.readable + chain.writable, count = first
    cdef uint64_t position = addr, left = length, found = 0
    cdef char *host
    if addr + length < addr and addr + length != 0:
        return lied(lie, BAD_ADDRESS, chain.head, addr, length, 0)
    while left:
        host = translate(memory, position, left, &found)
        if host == NULL:
            return lied(lie, BAD_ADDRESS, chain.head, addr, length, 0)
        if count == chain.capacity and not grow(chain):
            return lied(lie, NO_MEMORY, 0, 0, 0, 0)
        chain.pieces[count].iov_base = host
        chain.pieces[count].iov_len = <size_t> found
        count += 1
        position += found
        left -= found
    return <int> (count - first)


cdef inline int assemble(
    DeviceRing *ring, Chain *chain, const Desc *elements, uint32_t count, bint packed
) noexcept nogil:
    """Make a chain of ``count`` descriptors, whose links are good (virtio 1.3, 2.7.4.2 and 2.8.5)."""
    cdef uint64_t total = 0
    cdef uint32_t length, index
    cdef int pieces
    cdef bint write
    chain.readable = chain.writable = 0
    chain.readable_bytes = chain.writable_bytes = 0
    for index in range(count):
        length = elements[index].length
        write = (elements[index].next if packed else elements[index].flags) & WRITE
        total += length
        if total > MAX_CHAIN_BYTES:
            return lied(&ring.lie, TOO_MANY_BYTES, chain.head, 0, 0, 0)
        if not write and chain.writable:
            return lied(&ring.lie, READABLE_AFTER_WRITABLE, chain.head, 0, 0, 0)
        if length == 0:  # the standard is silent about empty elements: they hurt nobody, wherever they point
            continue
        pieces = add_pieces(&ring.memory, chain, elements[index].addr, length, &ring.lie)
        if pieces < 0:
            return LIED
        if write:
            chain.writable += <uint32_t> pieces
            chain.writable_bytes += length
        else:
            chain.readable += <uint32_t> pieces
            chain.readable_bytes += length
    return ONE


cdef inline int copy_table(
    DeviceRing *ring, uint32_t head, uint64_t addr, uint32_t length, uint32_t most
) noexcept nogil:
    """Copy an indirect table of up to ``most`` entries, which may cross regions, into ``ring.table`` (2.7.5.3)."""
    cdef uint64_t position = addr, left = length, found = 0
    cdef char *host
    cdef char *to = <char *> ring.table
    if length % DESC_SIZE or length == 0 or length / DESC_SIZE > most:
        return lied(&ring.lie, BAD_TABLE, head, length, most, 0)
    if addr + length < addr and addr + length != 0:
        return lied(&ring.lie, BAD_ADDRESS, head, addr, length, 0)
    while left:
        host = translate(&ring.memory, position, left, &found)
        if host == NULL:
            return lied(&ring.lie, BAD_ADDRESS, head, addr, length, 0)
        copy_once(to, host, <size_t> found)
        to += found
        position += found
        left -= found
    return ONE
