"""Values for any record, made out of its layout."""

from __future__ import annotations

from typing import Any

from construct import Bytes, Construct, FormatField, GreedyBytes, Renamed
from hypothesis import strategies as st

from vhostuser.wire.schema import (
    ArrayLayout,
    CodeLayout,
    CountedLayout,
    FlagsLayout,
    RecordLayout,
    Structure,
    is_pad,
    layouts,
)


def records(cls: type[Structure]) -> st.SearchStrategy[Structure]:
    """Instances of ``cls`` with every value that fits its fields."""
    return st.builds(cls, **{name: values(layout) for name, layout in layouts(cls) if not is_pad(layout)})


def values(layout: Construct[Any, Any]) -> st.SearchStrategy[Any]:
    """What parsing ``layout`` can give."""
    match layout:
        case CodeLayout():
            known = {int(each): each for each in layout.cls}
            return values(layout.subcon).map(lambda value: known.get(value, value)) | st.sampled_from(layout.cls)
        case FlagsLayout():
            return values(layout.subcon).map(layout.cls)
        case RecordLayout():
            return records(layout.cls)
        case ArrayLayout():
            # One drawn value, repeated: 256 independent ones are slow to make and find nothing more.
            return values(layout.item).map(lambda value: (value,) * layout.count)
        case CountedLayout():
            return st.lists(records(layout.item), max_size=9).map(tuple)
        case FormatField():
            return integers(layout)
        case Bytes():
            length = layout.sizeof()
            return st.binary(min_size=length, max_size=length)
        case Renamed():
            return values(layout.subcon)
    assert layout is GreedyBytes, f"no strategy for {layout!r}"
    return st.binary(max_size=64)


def integers(layout: FormatField[Any, Any]) -> st.SearchStrategy[int]:
    bits = 8 * layout.sizeof()
    if layout.fmtstr[-1].islower():
        return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return st.integers(0, (1 << bits) - 1)
