"""Which file a descriptor means: its kind, and the identity that two processes can compare.

Two descriptors, in two processes or in one, mean the same file when device and inode number are equal.  What kind of
file it is, POSIX tells only roughly; Linux says more in /proc, and only that tells an eventfd from an epoll, and
memory made by ``memfd_create`` from memory made by ``shm_open``.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PROC: Final = "/proc"
_ANONYMOUS: Final = "anon_inode:"
_DELETED: Final = " (deleted)"
_SHM: Final = ("/dev/shm/", "/run/shm/")
_KINDS: Final = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    0: "anonymous",
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open file as one process holds it.

    Attributes:
        number: its file descriptor.
        kind: ``eventfd``, ``pipe``, ``socket``, ``memfd``, ``shm``, ``file``, ``device`` and so on.
        device: number of the device that the file is on.
        inode: the file's number there; 0 when there is nothing to compare, as with eventfds, which all share one.
        links: how many names the file has.
    """

    number: int
    kind: str
    device: int
    inode: int
    links: int

    def same_file(self, other: Descriptor) -> bool:
        """Whether both mean one file, in whatever process."""
        return self.inode != 0 and (self.device, self.inode) == (other.device, other.inode)

    @property
    def identity(self) -> str:
        """Device and inode, as /proc/PID/maps writes them: ``00:1a 4711``."""
        return f"{os.major(self.device):02x}:{os.minor(self.device):02x} {self.inode}"

    def __str__(self) -> str:
        return f"{self.number} ({self.kind}{f', {self.identity}' if self.inode else ''})"


def describe(number: int) -> Descriptor:
    """What one of our own descriptors is.

    Raises:
        OSError: it is not open.
    """
    status = os.fstat(number)
    target = ""
    with contextlib.suppress(OSError):
        target = os.readlink(f"{PROC}/self/fd/{number}")
    return _descriptor(number, status, target)


def of_process(pid: int) -> Sequence[Descriptor] | None:
    """All descriptors of a process, by number; None where the system, or a right we lack, forbids looking."""
    folder = f"{PROC}/{pid}/fd"
    found = []
    try:
        for name in os.listdir(folder):
            # One that was closed meanwhile, or the one that reads the folder, is no news to anybody.
            with contextlib.suppress(FileNotFoundError):
                path = f"{folder}/{name}"
                found.append(_descriptor(int(name), os.stat(path), os.readlink(path)))
    except OSError:
        return None
    return sorted(found, key=lambda each: each.number)


def _descriptor(number: int, status: os.stat_result, target: str) -> Descriptor:
    kind = _named_kind(target) or _KINDS.get(stat.S_IFMT(status.st_mode), "file")
    inode = 0 if target.startswith(_ANONYMOUS) else status.st_ino
    return Descriptor(number, kind, status.st_dev, inode, status.st_nlink)


def _named_kind(target: str) -> str | None:
    """The kind, where the name that /proc shows has it."""
    if target.startswith(_ANONYMOUS):
        return target.removeprefix(_ANONYMOUS).strip("[]")
    if target.startswith("/memfd:"):
        return "memfd"
    if target.startswith(_SHM) and target.endswith(_DELETED):
        return "shm"
    return None
