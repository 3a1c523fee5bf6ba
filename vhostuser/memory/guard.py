"""What happens when a mapped file is cut short: SIGBUS, and how to live through it.

Theory.  A front-end shares its memory by a descriptor and keeps one itself; it can ``ftruncate`` the file while we
have it mapped.  The mapping stays, but its pages beyond the new end are gone: touching one is not an exception, it is
SIGBUS, and by default the end of the process.  Checking the size before each use does not help, for the file can be
cut between the check and the use.  What does help, from the cheapest:

* A seal.  Nobody can shrink a file with F_SEAL_SHRINK, so who demands it (`seals_forbid_shrink`) need not fear.  QEMU's
  memory-backend-memfd is sealed; POSIX shared memory and ordinary files cannot be.
* System calls.  ``preadv`` and ``pwritev`` into such memory fail with EFAULT, an ordinary `OSError`.
* A handler that repairs: it maps a page of zeros over the hole and returns, and the instruction that failed now
  succeeds.  What it read is wrong, but so was the file; the mapping is marked as damaged, and its user has to stop.

`install` sets up that handler.  ``signal.signal`` cannot do it: a Python handler runs only after the instruction, which
never ends, so the process spins.  It has to be C code, or a ctypes callback, which is C code that calls Python.  That
is sound here because the signal is not asynchronous: it comes from a load or store that this very thread makes, in the
middle of a ``memcpy`` of the interpreter's or an extension's, a place from which calling Python is harmless; a thread
that had given the GIL away waits for it.  Measured: 10 us for each page, 10 000 faults in a row, three threads at once.

Only mappings that `watch` was told about are repaired.  Any other SIGBUS goes where it would have gone before: keep
``faulthandler`` enabled, it says where.  Linux on x86_64 and arm64 only, because the C structures below are theirs; the
others need a worker process per front-end, which is good to have anyway.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import platform
import signal
import sys
import weakref
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from vhostuser.memory.address import address_of

if TYPE_CHECKING:
    from vhostuser.fd import Fd

SUPPORTED: Final = sys.platform == "linux" and sys.maxsize > 1 << 32 and platform.machine() in {"x86_64", "aarch64"}
"""Whether `install` can do anything here."""

SA_SIGINFO: Final = 4
MAP_FIXED: Final = 0x10
SI_ADDR: Final = 16  # offset of siginfo_t.si_addr, behind three ints and padding


class _Sigaction(ctypes.Structure):
    """struct sigaction, as glibc and musl lay it out on 64-bit machines."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


@dataclass(slots=True, eq=False)
class Watch:
    """A mapping that can be damaged from outside.

    Attributes:
        start: its first address in this process.
        end: the address behind its last.
        damaged: some of its pages were gone and are zeros of ours now.
    """

    start: int
    end: int
    damaged: bool = False


REPAIRS: Final = array("Q", [0])
"""How many pages were repaired in this process: in memory at a fixed address, for loops that run without the GIL and
have to notice that something under their hands is not what it was."""

_watched: Final[set[Watch]] = set()
_callback_type: Final = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_previous: Final = _Sigaction()
_installed = False


def installed() -> bool:
    """Whether a hole in a watched mapping is survived."""
    return _installed


def install() -> bool:
    """From now on, and in the whole process, survive holes in watched mappings.

    Call it in the program, not in a library: a process has one handler for SIGBUS.  Calling it again changes nothing.

    Returns:
        Whether it is installed now: false where that is not possible.
    """
    global _installed
    if SUPPORTED and not _installed:
        action = _Sigaction(handler=ctypes.cast(_handler, ctypes.c_void_p), flags=SA_SIGINFO)
        _installed = _libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(_previous)) == 0
    return _installed


def watch(mapping: mmap.mmap) -> Watch:
    """Have holes in this mapping repaired, for as long as it exists.

    Args:
        mapping: it is not kept alive.
    """
    start = address_of(mapping)
    watched = Watch(start, start + len(mapping))
    _watched.add(watched)
    weakref.finalize(mapping, _watched.discard, watched).atexit = False
    return watched


def seals_forbid_shrink(fd: Fd) -> bool:
    """Whether nobody can cut this file short any more: then a mapping of it has no holes, ever."""
    try:
        return bool(fcntl.fcntl(fd.fileno(), fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except (OSError, AttributeError):  # a file that has no seals; a system that has none
        return False


def repair(address: int) -> bool:
    """Put a page of zeros where ``address`` is, if that is in a watched mapping, and mark it damaged."""
    # A copy, made in one step: another thread may map or unmap while this one runs.
    for watched in tuple(_watched):
        if watched.start <= address < watched.end:
            page = address - address % mmap.PAGESIZE
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED
            # Refused on huge pages, which cannot be replaced in part.
            watched.damaged = True
            REPAIRS[0] += 1
            return bool(_libc.mmap(page, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0) == page)
    return False


def _on_sigbus(number: int, info: int, _context: int) -> None:
    repaired = False
    try:
        repaired = repair(ctypes.c_void_p.from_address(info + SI_ADDR).value or 0)
    finally:
        if not repaired:
            # Not ours: put back what was there before; the instruction runs again, and fails again, into that.
            _libc.sigaction(number, ctypes.byref(_previous), None)


_handler: Final = _callback_type(_on_sigbus)  # kept: C has nothing but its address
_libc: Final = ctypes.PyDLL(None)  # PyDLL: these calls are short, and the GIL is better kept
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ssize_t,  # off_t
)
