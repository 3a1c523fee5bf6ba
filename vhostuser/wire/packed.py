"""The packed virtqueue (virtio 1.3, section 2.8): layouts, sizes, alignments, constants.

One ring of descriptors serves both directions.  Whether an entry is available or used is told by two of its flags
together with a *wrap counter*, one bit that each side starts at 1 and flips when it passes the end of the ring.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

from vhostuser.wire.schema import Structure, code, flags, le16, le32, le64, structure, wire

MAX_QUEUE_SIZE = 32768
"""2.8: positions have 15 bits.  Unlike the size of a split ring it need not be a power of two."""

DESC_RING_ALIGN = 16
EVENT_SUPPRESSION_ALIGN = 4


class PackedDescFlags(IntFlag):
    """2.8: those of split rings, and the two that say whose turn it is."""

    NEXT = 1
    WRITE = 2
    INDIRECT = 4
    AVAIL = 1 << 7
    USED = 1 << 15


@structure
class PackedDesc(Structure):
    """``pvirtq_desc``.  ``id`` and ``flags`` stand where split rings have ``flags`` and ``next``."""

    addr: int = wire(le64)
    len: int = wire(le32)
    id: int = wire(le16)
    flags: PackedDescFlags = wire(flags(le16, PackedDescFlags))


def available_flags(wrap_counter: bool) -> PackedDescFlags:
    """2.8.1: how the driver marks a descriptor available: AVAIL equals its wrap counter, USED does not."""
    return PackedDescFlags.AVAIL if wrap_counter else PackedDescFlags.USED


def used_flags(wrap_counter: bool) -> PackedDescFlags:
    """2.8.1: how the device marks a descriptor used: AVAIL and USED both equal its wrap counter."""
    return PackedDescFlags.AVAIL | PackedDescFlags.USED if wrap_counter else PackedDescFlags(0)


class EventFlags(IntEnum):
    """2.8.10: when the reader of this structure is to send a notification."""

    ENABLE = 0
    DISABLE = 1
    DESC = 2
    """When one given descriptor is passed; needs EVENT_IDX."""


WRAP_BIT = 1 << 15


@structure
class EventSuppression(Structure):
    """``pvirtq_event_suppress``: the driver writes one for the device, the device one for the driver."""

    off_wrap: int = wire(le16)
    flags: EventFlags | int = wire(code(le16, EventFlags))


DESC_SIZE = PackedDesc.wire_size()
EVENT_SUPPRESSION_SIZE = EventSuppression.wire_size()
OFF_WRAP_OFFSET = EventSuppression.wire_offset("off_wrap")
EVENT_FLAGS_OFFSET = EventSuppression.wire_offset("flags")


def desc_ring_size(queue_size: int) -> int:
    """Bytes of the descriptor ring."""
    return DESC_SIZE * queue_size


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the ring: an entry (0 to queue size - 1) and the wrap counter there.  16 bits where it is stored."""

    offset: int
    wrap_counter: bool

    @classmethod
    def of(cls, off_wrap: int) -> Position:
        """Out of 16 bits: bit 15 is the wrap counter."""
        return cls(off_wrap & ~WRAP_BIT & 0xFFFF, bool(off_wrap & WRAP_BIT))

    def __int__(self) -> int:
        return self.offset | (WRAP_BIT if self.wrap_counter else 0)


@dataclass(frozen=True, slots=True)
class PackedBase:
    """What SET_VRING_BASE and GET_VRING_BASE carry for a packed ring: both positions, in 32 bits."""

    next_avail: Position
    next_used: Position

    @classmethod
    def of(cls, base: int) -> PackedBase:
        """Out of 32 bits, exactly as they are.

        Some peers fill in the lower half only (DPDK), which reads as "used: entry 0, wrap counter 0".
        """
        return cls(Position.of(base & 0xFFFF), Position.of(base >> 16 & 0xFFFF))

    def __int__(self) -> int:
        return int(self.next_avail) | int(self.next_used) << 16


INITIAL_BASE = PackedBase(Position(0, True), Position(0, True))
"""Where a packed ring begins: 0x80008000."""
