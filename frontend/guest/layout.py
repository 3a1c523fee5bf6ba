"""Where blocks of memory lie in the guest's address space.

A PC's RAM is not one piece.  Devices have registers below 4 GiB, so a hole is kept free there: RAM goes up to 3 GiB and
continues at 4 GiB.  A block that meets the hole is split: two ranges of guest addresses, one file.  The same happens
where a block with an address of its own (ROM, a flash, a bank of RAM) stands in the way.

Nothing here allocates or maps: sizes and wishes in, ranges out.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from vhostuser.errors import VhostUserError
from vhostuser.memory.map import GuestAddr

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vhostuser.memory.backends import MemoryBackend

ADDRESS_SPACE: Final = 1 << 64


class LayoutError(VhostUserError, ValueError):
    """Blocks of memory do not fit where they shall lie."""


@dataclass(frozen=True, slots=True)
class Range:
    """Guest addresses from ``begin`` to before ``end``."""

    begin: int
    end: int

    def __str__(self) -> str:
        return f"{self.begin:#x}-{self.end - 1:#x}"


PC_HOLE: Final = Range(3 << 30, 4 << 30)
"""Where a PC's devices have their registers."""


@dataclass(frozen=True, slots=True)
class Place:
    """A block that somebody wants in guest memory.

    Attributes:
        backend: where its bytes come from.
        at: its guest address, whole pages; None for RAM that goes wherever RAM goes.
        rom: the guest reads it, and its writes go elsewhere; no back-end is ever offered it.
    """

    backend: MemoryBackend
    at: GuestAddr | None = None
    rom: bool = False

    @property
    def why_not_offered(self) -> str | None:
        """Why no back-end is offered this block, and what to change; None when one is."""
        if self.rom:
            return f"{self.backend.type} {self.backend.id} is ROM for the guest: back-ends need RAM"
        return self.backend.why_not_shareable


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a block at its guest address.

    Attributes:
        index: which of the places.
        guest_addr: where it begins for the guest.
        offset: where it begins in the block.
        size: bytes.
    """

    index: int
    guest_addr: GuestAddr
    offset: int
    size: int

    @property
    def range(self) -> Range:
        """Its guest addresses."""
        return Range(self.guest_addr, self.guest_addr + self.size)


def lay_out(places: Sequence[Place], *, first: int = 0, hole: Range = PC_HOLE) -> list[Span]:
    """Give every block its guest addresses.

    Args:
        places: the blocks; those without an address follow each other in this order.
        first: where RAM without an address begins.
        hole: addresses that such RAM leaves free.

    Returns:
        Spans sorted by guest address.

    Raises:
        LayoutError: blocks overlap, an address is in the middle of a page, or ROM has no address.
    """
    spans = [Span(index, place.at, 0, place.backend.size) for index, place in enumerate(places) if place.at is not None]
    for span in spans:
        _check(span, places)
    spans.sort(key=lambda span: span.guest_addr)
    for one, other in pairwise(spans):
        if one.range.end > other.guest_addr:
            raise LayoutError(f"{_name(one, places)} overlaps {_name(other, places)}")
    gaps = _gaps([hole, *(span.range for span in spans)], first)
    gap = next(gaps)
    for index, place in enumerate(places):
        if place.at is None:
            gap = _fill(spans, index, place, gap, gaps)
    return sorted(spans, key=lambda span: span.guest_addr)


def _fill(spans: list[Span], index: int, place: Place, gap: Range, gaps: Iterator[Range]) -> Range:
    """Spread a block over gaps, from ``gap`` on; what is left of the last one."""
    if place.rom:
        raise LayoutError(f"{place.backend.id} is ROM and has no guest address: ROM lies where the guest looks for it")
    offset = 0
    while offset < place.backend.size:
        if gap.begin >= gap.end:
            gap = next(gaps, Range(ADDRESS_SPACE, ADDRESS_SPACE))
            if gap.begin >= gap.end:
                raise LayoutError(f"no room for {place.backend.id} below 2^64")
        size = min(place.backend.size - offset, gap.end - gap.begin)
        spans.append(Span(index, GuestAddr(gap.begin), offset, size))
        offset += size
        gap = Range(gap.begin + _whole_pages(size), gap.end)
    return gap


def _gaps(taken: list[Range], first: int) -> Iterator[Range]:
    """Address ranges from ``first`` on that nobody has taken."""
    begin = _whole_pages(first)
    for one in sorted(taken, key=lambda each: each.begin):
        if begin < one.begin:
            yield Range(begin, one.begin)
        begin = max(begin, _whole_pages(one.end))
    yield Range(begin, ADDRESS_SPACE)


def _check(span: Span, places: Sequence[Place]) -> None:
    if span.guest_addr % mmap.PAGESIZE:
        raise LayoutError(f"{_name(span, places)}: expected a multiple of the page size, {mmap.PAGESIZE:#x}")
    if not 0 <= span.guest_addr <= ADDRESS_SPACE - span.size:
        raise LayoutError(f"{_name(span, places)}: guest addresses end at 2^64")


def _name(span: Span, places: Sequence[Place]) -> str:
    return f"{places[span.index].backend.id} at {span.range}"


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
