"""Records: fields in order, exactly all of the bytes, unknown values kept."""

from __future__ import annotations

import copy
import pickle
import struct
import sys
from dataclasses import FrozenInstanceError, fields, replace
from enum import IntEnum, IntFlag
from typing import Any

import pytest
from construct import Bytes, Construct
from hypothesis import given
from hypothesis import strategies as st

from vhostuser.errors import VhostUserError
from vhostuser.wire.schema import (
    FormatError,
    Structure,
    array,
    blob,
    code,
    codec,
    counted,
    flags,
    le16,
    le32,
    le64,
    pad,
    record,
    rest,
    structure,
    u8,
    u16,
    u32,
    u64,
    wire,
)


class Colour(IntEnum):
    RED = 1
    GREEN = 2


class Access(IntFlag):
    READ = 1
    WRITE = 2


@structure
class Point(Structure):
    """Two numbers."""

    x: int = wire(le16)
    y: int = wire(le32, default=7)


@structure
class Everything(Structure):
    """One field of each sort."""

    colour: Colour | int = wire(code(u8, Colour))
    _: None = pad(1)
    access: Access = wire(flags(le16, Access))
    point: Point = wire(record(Point))
    name: bytes = wire(Bytes(3))
    pair: tuple[int, ...] = wire(array(2, u8))
    points: tuple[Point, ...] = wire(counted(u8, Point, padding=2))
    trailing: bytes = rest(default=b"")


@structure
class Padded(Structure):
    """Machine order with a pad between."""

    small: int = wire(u8)
    _: None = pad(2)
    large: int = wire(u64)


@structure
class Named(Structure):
    """Bytes that say how many they are, between two numbers."""

    before: int = wire(u8)
    name: bytes = wire(blob(le16))
    after: int = wire(u8)


EVERYTHING = Everything(
    colour=Colour.GREEN,
    access=Access.WRITE,
    point=Point(0x0102, 0x03040506),
    name=b"abc",
    pair=(8, 9),
    points=(Point(1, 2), Point(3, 4)),
    trailing=b"more",
)
BYTES = bytes.fromhex(
    "02 00 0200"  # colour, pad, access
    "0201 06050403"  # point
    "616263 0809"  # name, pair
    "02 0000 0100 02000000 0300 04000000"  # two points
    "6d6f7265"
)


@pytest.mark.parametrize(
    ("atom", "little", "value"),
    [
        (u8, "12", 0x12),
        (u16, "3412", 0x1234),
        (u32, "78563412", 0x12345678),
        (u64, "f0debc9a78563412", 0x123456789ABCDEF0),
    ],
)
def test_u_integers_are_in_machine_order(atom: Construct[int, int], little: str, value: int) -> None:
    data = bytes.fromhex(little)
    if sys.byteorder == "big":
        data = data[::-1]
    assert atom.parse(data) == value
    assert atom.build(value) == data


@pytest.mark.parametrize(
    ("atom", "little", "value"),
    [(le16, "3412", 0x1234), (le32, "78563412", 0x12345678), (le64, "f0debc9a78563412", 0x123456789ABCDEF0)],
)
def test_le_integers_are_little_endian_on_any_machine(atom: Construct[int, int], little: str, value: int) -> None:
    assert atom.parse(bytes.fromhex(little)) == value
    assert atom.build(value).hex() == little


def test_a_record_is_built_and_parsed_field_by_field() -> None:
    assert EVERYTHING.build() == BYTES
    assert Everything.parse(BYTES) == EVERYTHING


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_parsed(make: type[Any]) -> None:
    assert Everything.parse(make(BYTES)) == EVERYTHING


def test_parsed_values_have_the_types_of_their_fields() -> None:
    parsed = Everything.parse(BYTES)
    assert type(parsed.colour) is Colour
    assert type(parsed.access) is Access
    assert type(parsed.points) is tuple
    assert type(parsed.pair) is tuple
    assert type(parsed.point) is Point


def test_a_code_without_a_name_stays_a_number_and_keeps_its_bytes() -> None:
    data = bytes([0xEE]) + BYTES[1:]
    parsed = Everything.parse(data)
    assert parsed.colour == 0xEE
    assert not isinstance(parsed.colour, Colour)
    assert parsed.build() == data


def test_flags_without_a_name_are_kept() -> None:
    data = BYTES[:2] + b"\xf2\xff" + BYTES[4:]
    parsed = Everything.parse(data)
    assert parsed.access == 0xFFF2
    assert Access.WRITE in parsed.access
    assert parsed.build() == data


def test_padding_is_written_as_zero_and_forgotten_when_read() -> None:
    assert Everything.parse(BYTES[:1] + b"\xff" + BYTES[2:]) == EVERYTHING


def test_what_follows_is_kept_as_it_came() -> None:
    assert Everything.parse(BYTES + b"\x01\x02").trailing == b"more\x01\x02"


@pytest.mark.parametrize("length", range(len(BYTES) - len(b"more")))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match=f"Everything: {length} bytes are too few") as caught:
        Everything.parse(BYTES[:length])
    assert isinstance(caught.value, VhostUserError)
    assert isinstance(caught.value, ValueError)


def test_a_count_that_promises_more_than_there_is_is_refused() -> None:
    data = bytearray(BYTES)
    data[15] = 0xFF
    with pytest.raises(FormatError, match="too few"):
        Everything.parse(data)


@pytest.mark.parametrize(("name", "data"), [(b"", "01 0000 02"), (b"abc", "01 0300 616263 02")])
def test_a_blob_says_how_long_it_is(name: bytes, data: str) -> None:
    assert Named(1, name, 2).build() == bytes.fromhex(data)
    assert Named.parse(bytes.fromhex(data)) == Named(1, name, 2)


@pytest.mark.parametrize("data", ["01 0300 6162", "01 ff", "01 0300 616263"])
def test_a_blob_that_promises_more_than_there_is_is_refused(data: str) -> None:
    with pytest.raises(FormatError, match=r"Named: .* too few"):
        Named.parse(bytes.fromhex(data))


def test_a_blob_too_long_for_its_count_is_refused() -> None:
    with pytest.raises(FormatError, match="Named"):
        Named(1, bytes(1 << 16), 2).build()


def test_one_byte_too_many_is_refused_with_both_sizes() -> None:
    with pytest.raises(FormatError, match=r"^Point: 7 bytes found, 6 expected$"):
        Point.parse(bytes(7))


@pytest.mark.parametrize("value", [-1, 1 << 16, "1", None])
def test_a_value_that_its_place_cannot_hold_is_refused_by_name(value: Any) -> None:
    with pytest.raises(FormatError, match=r"^Point\(x="):
        Point(value).build()


def test_bytes_of_the_wrong_length_are_refused() -> None:
    with pytest.raises(FormatError, match="Everything"):
        replace(EVERYTHING, name=b"four").build()


def test_an_array_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(FormatError, match="expected 2 elements"):
        replace(EVERYTHING, pair=(1,)).build()


def test_sizes_and_offsets_are_those_of_the_fields() -> None:
    assert Point.wire_size() == 6
    assert [Everything.wire_offset(each) for each in ("colour", "access", "point", "name", "pair", "points")] == [
        0,
        2,
        4,
        10,
        13,
        15,
    ]


def test_a_record_of_no_fixed_size_has_no_size() -> None:
    with pytest.raises(TypeError, match="Everything has no fixed size"):
        Everything.wire_size()


def test_there_is_no_offset_behind_a_field_of_no_fixed_size() -> None:
    with pytest.raises(TypeError, match=r"Everything\.points has no fixed size"):
        Everything.wire_offset("trailing")


def test_there_is_no_offset_of_a_field_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="Point has no field 'z'"):
        Point.wire_offset("z")


# --- records as values -------------------------------------------------------------------------------------------


def test_fields_are_given_by_place_by_name_or_by_default() -> None:
    assert Point(1, 7) == Point(x=1) == Point(1) == Point(y=7, x=1)


@pytest.mark.parametrize(
    ("values", "named", "found"),
    [
        ((), {}, "0 by place"),
        ((1, 2, 3), {}, "3 by place"),
        ((1,), {"x": 2}, "1 by place, x"),
        ((1,), {"z": 2}, "1 by place, z"),
    ],
)
def test_wrong_fields_are_named_with_the_right_ones(values: Any, named: Any, found: str) -> None:
    with pytest.raises(TypeError, match=rf"^Point is made of \(x, y\), found {found}$"):
        Point(*values, **named)


def test_records_are_equal_when_class_and_fields_are() -> None:
    @structure
    class Other(Structure):
        """Looks like a point."""

        x: int = wire(le16)
        y: int = wire(le32)

    assert Point(1, 2) == Point(1, 2)
    assert Point(1, 2) != Point(1, 3)
    assert Point(1, 2) != Other(1, 2)
    assert Point(1, 2) != (1, 2)
    assert len({Point(1, 2), Point(1, 2), Point(2, 1), Other(1, 2)}) == 3


def test_records_cannot_be_changed() -> None:
    point: Any = Point(1, 2)
    with pytest.raises(FrozenInstanceError, match=r"Point\.x cannot be changed"):
        point.x = 3
    with pytest.raises(FrozenInstanceError, match=r"Point\.x cannot be deleted"):
        del point.x
    with pytest.raises(FrozenInstanceError):
        point.z = 3


def test_repr_shows_fields_and_no_padding() -> None:
    assert repr(Padded(1, 2)) == "Padded(small=1, large=2)"


def test_records_are_taken_apart_in_match() -> None:
    match Padded(1, 2):
        case Padded(small, large):
            assert (small, large) == (1, 2)


def test_records_are_dataclasses() -> None:
    assert [each.name for each in fields(Padded)] == ["small", "_", "large"]
    assert replace(Point(1, 2), y=3) == Point(1, 3)


def test_records_can_be_copied_and_pickled() -> None:
    point = Point(1, 2)
    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point


# --- codecs ------------------------------------------------------------------------------------------------------


@structure
class Entry(Structure):
    """What a ring entry looks like."""

    addr: int = wire(le64)
    kind: Colour | int = wire(code(le16, Colour))
    access: Access = wire(flags(u8, Access))
    _: None = pad(1)
    count: int = wire(le32)


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0xFFFFFFFF))
def test_a_codec_writes_the_bytes_that_construct_writes(addr: int, kind: int, access: int, count: int) -> None:
    fast = codec(Entry)
    data = Entry(addr, kind, Access(access), count).build()
    assert fast.pack(addr, kind, access, count) == data
    assert fast.unpack(data) == (addr, kind, access, count)
    assert fast.size == Entry.wire_size() == 16


def test_a_codec_never_aligns_fields_of_its_own_accord() -> None:
    assert codec(Padded).size == Padded.wire_size() == 11
    assert codec(Padded).pack(1, 2) == Padded(1, 2).build()


def test_a_codec_of_single_bytes_needs_no_order() -> None:
    @structure
    class Bytewise(Structure):
        """No field has two bytes."""

        a: int = wire(u8)
        b: int = wire(u8)

    assert codec(Bytewise).pack(1, 2) == b"\x01\x02"


def test_a_codec_refuses_two_byte_orders() -> None:
    @structure
    class Mixed(Structure):
        """Machine order and little-endian."""

        a: int = wire(u32)
        b: int = wire(le32)

    with pytest.raises(TypeError, match="Mixed mixes byte orders: <, ="):
        codec(Mixed)


@pytest.mark.parametrize("layout", [Bytes(4), record(Point), array(2, u8), counted(u8, Point)])
def test_a_codec_refuses_what_is_no_integer(layout: Construct[Any, Any]) -> None:
    @structure
    class Odd(Structure):
        """Not for the fast path."""

        field: Any = wire(layout)

    with pytest.raises(TypeError, match=r"Odd\.field is neither an integer nor padding"):
        codec(Odd)


def test_a_codec_is_a_struct() -> None:
    assert isinstance(codec(Entry), struct.Struct)
