"""What to tell somebody whose back-end cannot map a process's memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vhostuser.memory.proc.blocks import Matcher, RamBlock
from vhostuser.memory.proc.command_line import QemuMemory
from vhostuser.memory.proc.tables import PROC, read_arguments, read_files, read_mappings
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What was found out about a process.

    Attributes:
        pid: its number.
        program: its file name.
        is_qemu: its command line was understood.
        blocks: what is, or seems to be, the guest's memory.
        unused: memory objects that neither the machine nor a device uses.
    """

    pid: int
    program: str
    is_qemu: bool
    blocks: tuple[RamBlock, ...]
    unused: tuple[RamBlock, ...]

    @property
    def shareable(self) -> bool:
        """Whether a back-end can have all of the guest's memory but ROM."""
        return bool(self._memory) and all(block.why_not is None for block in self._memory)

    @property
    def diagnosis(self) -> str:
        """One paragraph: what is wrong and what to change, or that nothing is."""
        if not self.blocks:
            return "nothing in this process looks like a guest's memory"
        if self.shareable:
            return "guest RAM is shared: a vhost-user back-end can map it"
        bad = next(block for block in (*self._memory, *self.blocks) if block.why_not is not None)
        return f"{_finding(bad)}; {self._remedy(bad)}"

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "pid": self.pid,
            "program": self.program,
            "shareable": self.shareable,
            "diagnosis": self.diagnosis,
            "blocks": [block.to_json() for block in (*self.blocks, *self.unused)],
        }

    @property
    def _memory(self) -> list[RamBlock]:
        return [block for block in self.blocks if not block.is_rom]

    def _remedy(self, bad: RamBlock) -> str:
        if not self.is_qemu:
            return "have this program put its guest's memory into a memfd or POSIX shared memory, mapped shared"
        if bad.ram.type:
            readonly = "readonly=off and " if bad.is_rom else ""
            return f"set {readonly}share=on in -object {bad.ram.type},id={bad.ram.id}"
        ready = next((block for block in self.unused if block.why_not is None), None)
        if ready is not None:
            return (
                f"there is a shared object {ready.ram.id}, which nothing uses: -machine memory-backend={ready.ram.id}"
            )
        kind = f"file,id=mem,mem-path={bad.ram.path}" if bad.ram.path else "memfd,id=mem"
        return (
            f"start QEMU with -object memory-backend-{kind},size={format_size(bad.size)},share=on "
            f"-machine memory-backend=mem"
        )


def inspect_process(pid: int, proc: Path = PROC) -> MemoryReport:
    """Look at the memory of process ``pid``, without disturbing it.

    Args:
        pid: a QEMU, another VMM, or a process of ours.
        proc: where /proc is mounted.

    Raises:
        ProcessError: it is not there, may not be looked at, or this is not Linux.
    """
    arguments = read_arguments(pid, proc)
    matcher = Matcher(read_mappings(pid, proc), read_files(pid, proc))
    qemu = QemuMemory.of(arguments)
    if qemu is None:
        program = os.path.basename(arguments[0]) if arguments else str(pid)
        return MemoryReport(pid, program, False, tuple(matcher.likely_blocks()), ())
    blocks = [*matcher.blocks_of(qemu), *matcher.large_shared_blocks()]
    used = tuple(block for block in blocks if block.ram.used)
    return MemoryReport(pid, qemu.program, True, used, tuple(block for block in blocks if not block.ram.used))


def _finding(bad: RamBlock) -> str:
    if bad.kind == "anonymous":
        return "guest RAM is anonymous and private: a vhost-user back-end cannot map it"
    return f"guest RAM cannot be shared: {bad.ram.id}: {bad.why_not}"
