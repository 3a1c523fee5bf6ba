"""memory-backend-memfd: an anonymous file in memory, sealed against changes of its size.  Linux.

A back-end that maps shared memory lives with a threat: whoever else has the descriptor can cut the file short, and the
next load from the mapping is a SIGBUS.  A sealed memfd can be neither shrunk nor grown any more, and F_SEAL_SEAL makes
that final; a back-end can see the seals (`vhostuser.memory.guard.seals_forbid_shrink`) and be at ease.

It can also be made of huge pages, of any size that the host has.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from vhostuser.fd import Fd
from vhostuser.memory.backends import libc
from vhostuser.memory.backends.allocation import MappedBackend
from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.mapping import Backing
from vhostuser.memory.backends.pages import page_size_of, say_huge_page_sizes
from vhostuser.memory.backends.properties import SIZE, SWITCH, about
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from contextlib import ExitStack


class NoMemfdError(MemoryBackendError):
    """This system has no memfd at all."""


@dataclass(frozen=True, kw_only=True)
class MemoryBackendMemfd(MappedBackend):
    """Anonymous memory by ``memfd_create``: Linux only, and the safest for the back-end.

    With ``share=off`` the mapping is private, as in QEMU: such memory is of no use to a back-end.
    """

    type: ClassVar[str] = "memory-backend-memfd"

    seal: bool = field(default=True, metadata=about(SWITCH, "forbid any further change of the size"))
    hugetlb: bool = field(default=False, metadata=about(SWITCH, "make it of huge pages"))
    hugetlbsize: int | None = field(
        default=None, metadata=about(SIZE, "how large these are; the host's default if left out")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_zero("hugetlbsize", self.hugetlbsize)
        if self.hugetlbsize is not None and self.hugetlbsize & (self.hugetlbsize - 1):
            raise MemoryBackendError(
                f"{self.title}: hugepage size must be a power of 2, found property 'hugetlbsize' = {self.hugetlbsize}; "
                f"this host has {say_huge_page_sizes()}"
            )

    def _open(self, undo: ExitStack) -> Backing:
        fd = undo.enter_context(
            create_memfd(self.id, seal=self.seal, hugetlb=self.hugetlb, hugetlbsize=self.hugetlbsize)
        )
        backing = Backing(fd=fd, page_size=page_size_of(fd))
        self._check_whole_pages(backing)
        resize(fd, self.size)
        if self.seal:
            add_seals(fd, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return backing


def create_memfd(name: str, *, seal: bool = False, hugetlb: bool = False, hugetlbsize: int | None = None) -> Fd:
    """An anonymous file in memory; ``name`` is only what /proc shows.

    Raises:
        NoMemfdError: the system has none.
        MemoryBackendError: the system refuses.
    """
    flags = 0
    try:
        flags = os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if seal else 0)
        if hugetlb:
            # The kernel's field holds the size's logarithm; 0 is the host's default.
            flags |= os.MFD_HUGETLB | ((hugetlbsize or 1).bit_length() - 1) << libc.MFD_HUGE_SHIFT
        return Fd(os.memfd_create(name, flags))
    except AttributeError as error:  # not Linux
        raise NoMemfdError(f"failed to create memfd: {_NO_MEMFD}") from error
    except OSError as error:
        # A Python that has the function can run on a kernel, or in a sandbox, that does not have the call.
        if error.errno == errno.ENOSYS and not hugetlb:
            raise NoMemfdError(f"failed to create memfd with flags {flags:#x}: {_NO_MEMFD}") from error
        why = _no_such_pages(hugetlbsize) if hugetlb and error.errno in _NO_HUGE_PAGES else str(error)
        raise MemoryBackendError(f"failed to create memfd with flags {flags:#x}: {why}") from error


def resize(fd: Fd, size: int) -> None:
    """Give the file its size.

    Raises:
        MemoryBackendError: the system refuses.
    """
    try:
        os.ftruncate(fd.fileno(), size)
    except (OSError, OverflowError) as error:
        raise MemoryBackendError(f"failed to resize memfd to {size}: {error}") from error


def add_seals(fd: Fd, seals: int) -> None:
    """Forbid some changes of the file for good.

    Raises:
        MemoryBackendError: the system refuses.
    """
    try:
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, seals)
    except OSError as error:
        raise MemoryBackendError(f"failed to add seals {seals:#x}: {error}") from error


def _no_such_pages(size: int | None) -> str:
    asked = "of its default size" if size is None else f"of {format_size(size)} (property 'hugetlbsize')"
    return f"this host has no huge pages {asked}; it has {say_huge_page_sizes()}"


_NO_MEMFD = "this system has none; use memory-backend-shm, which any POSIX system has"
_NO_HUGE_PAGES = {errno.ENODEV, errno.EINVAL, errno.ENOSYS}  # no such size, no such flag, no such thing built in
