"""Properties: what a backend can be told, said once and read by everybody.

A property is a dataclass field of the backend's class whose metadata says what kind of value it takes and what it is
for; its name in QEMU is the field's with hyphens.  Reading option strings and JSON, writing option strings and the
help text all go through `properties_of`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from vhostuser.memory.sizes import SizeError, format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

MAX_NODES: Final = 128
"""NUMA nodes have numbers below this, in QEMU."""


class OnOffAuto(Enum):
    """A switch that can be left to another property."""

    ON = "on"
    OFF = "off"
    AUTO = "auto"


class HostMemPolicy(Enum):
    """From which NUMA nodes pages come; in the order of Linux's MPOL numbers."""

    DEFAULT = "default"
    PREFERRED = "preferred"
    BIND = "bind"
    INTERLEAVE = "interleave"


@dataclass(frozen=True)
class Kind:
    """A kind of value, and how people write it.

    Attributes:
        metavar: what stands for it in help texts.
        expects: the end of the sentence "property 'x' expects".
        json: the type that JSON gives it.
        read: the value that a text means, else ValueError.
        write: texts that `read` reads back; several only for what may be given several times.
    """

    metavar: str
    expects: str
    json: type
    read: Callable[[str], Any]
    write: Callable[[Any], Sequence[str]]

    @property
    def repeats(self) -> bool:
        """Whether it may be given several times, and then adds up."""
        return self.json is list

    def together(self, values: Sequence[Any]) -> Any:
        """What several values of this kind mean, when it was given that often."""
        return tuple(each for value in values for each in value) if self.repeats else values[0]

    def from_json(self, value: object) -> Any:
        """The value that JSON means.

        Raises:
            ValueError: it is of another type, or no such value.
        """
        if type(value) is not self.json:  # exactly: to Python, true is a number
            raise ValueError(f"found {value!r}, expected {_JSON[self.json]}")
        if isinstance(value, list):
            return self.together([self.read(str(each)) for each in value])
        return self.read(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Property:
    """One property of a kind of backend.

    Attributes:
        name: QEMU's name.
        field: the dataclass's name.
        kind: what values it takes.
        help: one line for people.
        default: what holds when nobody says anything; `dataclasses.MISSING` if somebody must.
    """

    name: str
    field: str
    kind: Kind
    help: str
    default: object

    @property
    def required(self) -> bool:
        """Whether a backend cannot be made without it."""
        return self.default is dataclasses.MISSING

    def describe(self) -> str:
        """Its line in the help text."""
        default = "required" if self.required else f"default: {' '.join(self.write(self.default)) or 'none'}"
        words = f", {self.kind.expects}" if self.kind.metavar == "word" else ""
        return f"  {f'{self.name}=<{self.kind.metavar}>':<26} {self.help}{words} ({default})"

    def write(self, value: object) -> Sequence[str]:
        """The texts that mean ``value``; none for a value that cannot be asked for, only left alone."""
        return () if value is None else self.kind.write(value)


def about(kind: Kind, text: str) -> Mapping[str, object]:
    """The metadata that makes a dataclass field a property."""
    return {"kind": kind, "help": text}


def properties_of(backend: Any) -> dict[str, Property]:
    """The properties of a backend or of its class, by QEMU's names, in the order of the class."""
    found = (field for field in dataclasses.fields(backend) if "kind" in field.metadata)
    return {
        name: Property(name, field.name, field.metadata["kind"], field.metadata["help"], field.default)
        for field in found
        for name in (field.name.replace("_", "-"),)
    }


def choice(words: type[Enum]) -> Kind:
    """One of the values of an enum."""
    known = {str(word.value): word for word in words}
    return Kind(
        "word", f"one of {', '.join(known)}", str, lambda text: _one_of(known, text), lambda value: [value.value]
    )


def _one_of(known: Mapping[str, T], text: str) -> T:
    if text not in known:
        raise ValueError(f"found {text!r}")
    return known[text]


def _read_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"found {text!r}")
    return int(text)


def _read_size(text: str) -> int:
    try:
        return parse_size(text)
    except SizeError as error:
        raise ValueError(str(error)) from error


def _read_nodes(text: str) -> tuple[int, ...]:
    first, _, last = text.partition("-")
    begin, end = _read_number(first), _read_number(last or first)
    if begin > end or end >= MAX_NODES:
        raise ValueError(f"found {text!r}")
    return tuple(range(begin, end + 1))


_SWITCH_WORDS: Final = {
    **dict.fromkeys(("on", "yes", "true", "y"), True),
    **dict.fromkeys(("off", "no", "false", "n"), False),
}
_JSON: Final = {bool: "true or false", int: "a number", str: "a string", list: "a list"}

SWITCH: Final = Kind(
    "bool", "'on' or 'off'", bool, lambda text: _one_of(_SWITCH_WORDS, text), lambda value: ["on" if value else "off"]
)
NUMBER: Final = Kind("number", "a number", int, _read_number, lambda value: [str(value)])
SIZE: Final = Kind("size", "a size in bytes, like 64M", int, _read_size, lambda value: [format_size(value)])
TEXT: Final = Kind("str", "a string", str, str, lambda value: [value])
NODES: Final = Kind(
    "nodes", f"numbers below {MAX_NODES}, like 0 or 0-3", list, _read_nodes, lambda value: list(map(str, value))
)
