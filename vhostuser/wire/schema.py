"""Typed, frozen records over construct.

construct states how bytes are laid out; a dataclass gives the fields names and types that mypy can check and
``match`` can take apart.  A layout is written once, as the fields of a class, in the order of the specification::

    @structure
    class VringState(Structure):
        index: int = wire(u32)
        num: int = wire(u32)

The atoms keep the spelling of the two specifications: ``u32`` is in machine order (vhost-user: both ends share a
machine), ``le32`` is little-endian (virtio 1.x).

construct is right for whatever has a shape (tens of microseconds a message) and wrong for ring entries (a descriptor
costs 7 µs).  `codec` therefore derives a `struct.Struct` from the same fields, so that the fast path repeats no layout.
Records of a fixed size, with or without a `rest` behind it, are read and written by it, in a tenth of the time.

Start-up is why `Structure` writes out what ``@dataclass(frozen=True)`` would generate: dataclasses compiles six
methods for each class, 0.4 ms a class on CPython 3.11, and there are about a hundred classes.  Only the list of
fields, the slots and ``__match_args__`` are left to it (0.03 ms); ``fields()`` and ``replace()`` work as ever.
"""

from __future__ import annotations

import struct
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from enum import IntEnum, IntFlag
from io import BytesIO
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, Self, TypeVar, dataclass_transform

import construct
from construct import (
    Adapter,
    Array,
    Construct,
    ConstructError,
    FormatField,
    GreedyBytes,
    Int8un,
    Int16ul,
    Int16un,
    Int32ul,
    Int32un,
    Int64ul,
    Int64un,
    Padding,
    Prefixed,
    Rebuild,
    Renamed,
    SizeofError,
    Struct,
    len_,
    this,
)

from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview
    _Adapter: TypeAlias = Adapter[Any, Any, Any, Any]
else:
    _Adapter = Adapter  # construct's classes are generic for mypy only

T = TypeVar("T")
S = TypeVar("S", bound="Structure")
F = TypeVar("F", bound=IntFlag)
E = TypeVar("E", bound=IntEnum)

u8, u16, u32, u64 = Int8un, Int16un, Int32un, Int64un
le16, le32, le64 = Int16ul, Int32ul, Int64ul

_LAYOUT = "layout"


class FormatError(VhostUserError, ValueError):
    """Bytes that do not fit the record they were said to be."""


# --- fields ------------------------------------------------------------------------------------------------------


def wire(layout: Construct[T, Any], *, default: Any = MISSING) -> T:
    """A dataclass field and its bytes."""
    declared: T = field(default=default, metadata={_LAYOUT: layout})
    return declared


def pad(length: int, *, init: Literal[False] = False) -> Any:
    """``length`` reserved bytes: written as zero, read and forgotten."""
    return field(init=init, repr=False, compare=False, default=None, metadata={_LAYOUT: Padding(length)})


def rest(*, default: bytes) -> bytes:
    """Whatever follows, kept as it came: trailing space that peers send and the document does not mention."""
    kept: bytes = field(default=default, metadata={_LAYOUT: GreedyBytes})
    return kept


# --- values inside a field ---------------------------------------------------------------------------------------


class FlagsLayout(_Adapter):
    """An integer that is an IntFlag, ``cls``, in the record."""

    def __init__(self, layout: Construct[int, int], cls: type[IntFlag]) -> None:
        super().__init__(layout)
        self.cls = cls

    def _decode(self, obj: int, context: object, path: object) -> Any:
        return self.cls(obj)

    def _encode(self, obj: Any, context: object, path: object) -> int:
        return int(obj)


class CodeLayout(FlagsLayout):
    """An integer that is an IntEnum, ``cls``, in the record if it has a name."""

    def _decode(self, obj: int, context: object, path: object) -> Any:
        try:
            return self.cls(obj)
        except ValueError:
            return obj


class CountedLayout(_Adapter):
    """A number of records, and those records."""

    def __init__(self, count: Construct[int, int], item: type[Structure], padding: int) -> None:
        entries = Array(this.count, item.layout)
        super().__init__(
            Struct("count" / Rebuild(count, len_(this.entries)), Padding(padding), "entries" / entries),
        )
        self.count = count
        self.item = item
        self.padding = padding

    def _decode(self, obj: Any, context: object, path: object) -> Any:
        return tuple(obj.entries)

    def _encode(self, obj: Any, context: object, path: object) -> Any:
        return {"entries": list(obj)}


class ArrayLayout(_Adapter):
    """A fixed number of values that are a tuple in the record."""

    def __init__(self, count: int, item: Construct[Any, Any]) -> None:
        super().__init__(Array(count, item))
        self.count = count
        self.item = item

    def _decode(self, obj: Any, context: object, path: object) -> Any:
        return tuple(obj)

    def _encode(self, obj: Any, context: object, path: object) -> Any:
        return list(obj)


class RecordLayout(_Adapter):
    """The fields of a `Structure`, ``cls``."""

    def __init__(self, cls: type[Structure], layout: Construct[Any, Any], names: tuple[str, ...]) -> None:
        super().__init__(layout)
        self.cls = cls
        self.names = names

    def _decode(self, obj: Mapping[str, Any], context: object, path: object) -> Any:
        return self.cls(*[obj[name] for name in self.names])

    def _encode(self, obj: Any, context: object, path: object) -> Any:
        return {name: getattr(obj, name) for name in self.names}


def flags(layout: Construct[int, int], cls: type[F]) -> Construct[F, F]:
    """An integer read as flags; bits that have no name are kept."""
    return FlagsLayout(layout, cls)


def code(layout: Construct[int, int], cls: type[E]) -> Construct[E | int, E | int]:
    """An integer read as one of a list of codes; a code that has no name stays a plain int."""
    return CodeLayout(layout, cls)  # type: ignore[arg-type]


def record(cls: type[S]) -> Construct[S, S]:
    """Another structure, in place."""
    return cls.layout


def array(count: int, item: Construct[T, Any]) -> Construct[tuple[T, ...], Any]:
    """``count`` values in a row."""
    return ArrayLayout(count, item)


def counted(count: Construct[int, int], item: type[S], *, padding: int = 0) -> Construct[tuple[S, ...], Any]:
    """A number, ``padding`` reserved bytes, then that many records."""
    return CountedLayout(count, item, padding)


def blob(count: Construct[int, int]) -> Construct[bytes, bytes]:
    """A number of bytes, and those bytes."""
    return Prefixed(count, GreedyBytes)


# --- records -----------------------------------------------------------------------------------------------------


class Structure:
    """A record with a layout; `structure` turns the fields of a subclass into both.

    Records are values: they cannot be changed, are equal when class and fields are, and can be keys of a dict.
    """

    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()
    layout: ClassVar[Construct[Any, Any]]
    _defaults: ClassVar[Mapping[str, Any]]
    _pads: ClassVar[tuple[str, ...]]
    _setters: ClassVar[tuple[Callable[[Structure, Any], None], ...]]

    def __init__(self, *values: Any, **named: Any) -> None:
        if named or len(values) != len(self.__match_args__):
            values = _complete(type(self), values, named)
        for put, value in zip(self._setters, values, strict=True):
            put(self, value)
        for name in self._pads:
            object.__setattr__(self, name, None)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), self._values()

    def __setattr__(self, name: str, value: Any) -> Never:
        raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be changed: replace the record")

    def __delattr__(self, name: str) -> Never:
        raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be deleted: replace the record")

    @classmethod
    def parse(cls, data: Buffer) -> Self:
        """Read exactly all of ``data``.

        Raises:
            FormatError: ``data`` is too short or too long for this record.
        """
        flat = _flat(cls)
        if flat is not None and flat.fits(len(data)):
            return cls(*flat.values(data))
        stream = BytesIO(data)
        try:
            parsed: Self = cls.layout.parse_stream(stream)
        except ConstructError as error:
            raise FormatError(f"{cls.__name__}: {len(data)} bytes are too few ({_reason(error)})") from error
        if stream.tell() != len(data):
            raise FormatError(f"{cls.__name__}: {len(data)} bytes found, {stream.tell()} expected")
        return parsed

    def build(self) -> bytes:
        """The bytes of this record.

        Raises:
            FormatError: a field holds a number that its place cannot.
        """
        flat = _flat(type(self))
        try:
            return self.layout.build(self) if flat is None else flat.build(self._values())
        except (ConstructError, struct.error) as error:
            raise FormatError(f"{self!r}: {_reason(error)}") from error

    @classmethod
    def wire_size(cls) -> int:
        """Bytes on the wire.

        Raises:
            TypeError: the size depends on the contents.
        """
        return _fixed_size(cls.__name__, cls.layout)

    @classmethod
    def wire_offset(cls, name: str) -> int:
        """Where the field called ``name`` begins, in bytes.

        Raises:
            AttributeError: there is no such field.
            TypeError: a field before it has no fixed size.
        """
        offset = 0
        for each, layout in layouts(cls):
            if each == name:
                return offset
            offset += _fixed_size(f"{cls.__name__}.{each}", layout)
        raise AttributeError(f"{cls.__name__} has no field {name!r}")


@dataclass_transform(frozen_default=True, field_specifiers=(wire, pad, rest))
def structure(cls: type[T]) -> type[T]:
    """Make a frozen record of ``cls`` and build its layout out of its fields."""
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    named = layouts(made)
    body = Struct(*(name / layout if not is_pad(layout) else layout for name, layout in named))
    made.layout = RecordLayout(made, body, made.__match_args__)
    made._setters = tuple(
        getattr(made, name).__set__ for name in made.__match_args__
    )  # of the slots: no look-up by name
    made._pads = tuple(name for name, layout in named if is_pad(layout))
    made._defaults = {each.name: each.default for each in fields(made) if each.init and each.default is not MISSING}
    result: type[T] = made
    return result


def codec(cls: type[Structure]) -> struct.Struct:
    """The layout of ``cls`` as a `struct.Struct`, for places where construct is too slow.

    For descriptor bodies and private copies only: ``pack_into`` zeroes its target before it writes, so a peer that
    looks at shared memory meanwhile can see values that nobody ever stored.

    Raises:
        TypeError: a field is not a plain integer or padding, or the fields differ in byte order.
    """
    return _struct(cls, [_format(cls, name, layout) for name, layout in layouts(cls)])


class _Flat:
    """A `codec`, and what makes flags, codes and records of its values: construct's work, in a tenth of the time.

    A record in a record is a row of bytes to the outer codec.  What follows the last field (`rest`) is cut off first.

    Raises:
        TypeError: something else is in it than integers, padding, records of a fixed size and a `rest`.
    """

    def __init__(self, cls: type[Structure]) -> None:
        named = layouts(cls)
        self.has_rest = bool(named) and named[-1][1] is GreedyBytes
        if self.has_rest:
            named = named[:-1]
        self._codec = _struct(cls, [_format_or_room(cls, *each) for each in named])
        self.size = self._codec.size
        shown = [layout for _, layout in named if not is_pad(layout)]
        self._flags = [(at, layout._decode) for at, layout in enumerate(shown) if isinstance(layout, FlagsLayout)]
        self._records = [(at, layout.cls) for at, layout in enumerate(shown) if isinstance(layout, RecordLayout)]

    def fits(self, length: int) -> bool:
        """Whether a record may have so many bytes."""
        return length == self.size or (self.has_rest and length > self.size)

    def values(self, data: Buffer) -> list[Any]:
        """The values of all fields in ``data``, whose length `fits`."""
        found = list(self._codec.unpack_from(data))
        for at, decode in self._flags:
            found[at] = decode(found[at], None, None)
        for at, cls in self._records:
            found[at] = cls.parse(found[at])
        if self.has_rest:
            found.append(bytes(data[self.size :]))
        return found

    def build(self, values: tuple[Any, ...]) -> bytes:
        """The bytes of these values."""
        if not (self._records or self.has_rest):
            return self._codec.pack(*values)
        found = list(values)
        tail = found.pop() if self.has_rest else b""
        for at, _ in self._records:
            found[at] = found[at].build()
        return self._codec.pack(*found) + tail


_flats: dict[Any, _Flat | None] = {}  # made when they are wanted: there are about a hundred classes


def _flat(cls: type[Structure]) -> _Flat | None:
    """What does construct's work for ``cls``; None where nothing can."""
    if cls not in _flats:
        try:
            _flats[cls] = _Flat(cls)
        except TypeError:
            _flats[cls] = None
    return _flats[cls]


def _complete(cls: type[Structure], values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """The values of all fields, in order, out of those given by place, by name and by default."""
    names = cls.__match_args__
    given = dict(zip(names, values, strict=False)) | named
    complete = {**cls._defaults, **given}
    if len(given) != len(values) + len(named) or complete.keys() != set(names):
        found = [f"{len(values)} by place", *named]
        raise TypeError(f"{cls.__name__} is made of ({', '.join(names)}), found {', '.join(found)}")
    return tuple(complete[name] for name in names)


def _fixed_size(name: str, layout: Construct[Any, Any]) -> int:
    try:
        return layout.sizeof()
    except SizeofError as error:
        raise TypeError(f"{name} has no fixed size") from error


def layouts(cls: Any) -> list[tuple[str, Construct[Any, Any]]]:
    """Names and layouts of a structure's fields and pads, in order."""
    return [(each.name, each.metadata[_LAYOUT]) for each in fields(cls)]


def is_pad(layout: Construct[Any, Any]) -> bool:
    """Whether it is what `pad` makes."""
    return isinstance(layout, construct.Padded)


def _struct(cls: type[Structure], formats: list[str]) -> struct.Struct:
    orders = {text[0] for text in formats if text[0] in "<>=" and text[1:] not in "bB"}  # one byte has no order
    if len(orders) > 1:
        raise TypeError(f"{cls.__name__} mixes byte orders: {', '.join(sorted(orders))}")
    # Always an order: without one, struct aligns the fields as a C compiler would.
    return struct.Struct("".join(orders or {"="}) + "".join(text.lstrip("<>=") for text in formats))


def _format_or_room(cls: type[Structure], name: str, layout: Construct[Any, Any]) -> str:
    """As `_format`; a record in a record is as many bytes as it takes."""
    if isinstance(layout, RecordLayout):
        return f"{_fixed_size(name, layout)}s"
    return _format(cls, name, layout)


def _format(cls: type[Structure], name: str, layout: Construct[Any, Any]) -> str:
    while isinstance(layout, Renamed | FlagsLayout):
        layout = layout.subcon
    if is_pad(layout):
        return f"{layout.sizeof()}x"
    if not isinstance(layout, FormatField):
        raise TypeError(f"{cls.__name__}.{name} is neither an integer nor padding: {layout!r}")
    return layout.fmtstr


def _reason(error: Exception) -> str:
    """The last line: construct puts the path to the field before it."""
    return str(error).strip().splitlines()[-1]
