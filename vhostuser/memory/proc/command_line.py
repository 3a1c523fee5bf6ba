"""What a QEMU was told about its memory: ``-m``, ``-object memory-backend-*`` and who uses the objects.

This reads other people's command lines, so nothing in them is an error here: QEMU has taken them.  What it cannot
know is what was added later through QMP.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from vhostuser.memory.sizes import SizeError, parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINE_RAM: Final = "pc.ram"
"""What QEMU calls the memory of a PC that no object provides."""
DEFAULT_MIB: Final = 128
TRUE: Final = frozenset({"on", "yes", "true", "y"})
SHARED_BY_DEFAULT: Final = frozenset({"memory-backend-memfd", "memory-backend-shm", "memory-backend-epc"})

_PROGRAM: Final = re.compile(r"qemu-system-\w+|qemu-kvm|qemu|kvm")


@dataclass(frozen=True, slots=True)
class RamObject:
    """A memory object, or what stands for one where ``-m`` alone was given.

    Attributes:
        id: its name.
        type: ``memory-backend-memfd`` and so on; empty for memory that is no object.
        size: bytes; 0 if the command line does not say it in a way we understand.
        share: whether it is, or would be, mapped shared.
        path: of the file or folder behind it; empty if there is none.
        used: whether the machine, a NUMA node or a device has it as memory.
    """

    id: str
    type: str
    size: int
    share: bool
    path: str = ""
    used: bool = True


@dataclass(frozen=True, slots=True)
class QemuMemory:
    """All of a QEMU's memory that its command line names.

    Attributes:
        program: the file name of the program.
        objects: in the order of the command line.
    """

    program: str
    objects: tuple[RamObject, ...]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> QemuMemory | None:
        """What ``arguments`` say, or None when they are not of QEMU."""
        # Not only the first: a wrapper may start it by way of the dynamic loader.
        names = (word.rpartition("/")[2] for word in arguments)
        program = next((name for name in names if _PROGRAM.fullmatch(name)), None)
        if program is None:
            return None
        return cls(program, tuple(_Reader().read(arguments)))


@dataclass(slots=True)
class _Reader:
    """The options that matter, as they were collected so far."""

    objects: dict[str, dict[str, str]] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    machine_has_object: bool = False
    size: int = DEFAULT_MIB << 20
    mem_path: str = ""

    def read(self, arguments: Sequence[str]) -> list[RamObject]:
        for option, value in pairwise(arguments):
            if option.startswith("-"):
                self._take(option.lstrip("-"), value)
        found = [self._object(name, properties) for name, properties in self.objects.items()]
        if not self.machine_has_object:
            found.insert(0, RamObject(MACHINE_RAM, "", self.size, share=False, path=self.mem_path))
        return found

    def _take(self, option: str, value: str) -> None:
        match option:
            case "object":
                properties = options(value, "qom-type")
                if properties.get("qom-type", "").startswith("memory-backend-"):
                    self.objects[properties.get("id", "")] = properties
            case "M" | "machine" | "numa":
                properties = options(value, "type")
                user = properties.get("memory-backend") or properties.get("memdev")
                if user:
                    self.users.append(user)
                    self.machine_has_object = True
            case "device":
                self.users += filter(None, [options(value, "driver").get("memdev")])
            case "m":
                self.size = _size(options(value, "size").get("size", ""), unit="M") or self.size
            case "mem-path":
                self.mem_path = value

    def _object(self, name: str, properties: dict[str, str]) -> RamObject:
        kind = properties["qom-type"]
        share = properties.get("share")
        return RamObject(
            id=name,
            type=kind,
            size=_size(properties.get("size", "")),
            share=kind in SHARED_BY_DEFAULT if share is None else share in TRUE,
            path=properties.get("mem-path", ""),
            used=name in self.users,
        )


def options(text: str, first: str) -> dict[str, str]:
    """``key=value,key,...`` as QEMU reads it, or the JSON that it takes instead; all values as text.

    Args:
        text: one option's value; a comma inside a value is doubled.
        first: what the first one is called when it comes without a name.
    """
    if text.startswith("{"):
        with suppress(ValueError):
            return {name: _text(value) for name, value in json.loads(text).items()}
        return {}
    found = {}
    for number, part in enumerate(text.replace(",,", "\0").split(",")):  # no argument of a program holds a NUL
        name, has_value, value = part.replace("\0", ",").partition("=")
        if not has_value:
            name, value = (first, name) if number == 0 else (name, "on")
        found[name] = value
    return found


def _text(value: Any) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _size(text: str, unit: str = "") -> int:
    try:
        return parse_size(text + unit if text.isdigit() else text)
    except SizeError:
        return 0
