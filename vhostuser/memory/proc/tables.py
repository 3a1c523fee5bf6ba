"""What /proc says about a process: its mappings, its files, its command line.

A mapping and a descriptor belong together when both name the same inode; a file that has lost its name (memfd, POSIX
shared memory, QEMU's temporary files) is found that way too.

``/proc/PID/smaps`` would tell the page size of each mapping, and would walk the page tables of a guest of 100 GiB to
do so, with the guest's memory locked.  So the page size is asked of the file instead.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import re
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PROC: Final = Path("/proc")
DELETED: Final = " (deleted)"
MEMFD: Final = "/memfd:"
SEALS: Final = {
    name: getattr(fcntl, f"F_SEAL_{name.upper()}", 0) for name in ("seal", "shrink", "grow", "write", "future_write")
}
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


class ProcessError(VhostUserError):
    """This process cannot be looked at: it is not there, not ours to look at, or the system has no /proc."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps, or several that continue one another.

    Attributes:
        start: first address in that process.
        end: the address behind the last.
        flags: ``rwxs`` or ``rwxp`` with dashes for what is not allowed.
        offset: where in the file it begins.
        inode: of the file; 0 for anonymous memory.
        device: of the file.
        path: of the file when it was opened, ``/memfd:NAME``, ``[heap]`` or nothing.
    """

    start: int
    end: int
    flags: str
    offset: int
    device: int
    inode: int
    path: str

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def shared(self) -> bool:
        """MAP_SHARED: what is written goes into the file."""
        return self.flags[3] == "s"

    @property
    def readable(self) -> bool:
        """PROT_READ."""
        return self.flags[0] == "r"

    @property
    def writable(self) -> bool:
        """PROT_WRITE."""
        return self.flags[1] == "w"

    @property
    def executable(self) -> bool:
        """PROT_EXEC: code, then, and no guest's memory."""
        return self.flags[2] == "x"

    @property
    def anonymous(self) -> bool:
        """No file stands behind it, and nothing that the kernel or the C library has given a name."""
        return not self.inode and not self.path

    @property
    def of_memory_file(self) -> bool:
        """Whether its file is one that can hold a guest's memory: no device, no ring of the kernel's."""
        memory_device = self.path.startswith(("/dev/shm/", "/dev/hugepages", "/dev/dax"))
        return self.inode != 0 and self.path.startswith("/") and (memory_device or not self.path.startswith("/dev/"))

    @property
    def name(self) -> str:
        """The path, without the kernel's remark that it is gone."""
        return self.path.removesuffix(DELETED)


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file that the process has open.

    Attributes:
        fd: its number in that process.
        path: what the link in /proc says.
        device: of the file.
        inode: of the file.
        size: bytes.
        writable: opened for writing too, so that a back-end could map it for writing.
        page_size: bytes of its pages: more than this system's usual ones where they are huge.
        seals: names of the seals on it; None if it cannot have any, or we may not look.
    """

    fd: int
    path: str
    device: int
    inode: int
    size: int
    writable: bool
    page_size: int
    seals: tuple[str, ...] | None

    def is_behind(self, mapping: Mapping) -> bool:
        """Whether ``mapping`` is of this file."""
        # btrfs and overlayfs show one device number in maps and another by stat; there the path decides.
        return self.inode == mapping.inode and (self.device == mapping.device or self.path == mapping.path)


def read_mappings(pid: int, proc: Path = PROC) -> list[Mapping]:
    """All mappings of a process, by address; neighbours that are one to the program are one here.

    Raises:
        ProcessError: it cannot be looked at.
    """
    with _explained(pid, proc):
        text = (proc / str(pid) / "maps").read_text(errors="surrogateescape")
    if not text:
        raise ProcessError(f"process {pid} has no memory: it has ended, or it is a part of the kernel")
    return _joined(_parse(line) for line in text.splitlines())


def read_files(pid: int, proc: Path = PROC) -> list[OpenFile]:
    """The regular files that a process has open, by number.

    Raises:
        ProcessError: it cannot be looked at.
    """
    process = proc / str(pid)
    found = []
    with _explained(pid, proc):
        huge = _mounts_of_huge_pages(process)
        for number in sorted(int(name) for name in os.listdir(process / "fd")):
            with suppress(FileNotFoundError):  # closed since we listed it
                found.append(_open_file(process, number, huge))
    return [file for file in found if file is not None]


def read_arguments(pid: int, proc: Path = PROC) -> list[str]:
    """The command line of a process.

    Raises:
        ProcessError: it cannot be looked at.
    """
    with _explained(pid, proc):
        line = (proc / str(pid) / "cmdline").read_bytes()
    return [os.fsdecode(part) for part in line.split(b"\0")[:-1]]


@contextmanager
def _explained(pid: int, proc: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise ProcessError(
            f"process {pid} belongs to somebody else, or does not let itself be looked at: try it as root"
        ) from None
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        if not (proc / "self").exists():
            raise ProcessError(
                "this system has no /proc as Linux has it, so other processes' memory cannot be seen: "
                "run this on Linux, or let --object show what a memory backend would give"
            ) from None
        raise ProcessError(f"there is no process {pid}") from None


def _parse(line: str) -> Mapping:
    span, flags, offset, device, inode, *path = line.split(maxsplit=5)
    start, end = (int(part, 16) for part in span.split("-"))
    major, minor = (int(part, 16) for part in device.split(":"))
    named = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), path[0]) if path else ""
    return Mapping(start, end, flags, int(offset, 16), os.makedev(major, minor), int(inode), named)


def _joined(mappings: Iterable[Mapping]) -> list[Mapping]:
    found: list[Mapping] = []
    for one in mappings:
        if found and _continues(found[-1], one):
            found[-1] = replace(found[-1], end=one.end)
        else:
            found.append(one)
    return found


def _continues(one: Mapping, following: Mapping) -> bool:
    """madvise(2) cuts a mapping of a file where its advice begins and ends: one line becomes several.

    Anonymous neighbours are left as they are: the kernel joins them itself, more of them than we would like.
    """
    same = (one.flags, one.device, one.inode, one.path) == (
        following.flags,
        following.device,
        following.inode,
        following.path,
    )
    return bool(one.inode) and same and one.end == following.start and one.offset + one.size == following.offset


def _mounts_of_huge_pages(process: Path) -> set[int]:
    """Mount ids of hugetlbfs; see proc_pid_mountinfo(5)."""
    lines = (process / "mountinfo").read_text(errors="surrogateescape").splitlines()
    return {int(line.split()[0]) for line in lines if " - hugetlbfs " in line}


def _open_file(process: Path, number: int, huge_mounts: set[int]) -> OpenFile | None:
    link = process / "fd" / str(number)
    status = link.stat()
    if not stat.S_ISREG(status.st_mode):
        return None
    path, info = os.readlink(link), (process / "fdinfo" / str(number)).read_text()
    of_huge_pages = path.startswith(MEMFD) or _number(info, "mnt_id", 10) in huge_mounts
    return OpenFile(
        fd=number,
        path=path,
        device=status.st_dev,
        inode=status.st_ino,
        size=status.st_size,
        writable=_number(info, "flags", 8) & os.O_ACCMODE == os.O_RDWR,
        # Elsewhere it is the best size of a read: a megabyte on NFS, and no page.
        page_size=status.st_blksize if of_huge_pages else mmap.PAGESIZE,
        seals=_seals(link),
    )


def _number(info: str, name: str, base: int) -> int:
    found = re.search(rf"^{name}:\s*(\d+)", info, re.MULTILINE)
    return int(found[1], base) if found else 0


def _seals(link: Path) -> tuple[str, ...] | None:
    """Only a descriptor of our own tells; opening the link makes one, as it would of any file."""
    try:
        fd = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # QEMU's shm has mode 0: only root gets past that
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return None  # a kind of file that has none
    finally:
        os.close(fd)
    return tuple(name for name, bit in SEALS.items() if seals & bit)
