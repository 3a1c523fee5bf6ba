"""The split virtqueue (virtio 1.3, section 2.7): layouts, sizes, alignments, constants."""

from __future__ import annotations

from enum import IntFlag

from vhostuser.wire.schema import Structure, flags, le16, le32, le64, structure, wire

MAX_QUEUE_SIZE = 32768
"""2.7: a larger ring could not tell full from empty in 16 bits."""

DESC_TABLE_ALIGN = 16
AVAIL_RING_ALIGN = 2
USED_RING_ALIGN = 4
MAX_CHAIN_BYTES = 1 << 32
"""2.7.4.1: a driver must not add a chain of more than 2^32 bytes."""


class DescFlags(IntFlag):
    """2.7.5, also used by packed rings."""

    NEXT = 1
    WRITE = 2
    INDIRECT = 4


class AvailFlags(IntFlag):
    """2.7.6: what the driver says about used buffer notifications."""

    NO_INTERRUPT = 1


class UsedFlags(IntFlag):
    """2.7.8: what the device says about available buffer notifications."""

    NO_NOTIFY = 1


@structure
class VirtqDesc(Structure):
    """2.7.5 The Virtqueue Descriptor Table: one element of a buffer."""

    addr: int = wire(le64)
    len: int = wire(le32)
    flags: DescFlags = wire(flags(le16, DescFlags))
    next: int = wire(le16)


@structure
class VirtqUsedElem(Structure):
    """2.7.8 The Virtqueue Used Ring: which chain was completed, and how much of it was written."""

    id: int = wire(le32)
    len: int = wire(le32)


DESC_SIZE = VirtqDesc.wire_size()
USED_ELEM_SIZE = VirtqUsedElem.wire_size()

FLAGS_OFFSET = 0
IDX_OFFSET = 2
RING_OFFSET = 4
_EVENT_SIZE = 2


def desc_table_size(queue_size: int) -> int:
    """Bytes of the descriptor table."""
    return DESC_SIZE * queue_size


def used_event_offset(queue_size: int) -> int:
    """Where ``used_event`` stands in the available ring; there only with EVENT_IDX."""
    return RING_OFFSET + 2 * queue_size


def avail_ring_size(queue_size: int) -> int:
    """Bytes of the available ring, ``used_event`` included."""
    return used_event_offset(queue_size) + _EVENT_SIZE


def avail_event_offset(queue_size: int) -> int:
    """Where ``avail_event`` stands in the used ring; there only with EVENT_IDX."""
    return RING_OFFSET + USED_ELEM_SIZE * queue_size


def used_ring_size(queue_size: int) -> int:
    """Bytes of the used ring, ``avail_event`` included."""
    return avail_event_offset(queue_size) + _EVENT_SIZE
