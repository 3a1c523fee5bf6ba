"""Having pages early or not at all: ``prealloc`` and ``reserve``.

Memory that is mapped is only promised.  When the promise cannot be kept (a full /dev/shm, a full disk, no huge page
left), the first access to a missing page is a SIGBUS.  ``prealloc=on`` takes all pages at once, when failing is still
an error message: by MADV_POPULATE, which Linux has since 5.14, else by reserving the file's blocks and touching.

Linux also counts what it has promised, and may refuse to promise more (overcommit, huge pages).  ``reserve=off`` asks
it not to count, and is refused where the kernel would count all the same.
"""

from __future__ import annotations

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vhostuser.memory.backends import libc
from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.pages import round_up, say_free_huge_pages
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vhostuser.fd import Fd
    from vhostuser.memory.backends.mapping import Backing, Mapping

OVERCOMMIT: Final = Path("/proc/sys/vm/overcommit_memory")
NEVER: Final = "2"
"""The value of `OVERCOMMIT` with which the kernel counts everything, MAP_NORESERVE or not."""

_REMEDY: Final = "make room, ask for a smaller size, or set prealloc=off"


def check_reserve_off(backing: Backing, *, share: bool, title: str) -> None:
    """Refuse ``reserve=off`` where it would not be obeyed.

    Raises:
        MemoryBackendError: says why.
    """
    why = None
    if not libc.LINUX:
        why = "this is not Linux"
    elif backing.writable and not (share and backing.fd is not None) and not backing.huge:
        why = _why_counted()
    if why:
        raise MemoryBackendError(
            f"{title}: property 'reserve=off': skipping the reservation of swap space is not supported: {why}; "
            "leave 'reserve' out"
        )


def preallocate(backing: Backing, mapping: Mapping, threads: int, title: str) -> None:
    """Take all pages of the mapping.

    Args:
        backing: what is mapped.
        mapping: how.
        threads: how many work at it.
        title: of the backend, for messages.

    Raises:
        MemoryBackendError: there is no room.
    """
    try:
        if mapping.shared and mapping.writable and backing.fd is not None:
            _check_room(backing.fd, mapping.size)
        _populate(backing, mapping, threads)
    except OSError as error:
        raise MemoryBackendError(
            f"{title}: cannot preallocate {format_size(mapping.size)}: {_reason(error, mapping)}: {_REMEDY}"
        ) from error


def _why_counted() -> str | None:
    try:
        mode = OVERCOMMIT.read_text().strip()
    except OSError as error:
        return f"cannot read {OVERCOMMIT} ({error.strerror})"
    return f"{OVERCOMMIT} is {mode}" if mode == NEVER else None


def _check_room(fd: Fd, size: int) -> None:
    """Refuse what cannot work before it fills a file system, or the machine's memory, to the brim."""
    system, file = os.fstatvfs(fd.fileno()), os.fstat(fd.fileno())
    free = system.f_bfree * system.f_frsize
    missing = size - file.st_blocks * 512
    # Without a limit (memfd) the kernel says 0 blocks in all.
    if stat.S_ISREG(file.st_mode) and system.f_blocks and missing > free:
        raise OSError(errno.ENOSPC, f"the file system behind it has {format_size(free)} free")


def _populate(backing: Backing, mapping: Mapping, threads: int) -> None:
    advice = libc.MADV_POPULATE_WRITE if mapping.writable else libc.MADV_POPULATE_READ
    try:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda part: libc.advise(part[0], part[1], advice), _parts(mapping, threads)))
    except OSError as error:
        if libc.LINUX and error.errno != errno.EINVAL:
            raise
        _touch(backing, mapping)


def _parts(mapping: Mapping, count: int) -> Iterator[tuple[int, int]]:
    """The mapping as ``count`` or fewer pieces of about the same size: (address, length)."""
    begin, end = mapping.address, mapping.address + round_up(mapping.size, mapping.page_size)
    step = round_up(-(-(end - begin) // count), mapping.page_size)
    for start in range(begin, end, step):
        yield start, min(step, end - start)


def _touch(backing: Backing, mapping: Mapping) -> None:
    """What is left without MADV_POPULATE."""
    if mapping.shared and mapping.writable and backing.fd is not None and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(backing.fd.fileno(), backing.offset, mapping.size)
    view = mapping.view
    for offset in range(0, len(view), mapping.page_size):
        byte = view[offset]
        if mapping.writable:
            view[offset] = byte


def _reason(error: OSError, mapping: Mapping) -> str:
    if mapping.huge:
        return f"{error.strerror}, {say_free_huge_pages(mapping.page_size)}"
    if error.errno == errno.EFAULT:  # where touching would have been SIGBUS
        return "the file system behind it is full, or the file was cut short"
    return error.strerror or str(error)
