"""Calls that Python's ``mmap`` module does not make, and the numbers it does not know.

The numbers are Linux's and the same on all its architectures, save for the two in `_MBIND` and `MAP_NORESERVE`.  Off
Linux the names exist as well, so that everything can be imported; nobody uses them there.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from vhostuser.fd import Fd

LINUX: Final = sys.platform == "linux"
MAP_FIXED: Final = 0x10
_LINUX_NORESERVE: Final = 0x40 if platform.machine().startswith("ppc") else 0x4000
MAP_NORESERVE: Final[int] = getattr(mmap, "MAP_NORESERVE", _LINUX_NORESERVE if LINUX else 0)
MAP_SHARED_VALIDATE: Final = 0x3
MAP_SYNC: Final = 0x80000
MADV_POPULATE_READ: Final = 22
MADV_POPULATE_WRITE: Final = 23
MFD_HUGE_SHIFT: Final = 26
HUGETLBFS_MAGIC: Final = 0x958458F6
MPOL_MF_STRICT: Final = 1
MPOL_MF_MOVE: Final = 2

_MBIND: Final = 237 if platform.machine() == "x86_64" else 235  # the table that all newer architectures share
_STATFS_SIZE: Final = 4096  # FreeBSD's is the largest, with 2 KiB

# CDLL gives the GIL away during a call: touching gigabytes takes a while.
_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ssize_t,  # off_t
)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def map_over(address: int, length: int, prot: int, flags: int, fd: int, offset: int) -> None:
    """``mmap`` with MAP_FIXED: replace what is mapped there, which must be the caller's.

    Raises:
        OSError: the system refuses.
    """
    found = _libc.mmap(address, length, prot, flags | MAP_FIXED, fd, offset)
    _check(-1 if found != address else 0)


def forbid(address: int, length: int) -> None:
    """PROT_NONE: from now on touching it ends the process.

    Raises:
        OSError: the system refuses.
    """
    _check(_libc.mprotect(address, length, 0))


def advise(address: int, length: int, advice: int) -> None:
    """``madvise``, while other threads run.

    Raises:
        OSError: the system does not know the advice, or cannot follow it.
    """
    _check(_libc.madvise(address, length, advice))


def bind(address: int, length: int, mode: int, nodes: int, flags: int) -> None:
    """``mbind``: have the pages come from some NUMA nodes.

    Args:
        address: of a page.
        length: bytes.
        mode: one of MPOL's.
        nodes: a mask, bit 0 for node 0.
        flags: out of MPOL_MF.

    Raises:
        OSError: the system refuses.
    """
    words = nodes.bit_length() // 64 + 1
    mask = (ctypes.c_uint64 * words)(*[nodes >> 64 * word & (1 << 64) - 1 for word in range(words)])
    # One bit more than there are: the kernel takes one off.
    bits = ctypes.c_ulong(words * 64 + 1)
    _check(
        _libc.syscall(
            ctypes.c_long(_MBIND),
            ctypes.c_void_p(address),
            ctypes.c_ulong(length),
            ctypes.c_ulong(mode),
            mask,
            bits,
            ctypes.c_ulong(flags),
        )
    )


def on_hugetlbfs(fd: Fd) -> bool:
    """Whether the file is made of huge pages.  ``os.fstatvfs`` leaves the kind of a file system out."""
    found = (ctypes.c_long * (_STATFS_SIZE // ctypes.sizeof(ctypes.c_long)))()
    return _libc.fstatfs(fd.fileno(), found) == 0 and found[0] == HUGETLBFS_MAGIC


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
