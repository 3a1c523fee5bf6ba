"""Where blocks lie: a PC's hole, blocks at chosen addresses, and what does not fit."""

from __future__ import annotations

import mmap
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.guest.layout import PC_HOLE, LayoutError, Place, Range, Span, lay_out
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.memory.map import GuestAddr

PAGE = mmap.PAGESIZE
MIB = 1 << 20
GIB = 1 << 30


def place(size: int, at: int | None = None, *, name: str = "mem0", rom: bool = False) -> Place:
    return Place(MemoryBackendShm(id=name, size=size), None if at is None else GuestAddr(at), rom=rom)


def spans(*found: tuple[int, int, int, int]) -> list[Span]:
    return [Span(index, GuestAddr(addr), offset, size) for index, addr, offset, size in found]


def test_ram_begins_where_it_is_told_to() -> None:
    assert lay_out([place(MIB)], first=MIB) == spans((0, MIB, 0, MIB))


def test_ram_goes_on_above_the_hole_of_a_pc() -> None:
    assert lay_out([place(5 * GIB)]) == spans((0, 0, 0, 3 * GIB), (0, 4 * GIB, 3 * GIB, 2 * GIB))


def test_a_block_that_ends_at_the_hole_is_one_piece_and_the_next_is_above() -> None:
    assert lay_out([place(3 * GIB), place(MIB)]) == spans((0, 0, 0, 3 * GIB), (1, 4 * GIB, 0, MIB))


def test_blocks_follow_each_other_in_whole_pages() -> None:
    assert lay_out([place(100), place(PAGE)]) == spans((0, 0, 0, 100), (1, PAGE, 0, PAGE))


def test_ram_flows_around_a_block_with_an_address() -> None:
    bios = place(0x10000, 0xF0000, name="bios", rom=True)
    found = lay_out([place(2 * MIB), bios])
    assert found == spans((0, 0, 0, 0xF0000), (1, 0xF0000, 0, 0x10000), (0, 0x100000, 0xF0000, 2 * MIB - 0xF0000))


def test_a_block_with_an_address_may_lie_in_the_hole() -> None:
    bios = place(MIB, 4 * GIB - MIB, rom=True)
    assert lay_out([bios, place(MIB)]) == spans((1, 0, 0, MIB), (0, 4 * GIB - MIB, 0, MIB))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([place(2 * PAGE, 0, name="a"), place(PAGE, PAGE, name="b")], "a at 0x0-0x1fff overlaps b at 0x1000-0x1fff"),
        ([place(PAGE, 100)], "multiple of the page size"),
        ([place(2 * PAGE, (1 << 64) - PAGE)], "guest addresses end at 2\\^64"),
        ([place(PAGE, -PAGE)], "guest addresses end at 2\\^64"),
        ([place(PAGE, name="bios", rom=True)], "bios is ROM and has no guest address"),
        ([place(1 << 64)], "no room for mem0"),
    ],
)
def test_what_does_not_fit_is_refused(places: list[Place], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        lay_out(places)


def test_a_full_address_space_is_refused_not_overrun() -> None:
    with pytest.raises(LayoutError, match="no room for late"):
        lay_out([place((1 << 64) - 4 * GIB, 4 * GIB), place(3 * GIB), place(PAGE, name="late")])


@given(
    st.lists(
        st.tuples(st.integers(1, 5 * PAGE), st.one_of(st.none(), st.integers(0, 40).map(lambda page: page * PAGE))),
        max_size=6,
    ),
    st.integers(0, 20),
    st.integers(0, 30),
)
def test_every_byte_of_every_block_has_one_address(wanted: list[tuple[int, int | None]], first: int, hole: int) -> None:
    places = [place(size, at) for size, at in wanted]
    the_hole = Range(hole * PAGE, (hole + 5) * PAGE)
    chosen = sorted((at, at + size) for size, at in wanted if at is not None)
    if any(one[1] > other[0] for one, other in pairwise(chosen)):
        with pytest.raises(LayoutError, match="overlaps"):
            lay_out(places, first=first * PAGE, hole=the_hole)
        return
    found = lay_out(places, first=first * PAGE, hole=the_hole)
    for index, (size, at) in enumerate(wanted):
        pieces = sorted((span.offset, span.size, span.guest_addr) for span in found if span.index == index)
        assert sum(each for _, each, _ in pieces) == size
        assert [offset for offset, _, _ in pieces] == [
            sum(each for _, each, _ in pieces[:n]) for n in range(len(pieces))
        ]
        if at is not None:
            assert pieces == [(0, size, at)]
        for _, each, addr in pieces if at is None else []:
            assert addr >= first * PAGE
            assert addr + each <= the_hole.begin or addr >= the_hole.end
    ends = [0, *(span.range.end for span in found)]
    assert all(span.guest_addr >= end for span, end in zip(found, ends, strict=False))


def test_the_hole_of_a_pc_is_the_fourth_gibibyte() -> None:
    assert (PC_HOLE.begin, PC_HOLE.end) == (3 * GIB, 4 * GIB)
    assert str(PC_HOLE) == "0xc0000000-0xffffffff"
