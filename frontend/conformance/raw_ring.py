"""Descriptors and indices by hand, for drivers that lie: every number of a ring is ours to choose, in both formats.

`RawRing` takes over a `TestRing` that was just started and stands where it began.  It keeps account of what the chains
allowed the device to write, so that what was written beyond that is found out, however odd the chain was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vhostuser.wire.packed import PackedBase, PackedDesc, Position, available_flags, used_flags
from vhostuser.wire.schema import codec
from vhostuser.wire.split import (
    DESC_SIZE,
    FLAGS_OFFSET,
    IDX_OFFSET,
    RING_OFFSET,
    USED_ELEM_SIZE,
    DescFlags,
    VirtqDesc,
    VirtqUsedElem,
)

if TYPE_CHECKING:
    from frontend.conformance.model import Request
    from frontend.conformance.ring import TestRing
    from frontend.guest.memory import Buffer

NEXT, WRITE, INDIRECT = (int(flag) for flag in (DescFlags.NEXT, DescFlags.WRITE, DescFlags.INDIRECT))
FLAGS_WORD, IDX_WORD, RING_WORD = FLAGS_OFFSET // 2, IDX_OFFSET // 2, RING_OFFSET // 2
MASK = 0xFFFF
PACKED_FLAGS_WORD = PackedDesc.wire_offset("flags") // 2
WORDS = DESC_SIZE // 2

_split, _packed, _used = codec(VirtqDesc), codec(PackedDesc), codec(VirtqUsedElem)


@dataclass(frozen=True, slots=True)
class Desc:
    """A descriptor with any numbers in it.

    Attributes:
        addr: guest address, 64 bits.
        length: bytes, 32 bits.
        flags: 16 bits; in a packed ring AVAIL and USED are seen to.
        next: of a split ring; None for the one written after it.
    """

    addr: int
    length: int
    flags: int = 0
    next: int | None = None


def descs_of(request: Request) -> list[Desc]:
    """The chain that a driver would make of ``request``."""
    return chained(
        [Desc(each.addr, len(each)) for each in request.readable]
        + [Desc(each.addr, len(each), WRITE) for each in request.writable]
    )


def chained(descs: list[Desc]) -> list[Desc]:
    """The same with NEXT in all but the last."""
    last = len(descs) - 1
    return [replace(each, flags=each.flags & ~NEXT | (NEXT if n < last else 0)) for n, each in enumerate(descs)]


class RawRing:
    """A ring whose driver is the case.

    Args:
        ring: started, and nothing was added to it yet.

    Attributes:
        ring: the same.
        allowed: address and length of what the device may write by the chains so far, true or not.
        room: bytes that it may write, by the id of the chain.
    """

    decoys = False
    """Packed chains have another buffer id in all descriptors but the last, whose id alone counts (2.8.5)."""

    def __init__(self, ring: TestRing) -> None:
        self.ring = ring
        self.words = ring.driver.view.cast("H")
        self.allowed: list[tuple[int, int]] = []
        self.room: dict[int, int] = {}
        self._descs = ring.descriptor.view
        self._slot = 0
        self._idx = ring.base & MASK
        self._place = PackedBase.of(ring.base).next_avail
        self._first = self._place
        self._taken: list[int] = []

    # --- descriptors -------------------------------------------------------------------------------------------------

    def write(self, slot: int, desc: Desc, *, name: int = 0) -> None:
        """Write one entry of the table, or of the descriptor ring with id ``name`` and flags as they are given."""
        self.write_to(self._descs, slot, desc, name=name)

    def write_to(self, table: memoryview, slot: int, desc: Desc, *, name: int = 0) -> None:
        """The same in a table of the caller's."""
        at = slot * DESC_SIZE
        if self.ring.packed:
            _packed.pack_into(table, at, desc.addr, desc.length, name, desc.flags)
        else:
            following = slot + 1 if desc.next is None else desc.next
            _split.pack_into(table, at, desc.addr, desc.length, desc.flags, following & MASK)

    def push(self, *descs: Desc, name: int | None = None) -> int:
        """Write a chain into the next free entries and make it available; its head or id.

        Args:
            descs: with flags as they are to be; none is added.
            name: the buffer id of a packed ring; by default the first entry.
        """
        head = self._push_packed(descs, name) if self.ring.packed else self._push_split(descs)
        self.allow(head, *descs)
        return head

    def allow(self, head: int, *descs: Desc) -> None:
        """The device may write where these say."""
        writable = [(each.addr, each.length) for each in descs if each.flags & WRITE]
        self.allowed += writable
        if any(each.flags & INDIRECT for each in descs):  # then the tables say how much
            self.room.setdefault(head, 1 << 32)
        else:
            self.room[head] = self.room.get(head, 0) + sum(length for _, length in writable)

    def _push_split(self, descs: tuple[Desc, ...]) -> int:
        head = self._slot
        for each in descs:
            self.write(self._slot, each)
            self._slot = (self._slot + 1) % self.ring.size
        self.offer(head)
        return head

    def _push_packed(self, descs: tuple[Desc, ...], name: int | None) -> int:
        first = self._place
        name = first.offset if name is None else name
        words = self._descs.cast("H")
        for number, each in enumerate(descs):
            turn = int(available_flags(self._place.wrap_counter))
            last = number == len(descs) - 1
            shown = name if last or not self.decoys else name ^ 0xFFFF
            self.write(self._place.offset, replace(each, flags=each.flags | turn), name=shown)
            if not number:  # held back until the others stand
                words[first.offset * WORDS + PACKED_FLAGS_WORD] = int(used_flags(not first.wrap_counter))
            self._place = self._after(self._place, 1)
        words[first.offset * WORDS + PACKED_FLAGS_WORD] = descs[0].flags | int(available_flags(first.wrap_counter))
        self._taken.append(len(descs))
        return name

    def table(self, *descs: Desc) -> Buffer:
        """An indirect table with these entries, links of a split ring beginning with entry 1."""
        table = self.ring.memory.buffer(len(descs) * DESC_SIZE)
        for slot, each in enumerate(descs):
            self.write_to(table.view, slot, each)
        self.allowed += [(each.addr, each.length) for each in descs if each.flags & WRITE]
        return table

    def of_table(self, request: Request) -> Buffer:
        """A good table for ``request``: in a packed ring without NEXT."""
        descs = descs_of(request)
        if self.ring.packed:
            descs = [replace(each, flags=each.flags & ~NEXT) for each in descs]
        return self.table(*descs)

    # --- indices of a split ring -------------------------------------------------------------------------------------

    def offer(self, head: int) -> None:
        """Put ``head`` into the available ring, whatever it is, and move the index."""
        self.words[RING_WORD + self._idx % self.ring.size] = head & MASK
        self.set_idx(self._idx + 1)

    @property
    def idx(self) -> int:
        """``avail.idx`` as it was written last."""
        return self._idx

    def set_idx(self, value: int) -> None:
        """Store ``avail.idx``, true or not."""
        self._idx = value & MASK
        self.words[IDX_WORD] = self._idx

    # --- what came back ----------------------------------------------------------------------------------------------

    def used(self) -> list[tuple[int, int]]:
        """Id and length of what was used since the beginning, at most a ring full."""
        return self._used_packed() if self.ring.packed else self._used_split()

    def _used_split(self) -> list[tuple[int, int]]:
        view, size = self.ring.device.view, self.ring.size
        first = self.ring.base & MASK
        count = min((view.cast("H")[IDX_WORD] - first) & MASK, size)
        found = []
        for number in range(count):
            at = RING_OFFSET + (first + number) % size * USED_ELEM_SIZE
            head, length = _used.unpack(view[at : at + USED_ELEM_SIZE])
            found.append((head, length))
        return found

    def _used_packed(self) -> list[tuple[int, int]]:
        found, place, turn = [], self._first, int(used_flags(True))
        for taken in self._taken:
            at = place.offset * DESC_SIZE
            _, length, name, flags = _packed.unpack(self._descs[at : at + DESC_SIZE])
            if flags & turn != int(used_flags(place.wrap_counter)):
                break
            found.append((name, length if flags & WRITE else 0))
            place = self._after(place, taken)
        return found

    def _after(self, place: Position, entries: int) -> Position:
        laps, offset = divmod(place.offset + entries, self.ring.size)
        return Position(offset, place.wrap_counter ^ bool(laps % 2))
