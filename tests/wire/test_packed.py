"""Packed rings: entries, whose turn it is, positions in 16 and 32 bits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhostuser.wire import packed
from vhostuser.wire.packed import (
    EventFlags,
    EventSuppression,
    PackedBase,
    PackedDesc,
    PackedDescFlags,
    Position,
    available_flags,
    used_flags,
)


def test_a_descriptor_has_its_id_where_split_rings_have_flags() -> None:
    desc = PackedDesc(addr=0x1122334455667788, len=0x1000, id=0x0102, flags=PackedDescFlags.USED)
    assert desc.build().hex(" ", 4) == "88776655 44332211 00100000 02010080"


def test_event_suppression_is_4_bytes() -> None:
    assert EventSuppression(0x8001, EventFlags.DESC).build().hex() == "01800200"
    assert EventSuppression.parse(bytes.fromhex("00000300")).flags == 3
    assert (packed.EVENT_SUPPRESSION_SIZE, packed.OFF_WRAP_OFFSET, packed.EVENT_FLAGS_OFFSET) == (4, 0, 2)


def test_sizes_and_alignments_are_those_of_the_standard() -> None:
    assert packed.desc_ring_size(256) == 4096
    assert packed.desc_ring_size(7) == 112
    assert (packed.DESC_RING_ALIGN, packed.EVENT_SUPPRESSION_ALIGN, packed.MAX_QUEUE_SIZE) == (16, 4, 32768)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (available_flags(True) | PackedDescFlags.WRITE, 0x0082),
        (available_flags(False) | PackedDescFlags.NEXT, 0x8001),
        (used_flags(True) | PackedDescFlags.WRITE, 0x8082),
        (used_flags(False), 0x0000),
    ],
)
def test_the_wrap_counter_says_what_available_and_used_look_like(flags: PackedDescFlags, expected: int) -> None:
    assert flags == expected


def test_a_base_carries_both_positions() -> None:
    assert int(packed.INITIAL_BASE) == 0x80008000
    assert PackedBase.of(0x0003_8005) == PackedBase(Position(5, True), Position(3, False))


def test_a_base_of_which_only_the_lower_half_was_set_is_read_as_it_is() -> None:
    assert PackedBase.of(0x00008000) == PackedBase(Position(0, True), Position(0, False))


@given(st.integers(0, 0xFFFFFFFF))
def test_any_base_survives(base: int) -> None:
    assert int(PackedBase.of(base)) == base
