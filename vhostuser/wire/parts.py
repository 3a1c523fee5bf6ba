"""What a record is made of, in words: for the reference page, and for tools that show messages to people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from construct import Bytes, FormatField, SizeofError

from vhostuser.wire.schema import ArrayLayout, CountedLayout, FlagsLayout, RecordLayout, Structure, is_pad, layouts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import Enum

    from construct import Construct

_BITS = {"B": "8", "H": "16", "I": "32", "L": "32", "Q": "64"}


@dataclass(frozen=True, slots=True)
class Part:
    """A field, a pad, or the number before a list.

    Attributes:
        name: the field's; None for padding.
        kind: its type as the specifications would write it: ``u32``, ``le16``, ``u8[6]``, ``MemoryRegion[n]``.
        size: bytes; None when it depends on the contents.
        offset: bytes from the record's beginning; None behind a part without a size.
        values: names of the values, or of the bits.
        record: the structure that the part consists of, once or several times.
    """

    name: str | None
    kind: str
    size: int | None
    offset: int | None
    values: type[Enum] | None = None
    record: type[Structure] | None = None


def parts(cls: type[Structure]) -> Iterator[Part]:
    """The parts of ``cls`` in order."""
    offset: int | None = 0
    for name, field_layout in layouts(cls):
        for part_name, kind, layout in _pieces(name, field_layout):
            size = _size(layout)
            values = layout.cls if isinstance(layout, FlagsLayout) else None
            yield Part(part_name, kind, size, offset, values, _record(layout))
            offset = None if offset is None or size is None else offset + size


def fixed_size(cls: type[Structure]) -> int:
    """Bytes that ``cls`` has at least: its parts of fixed size."""
    return sum(part.size or 0 for part in parts(cls))


def _pieces(name: str, layout: Construct[Any, Any]) -> Iterator[tuple[str | None, str, Construct[Any, Any]]]:
    if isinstance(layout, CountedLayout):
        yield f"number of {name}", type_name(layout.count), layout.count
        yield None, f"u8[{layout.padding}]", Bytes(layout.padding)
        yield name, type_name(layout), layout
    else:
        yield None if is_pad(layout) else name, type_name(layout), layout


def type_name(layout: Construct[Any, Any]) -> str:
    """How the specifications would write the type."""
    match layout:
        case FlagsLayout():
            return type_name(layout.subcon)
        case RecordLayout():
            return layout.cls.__name__
        case CountedLayout():
            return f"{layout.item.__name__}[n]"
        case ArrayLayout():
            return f"{type_name(layout.item)}[{layout.count}]"
        case FormatField():
            return _integer_name(layout.fmtstr[0], layout.fmtstr[1])
    size = _size(layout)
    return "u8[…]" if size is None else f"u8[{size}]"


def _integer_name(order: str, letter: str) -> str:
    sign = "s" if letter.islower() else "u"
    return ("le" if order == "<" else sign) + _BITS[letter.upper()]


def _size(layout: Construct[Any, Any]) -> int | None:
    try:
        return layout.sizeof()
    except SizeofError:
        return None


def _record(layout: Construct[Any, Any]) -> type[Structure] | None:
    match layout:
        case RecordLayout():
            return layout.cls
        case CountedLayout():
            return layout.item
    return None
