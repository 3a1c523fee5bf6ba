"""A look at a process from outside: how much it holds, and how much processor time it has used.

Linux only, out of /proc.  A program may be several processes, as virtiofsd in its sandbox is: what is told is the sum
over the process and its descendants.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Sample", "cpu_seconds", "family", "held", "look_at", "own_memory_files", "wants_to_run"]

PROC: Final = Path("/proc")
SHM: Final = "/dev/shm/"
_GONE: Final = " (deleted)"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen; `vhostuser.conformance.target.Vitals`.

    Attributes:
        fds: open descriptors.
        mappings: entries of the memory map.
        shared: those that are shared with others, which is what guest memory is; the rest comes and goes with
            libraries and allocators.
        resident: bytes of memory in use.
        cpu_seconds: processor time so far.
    """

    fds: int | None
    mappings: int | None
    shared: int | None
    resident: int | None
    cpu_seconds: float | None


def look_at(pid: int) -> Sample | None:
    """A look at ``pid`` and its descendants now; None when it is gone, or nothing may be seen of it."""
    samples = [_one(each) for each in family(pid)]
    if not samples or samples[0] is None:
        return None
    seen = [each for each in samples if each is not None]
    return Sample(
        sum(each.fds or 0 for each in seen),
        sum(each.mappings or 0 for each in seen),
        sum(each.shared or 0 for each in seen),
        sum(each.resident or 0 for each in seen),
        sum(each.cpu_seconds or 0.0 for each in seen),
    )


def wants_to_run(pid: int) -> bool:
    """Whether a thread of ``pid`` or of its descendants runs now, or waits for a processor."""
    return any(_state(task) == "R" for each in family(pid) for task in _tasks(each))


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def held(pid: int) -> list[str]:
    """What descriptors and shared mappings the process and its descendants hold, in words, sorted."""
    found: list[str] = []
    for each in family(pid):
        with suppress(OSError):
            for link in (PROC / str(each) / "fd").iterdir():
                with suppress(OSError):
                    found.append(f"fd of {os.readlink(link)}")
            found += [f"mapping of {path or 'memory'}" for path in _shared_mappings(each)]
    return sorted(found)


def own_memory_files(pid: int) -> set[str]:
    """Names in /dev/shm that the process has open or mapped, and that are still there."""
    names: set[str] = set()
    for what in held(pid):
        path = what.partition(" of ")[2]
        if path.startswith(SHM) and not path.endswith(_GONE):
            names.add(path)
    return names


def cpu_seconds(pid: int) -> float | None:
    """Processor time that one process has used, to the nanosecond where the kernel counts them."""
    try:
        return time.clock_gettime(~pid << 3 | 2)  # how Linux numbers the clock of somebody else's process
    except OSError:
        return None


def family(pid: int) -> Iterator[int]:
    """``pid`` and its descendants."""
    yield pid
    for task in _tasks(pid):
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                yield from family(int(child))


def _tasks(pid: int) -> list[Path]:
    """Its threads."""
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def _one(pid: int) -> Sample | None:
    folder = PROC / str(pid)
    try:
        fds = len(os.listdir(folder / "fd"))
        lines = (folder / "maps").read_bytes().splitlines()
        pages = int((folder / "statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    shared = sum(line.split(None, 2)[1].endswith(b"s") for line in lines)
    return Sample(fds, len(lines), shared, pages * os.sysconf("SC_PAGE_SIZE"), cpu_seconds(pid))


def _shared_mappings(pid: int) -> Iterator[str]:
    for line in (PROC / str(pid) / "maps").read_text(errors="replace").splitlines():
        _span, permissions, _offset, _device, _inode, *path = line.split(maxsplit=5)
        if permissions.endswith("s"):
            yield path[0] if path else ""
