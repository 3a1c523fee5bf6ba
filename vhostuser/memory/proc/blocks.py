"""Which of a process's mappings are a guest's memory, and whether a vhost-user back-end could map them too.

Theory.  A back-end is sent descriptors and maps them shared.  It sees the guest's memory if three things are true: the
guest's memory is a file's (anonymous memory has no descriptor), the VMM has mapped that file shared (of a private
mapping only the pages nobody wrote are the file's), and it has kept a descriptor open for writing.  QEMU asks for the
first and the third; with the second wrong it sends the descriptor all the same, and both sides then see different
memory without knowing it.

Of a QEMU the command line tells which memory there should be, and the mappings are matched with that.  Of another
process, one of ours among them, large mappings of files are taken for the guest's; a large anonymous one only where
there is nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from vhostuser.memory.proc.command_line import RamObject
from vhostuser.memory.proc.tables import MEMFD, Mapping, OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vhostuser.memory.proc.command_line import QemuMemory

LEAST_SHARED: Final = 1 << 20
"""Smaller shared mappings are logs and in-flight areas rather than memory."""
LEAST_PRIVATE: Final = 16 << 20
SIZE_TOLERANCE: Final = 64 << 20
"""Two anonymous mappings side by side are one to the kernel: guest memory may look larger than it is."""


@dataclass(frozen=True, slots=True)
class RamBlock:
    """A piece of what seems to be the guest's memory.

    Attributes:
        ram: what the command line says about it, or what the mapping suggests.
        mapping: where the process has it; None if it could not be found.
        files: descriptors of its file, the writable ones first.
    """

    ram: RamObject
    mapping: Mapping | None
    files: tuple[OpenFile, ...] = ()

    @property
    def kind(self) -> str:
        """``memfd``, ``shm``, ``file``, ``anonymous`` or ``not found``."""
        if self.mapping is None:
            return "not found"
        if self.mapping.anonymous:
            return "anonymous"
        if self.mapping.path.startswith(MEMFD):
            return "memfd"
        return "shm" if self.mapping.path.startswith("/dev/shm/") else "file"

    @property
    def size(self) -> int:
        """Bytes that the guest has of it."""
        return self.ram.size or (self.mapping.size if self.mapping else 0)

    @property
    def is_rom(self) -> bool:
        """Mapped for reading only: not memory that a back-end would need."""
        return self.mapping is not None and not self.mapping.writable

    @property
    def page_size(self) -> int | None:
        """Bytes of its file's pages, if that is open."""
        return self.files[0].page_size if self.files else None

    @property
    def why_not(self) -> str | None:
        """Why a back-end cannot share it; None when it can."""
        mapping = self.mapping
        if mapping is None:
            return "no mapping of this size was found in the process"
        if mapping.anonymous:
            return "anonymous memory: there is no descriptor to give to a back-end"
        if self.is_rom:
            return "mapped for reading only (ROM): only writable memory is offered to a back-end"
        if not mapping.shared:
            return (
                f"a private mapping of {mapping.name}: what the guest writes never gets there, and a back-end that "
                "maps the file sees other bytes"
            )
        if not self.files:
            return f"shared, but no descriptor of {mapping.name} is open any more: nothing can be given to a back-end"
        if not self.files[0].writable:
            return f"fd {self.files[0].fd} is open for reading only: a back-end could not map it for writing"
        return None

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        mapping, files = self.mapping, self.files
        return {
            "id": self.ram.id,
            "backend": self.ram.type or None,
            "kind": self.kind,
            "size": self.size,
            "start": mapping.start if mapping else None,
            "path": mapping.name if mapping else None,
            "mapped": None if mapping is None else "shared" if mapping.shared else "private",
            "writable": mapping.writable if mapping else None,
            "fds": [file.fd for file in files],
            "seals": list(files[0].seals) if files and files[0].seals is not None else None,
            "page_size": self.page_size,
            "used": self.ram.used,
            "offered": self.why_not is None,
            "why_not": self.why_not,
        }


class Matcher:
    """Finds the mapping of each piece of memory; none is taken twice.

    Args:
        mappings: all of the process.
        files: its open regular files.
    """

    def __init__(self, mappings: Sequence[Mapping], files: Sequence[OpenFile]) -> None:
        code = {(one.device, one.inode) for one in mappings if one.executable}
        self._left = [
            one
            for one in mappings
            if not one.executable
            and one.readable
            and (one.anonymous or (one.of_memory_file and (one.device, one.inode) not in code))
        ]
        self._files = files

    def blocks_of(self, qemu: QemuMemory) -> list[RamBlock]:
        """One for each piece of memory that the command line names; those that have a file are matched first."""
        found = {ram.id: self._block(ram) for ram in sorted(qemu.objects, key=_is_anonymous)}
        return [found[ram.id] for ram in qemu.objects]

    def likely_blocks(self) -> list[RamBlock]:
        """What looks like a guest's memory when nothing tells which it is."""
        shared = self._taken(lambda one: one.inode != 0 and one.shared and one.size >= LEAST_SHARED)
        if shared:
            return shared
        private = self._taken(lambda one: one.inode != 0 and one.writable and one.size >= LEAST_PRIVATE)
        if private:
            return private
        anonymous = [one for one in self._left if one.anonymous and one.writable and one.size >= LEAST_PRIVATE]
        return [self._guessed(one) for one in sorted(anonymous, key=lambda one: -one.size)[:1]]

    def large_shared_blocks(self) -> list[RamBlock]:
        """Shared memory that nobody asked for yet: a QEMU may have been given more of it while it ran."""
        return self._taken(lambda one: one.inode != 0 and one.shared and one.size >= LEAST_PRIVATE)

    def _block(self, ram: RamObject) -> RamBlock:
        fitting = [one for one in self._left if _fits(ram, one)]
        if not fitting:
            return RamBlock(ram, None)
        mapping = min(fitting, key=lambda one: (not _is_named(ram, one), one.size))
        self._left.remove(mapping)
        return RamBlock(ram, mapping, self._files_of(mapping))

    def _taken(self, wanted: Callable[[Mapping], bool]) -> list[RamBlock]:
        found = [one for one in self._left if wanted(one)]
        self._left = [one for one in self._left if one not in found]
        return [self._guessed(one) for one in found]

    def _guessed(self, mapping: Mapping) -> RamBlock:
        name = mapping.name.removeprefix(MEMFD).rpartition("/")[2]
        return RamBlock(RamObject(name, "", 0, share=mapping.shared), mapping, self._files_of(mapping))

    def _files_of(self, mapping: Mapping) -> tuple[OpenFile, ...]:
        behind = (file for file in self._files if mapping.inode and file.is_behind(mapping))
        return tuple(sorted(behind, key=lambda file: not file.writable))


def _is_anonymous(ram: RamObject) -> bool:
    return ram.type in {"", "memory-backend-ram"} and not ram.share and not ram.path


def _fits(ram: RamObject, mapping: Mapping) -> bool:
    if _is_anonymous(ram):
        return mapping.anonymous and mapping.writable and 0 <= mapping.size - ram.size <= SIZE_TOLERANCE
    if (
        mapping.anonymous or not ram.size <= mapping.size <= 2 * ram.size
    ):  # rounded up to whole pages, huge ones perhaps
        return False
    return bool(ram.path) or mapping.path.startswith((MEMFD, "/dev/shm/"))


def _is_named(ram: RamObject, mapping: Mapping) -> bool:
    """Whether the path says so too; it need not, where it is relative or goes by way of a symbolic link."""
    folder = ram.path.rstrip("/")
    return bool(ram.path) and (mapping.name == ram.path or mapping.name.startswith(f"{folder}/qemu_back_mem."))
