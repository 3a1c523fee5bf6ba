"""The plain data of the compiled engine: what a ring is, what a chain is, and what can be wrong with one.

Nothing in here is a Python object, so a thread without the GIL works on the same structures as the classes do.  Whoever
holds a `DeviceRing` or a `DriverRing` keeps the memory that its pointers lead to mapped.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from posix.uio cimport iovec


cdef enum:
    NEXT = 1
    WRITE = 2
    INDIRECT = 4
    DESC_SIZE = 16
    PUBLISH_EVERY = 16  # as in vhostuser.virtqueue.ring

cdef enum LieCode:
    # Their texts stand in the same order in lies.py.
    NO_LIE
    AVAIL_JUMPED  # from, to, queue size
    CHAIN_IN_FLIGHT  # head
    DESCRIPTOR_OUTSIDE  # head, descriptor, entries of the table
    CHAIN_TOO_LONG  # head, queue size
    INDIRECT_NOT_NEGOTIATED  # head
    INDIRECT_INSIDE  # head
    INDIRECT_AND_NEXT  # head
    TOO_MANY_BYTES  # head
    READABLE_AFTER_WRITABLE  # head
    BAD_ADDRESS  # head, address, length
    BAD_TABLE  # head, bytes, most entries
    ENTRY_NOT_AVAILABLE  # first entry, entry
    LIST_TOO_LONG  # first entry, queue size
    LIST_INDIRECT_NOT_NEGOTIATED  # first entry
    LIST_INDIRECT_AFTER_DIRECT  # first entry
    LIST_INDIRECT_AND_NEXT  # first entry
    ENTRIES_IN_FLIGHT  # first entry
    USED_JUMPED  # from, to, outstanding
    USED_UNKNOWN  # head
    USED_TOO_LONG  # bytes, head, offered
    ENTRY_UNKNOWN  # entry, head
    ENTRY_TOO_LONG  # entry, bytes, head, offered
    BATCH_TOO_LONG  # head, its number in the batch, chains used
    NO_MEMORY  # no lie of the peer's: ours ran out

cdef enum Found:
    LIED = -1
    NOTHING = 0
    ONE = 1

cdef struct Lie:
    # The first rule that the peer broke; the ring is not looked at again.
    int code
    uint64_t numbers[4]

cdef struct Region:
    uint64_t start  # guest address
    uint64_t size
    char *host

cdef struct Map:
    # Guest memory, sorted by address, no two regions overlapping.
    Region *regions
    uint32_t count
    uint32_t recent  # where the last address was found

cdef struct Desc:
    # A descriptor in private memory.  In packed rings `flags` holds the id, and `next` the flags.
    uint64_t addr
    uint32_t length
    uint16_t flags
    uint16_t next

cdef struct Chain:
    # One chain in this process's addresses: first what the device reads, behind it what the device fills.
    uint32_t head  # what the ring calls it
    uint32_t entries  # of the ring; what a split ring counts is 1
    uint32_t readable  # pieces
    uint32_t writable  # pieces
    uint64_t readable_bytes
    uint64_t writable_bytes
    iovec *pieces
    uint32_t capacity

cdef struct Line:
    # Heads in the order in which they went out, for IN_ORDER: a circle of queue_size places.
    uint16_t *heads  # NULL: not negotiated
    uint64_t joined  # how many ever did
    uint64_t left

cdef struct Done:
    # IN_ORDER: a chain that is completed, perhaps before its turn.
    uint32_t written
    uint8_t done

cdef struct DeviceRing:
    # The device's side of a ring of either format.
    bint packed
    bint event_idx
    bint indirect
    bint on_empty
    uint32_t queue_size
    char *descriptor
    uint16_t *driver
    uint16_t *device
    Map memory
    uint32_t next_avail  # split: modulo 2^16; packed: a position, modulo twice the queue size
    uint32_t next_used
    uint32_t avail_seen  # split: avail.idx as it was last loaded
    uint32_t unpublished  # completions that the driver may not see yet
    uint32_t completed  # and those since the last decision about a notification
    uint32_t group  # packed: used descriptors written and not yet visible,
    uint16_t *held_at  # because the flags of the first of them are held back
    uint16_t held
    bint signalled  # somebody has been notified, when the ring stood at:
    uint32_t signalled_used
    uint32_t in_flight
    uint16_t *taken  # by chain: entries it takes while in flight, else 0
    uint32_t chains  # the length of that table
    Line line
    Done *done  # IN_ORDER, by chain
    Desc *elements  # room for a chain of queue_size descriptors
    Desc *table  # and for an indirect table as long
    Lie lie

cdef struct Segment:
    # A piece of a buffer as the driver states it.
    uint64_t addr
    uint32_t length

cdef struct Record:
    # What a driver knows about a chain that is out.
    uint64_t writable  # bytes offered
    uint16_t entries  # of the ring that it takes
    uint8_t published

cdef struct Used:
    uint32_t head
    uint32_t length

cdef struct DriverRing:
    # The driver's side of a ring of either format.
    bint packed
    bint event_idx
    uint32_t queue_size
    char *descriptor
    uint16_t *driver
    uint16_t *device
    char *tables  # indirect tables, one for each descriptor of the ring; NULL: none
    uint64_t tables_addr
    uint32_t table_entries
    uint32_t next_avail
    uint32_t next_used
    uint32_t used_seen  # split: used.idx as it was last loaded
    uint32_t visible  # packed: the first position that was not published
    uint16_t held  # packed: the flags that belong there
    uint32_t free  # descriptors
    uint16_t *free_list  # split: these descriptors; packed: ids
    uint32_t free_ids  # packed: how many of those
    uint16_t *links  # split: the descriptor behind this one in its chain
    uint32_t next_desc  # split, IN_ORDER: descriptors are used one after the other (2.7.9)
    Line line
    bint in_batch  # IN_ORDER: the device named this chain, and those in front of it are used as well
    Used batch
    uint32_t added  # chains that the device does not see yet,
    uint16_t *added_list  # and which
    uint32_t published
    Record *records  # by head
    Lie lie
