"""Backends as QEMU's users write them, after ``--object``.

Two forms, and what they mean is the same::

    memory-backend-file,id=ram,size=512M,mem-path=/mnt/ram,share=on
    {"qom-type": "memory-backend-file", "id": "ram", "size": 536870912, "mem-path": "/mnt/ram", "share": true}

In the first a comma that is part of a value is doubled.  QEMU forgives more than we do: here a property given twice,
one without a value and one of another kind are errors.
"""

from __future__ import annotations

import dataclasses
import json
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.file import MemoryBackendFile
from vhostuser.memory.backends.memfd import MemoryBackendMemfd
from vhostuser.memory.backends.properties import TEXT, Kind, Property, properties_of
from vhostuser.memory.backends.ram import MemoryBackendRam
from vhostuser.memory.backends.shm import MemoryBackendShm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from vhostuser.memory.backends.base import MemoryBackend

TYPES: Final[dict[str, type[MemoryBackend]]] = {
    kind.type: kind for kind in (MemoryBackendFile, MemoryBackendMemfd, MemoryBackendRam, MemoryBackendShm)
}
NOT_HERE: Final = {
    "prealloc-context": "there are no thread-context objects here: use prealloc-threads",
    "x-use-canonical-path-for-ramblock-id": "blocks are always called by their id here",
}
"""Properties that QEMU has and we have not, and what to do about it."""

_OBJECT: Final = re.compile(r"\s*--?object[\s=]+")
_ID: Final = Property("id", "id", TEXT, "what other objects call it", dataclasses.MISSING)
_EXAMPLES: Final = {"id": "ram", "size": "64M", "mem-path": "/some/file"}


def parse_object(text: str) -> MemoryBackend:
    """The backend that an option describes; nothing is allocated.

    Args:
        text: either form, with or without ``--object`` before it.

    Raises:
        MemoryBackendError: says which property, what was found and what to write instead.
    """
    text = _OBJECT.sub("", text, count=1)
    read: Callable[[Kind, Any], object]
    if text.lstrip().startswith("{"):
        pairs, read = _json_pairs(text), Kind.from_json
    else:
        pairs, read = _option_pairs(text), lambda kind, value: kind.read(value)
    kind = _named(_only(pairs, "qom-type"))
    properties = {"id": _ID, **properties_of(kind)}
    given: dict[str, Any] = {}
    for name in dict(pairs):
        if name != "qom-type":
            prop = _property(kind, properties, name)
            given[prop.field] = _value(kind, prop, [value for each, value in pairs if each == name], read)
    for name, prop in properties.items():
        if prop.required and prop.field not in given:
            raise MemoryBackendError(f"{kind.type}: parameter '{name}' is missing: add {name}={_EXAMPLES[name]}")
    return kind(**given)


def parse_objects(texts: Iterable[str]) -> dict[str, MemoryBackend]:
    """Several of them, by their ids.

    Raises:
        MemoryBackendError: one is wrong, or two have the same id: one block cannot be made twice.
    """
    found: dict[str, MemoryBackend] = {}
    for backend in map(parse_object, texts):
        if backend.id in found:
            raise MemoryBackendError(
                f"id '{backend.id}' is given to two: {found[backend.id].to_option()} and {backend.to_option()}"
            )
        found[backend.id] = backend
    return found


def help_wanted(text: str) -> str | None:
    """The help text that ``help`` or ``TYPE,help`` asks for; None if the option asks for something else.

    Raises:
        MemoryBackendError: help about something that there is not.
    """
    text = _OBJECT.sub("", text, count=1)
    if text in {"help", "?"}:
        return "\n".join(["memory backends:", *(f"  {name}" for name in TYPES)])
    name, _, rest = text.partition(",")
    return describe_properties(_named(name)) if rest in {"help", "?"} else None


def describe_properties(kind: type[MemoryBackend]) -> str:
    """Every property of a kind of backend with its values, its meaning and its default, a line each."""
    lines = (prop.describe() for _, prop in sorted(properties_of(kind).items()))
    return "\n".join([f"{kind.type} options:", *lines])


def _option_pairs(text: str) -> list[tuple[str, object]]:
    """The option string taken apart; its first part may be the type alone."""
    if "\0" in text:
        raise MemoryBackendError(f"found a NUL in {text!r}: no option and no path has one")
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    if "=" not in parts[0]:
        parts[0] = f"qom-type={parts[0]}"
    for part in parts:
        if "=" not in part:
            raise MemoryBackendError(
                f"found {part!r} in {text!r}, expected property=value, like share=on; a comma in a value is doubled"
            )
    return [(name, value) for name, _, value in (part.partition("=") for part in parts)]


def _json_pairs(text: str) -> list[tuple[str, object]]:
    try:
        return list(json.loads(text, object_pairs_hook=list))
    except (ValueError, RecursionError) as error:
        raise MemoryBackendError(f"found {text[:60]!r}, which is no JSON object: {error}") from error


def _only(pairs: list[tuple[str, object]], name: str) -> object:
    values = [value for each, value in pairs if each == name]
    if not values:
        raise MemoryBackendError(f"parameter '{name}' is missing: add one of {', '.join(TYPES)}")
    if len(values) > 1:
        raise MemoryBackendError(f"parameter '{name}' is given {len(values)} times: {_said(values)}")
    return values[0]


def _named(name: object) -> type[MemoryBackend]:
    if not isinstance(name, str) or name not in TYPES:
        raise MemoryBackendError(f"found object type {name!r}, expected one of {', '.join(TYPES)}")
    return TYPES[name]


def _property(kind: type[MemoryBackend], properties: Mapping[str, Property], name: str) -> Property:
    if name in properties:
        return properties[name]
    if name in NOT_HERE:
        raise MemoryBackendError(f"property '{name}' of {kind.type} is not supported: {NOT_HERE[name]}")
    others = [other.type for other in TYPES.values() if name in properties_of(other)]
    near = get_close_matches(name, properties, n=1)
    hint = f"{' and '.join(others)} has it" if others else f"did you mean '{near[0]}'?" if near else "it has no such"
    raise MemoryBackendError(f"property '{kind.type}.{name}' not found: {hint}; {kind.type},help lists what there is")


def _value(
    kind: type[MemoryBackend], prop: Property, values: list[object], read: Callable[[Kind, Any], object]
) -> object:
    if len(values) > 1 and not prop.kind.repeats:
        raise MemoryBackendError(
            f"property '{prop.name}' of {kind.type} is given {len(values)} times: {_said(values)}: leave only one"
        )
    try:
        found = [read(prop.kind, value) for value in values]
    except ValueError as error:
        raise MemoryBackendError(
            f"property '{prop.name}' of {kind.type} expects {prop.kind.expects}: {error}"
        ) from error
    return prop.kind.together(found)


def _said(values: list[object]) -> str:
    return " and ".join(map(repr, values))
