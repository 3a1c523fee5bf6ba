"""What a process holds that outlives a garbage collection: fds, shared mappings, names in /dev/shm, children.

Two snapshots are compared as sets, so the answer names what is new and not only how many.  Private mappings are not
looked at: libraries and allocators come and go.  Where there is no /proc (macOS, the BSDs), fds are still
compared, by kind and inode; mappings and children are not.
"""

from __future__ import annotations

import os
import re
import resource
import stat
import sys
from dataclasses import dataclass, fields
from pathlib import Path

PROC = Path("/proc/self")
SHM = Path("/dev/shm")

# Shared mappings and files that the C library, libffi or the interpreter open on first use and keep, rightly.
KEPT_BY_THE_PLATFORM = ("gconv-modules.cache", "memfd:libffi")

# Address, permissions and path in a line of /proc/PID/maps; nearly all lines there are private mappings.
SHARED_MAPPING = re.compile(r"^(\S+) (...s) \S+ \S+ \S+ *(.*)$", re.MULTILINE)

# How often /dev/shm is read again before a new name counts: other processes on this machine create names and
# unlink them at once, as we do, and must not fail our tests.
SHM_LOOKS = 20


@dataclass(frozen=True)
class Snapshot:
    fds: frozenset[str]
    mappings: frozenset[str]
    shm_names: frozenset[str]
    children: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        return cls(_open_fds(), _shared_mappings(), _shm_names(), _children())


@dataclass(frozen=True)
class Leaks:
    """What the second snapshot has and the first had not; false when there is nothing."""

    fds: frozenset[str]
    mappings: frozenset[str]
    shm_names: frozenset[str]
    children: frozenset[str]

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot) -> Leaks:
        shm_names = after.shm_names - before.shm_names
        for _ in range(SHM_LOOKS):
            if not shm_names:
                break
            os.sched_yield()
            shm_names &= _shm_names()
        return cls(
            after.fds - before.fds,
            after.mappings - before.mappings,
            shm_names,
            _born(before.children, after.children),
        )

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        return "\n".join(
            f"  {field.name.replace('_', ' ')}: {what}"
            for field in fields(self)
            for what in sorted(getattr(self, field.name))
        )


def _open_fds() -> frozenset[str]:
    spared = _resource_tracker("_fd")
    if not PROC.exists():
        return frozenset(_described(fd) for fd in range(_most_fds()) if fd != spared and _is_open(fd))
    found = set()
    for entry in (PROC / "fd").iterdir():
        try:
            target = os.readlink(entry)
        except FileNotFoundError:
            continue  # the directory's own fd, gone by now
        if int(entry.name) != spared and not target.endswith(f"/{os.getpid()}/fd") and not _kept(target):
            found.add(f"{entry.name} -> {target}")
    return frozenset(found)


def _most_fds() -> int:
    return min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _described(fd: int) -> str:
    status = os.fstat(fd)
    return f"{fd} -> {stat.filemode(status.st_mode)} device {status.st_dev} inode {status.st_ino}"


def _shared_mappings() -> frozenset[str]:
    if not PROC.exists():
        return frozenset()
    shared = SHARED_MAPPING.findall((PROC / "maps").read_text())
    return frozenset(" ".join(parts) for parts in shared if not _kept(parts[-1]))


def _shm_names() -> frozenset[str]:
    if not SHM.is_dir():
        return frozenset()
    found = set()
    for path in SHM.iterdir():
        try:
            mine = path.lstat().st_uid == os.getuid()
        except FileNotFoundError:
            continue
        if mine:
            found.add(path.name)
    return frozenset(found)


def _children() -> frozenset[str]:
    spared = _resource_tracker("_pid")
    found: set[str] = set()
    for listing in PROC.glob("task/*/children"):
        try:
            pids = listing.read_text().split()
        except FileNotFoundError:
            continue  # the thread ended
        found.update(f"process {pid} {_command(pid)}" for pid in pids if int(pid) != spared)
    return frozenset(found)


def _born(before: frozenset[str], after: frozenset[str]) -> frozenset[str]:
    """Processes of ``after`` that ``before`` has not, by number: exec gives one that was there a new name."""
    known = {child.split()[1] for child in before}
    return frozenset(child for child in after if child.split()[1] not in known)


def _command(pid: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "(gone)"
    return b" ".join(words).decode(errors="replace") or "(ended, not waited for)"


def _kept(text: str) -> bool:
    return any(name in text for name in KEPT_BY_THE_PLATFORM)


def _resource_tracker(attribute: str) -> int | None:
    """multiprocessing starts one helper per process, on first use, and keeps it and a pipe to it for good."""
    module = sys.modules.get("multiprocessing.resource_tracker")
    return getattr(getattr(module, "_resource_tracker", None), attribute, None)
