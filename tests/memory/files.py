"""Files and regions for the memory tests, and what the kernel says about them."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import posix_ipc  # type: ignore[import-not-found]  # a C module without stubs
import pytest

from vhostuser.fd import Fd
from vhostuser.wire.records import MemoryRegion

PAGE = mmap.PAGESIZE
MAPS = Path("/proc/self/maps")
SMAPS = Path("/proc/self/smaps")
FDS = Path("/proc/self/fd")

reads_proc = pytest.mark.skipif(not MAPS.exists(), reason="reads /proc/self")


def _memfd_works() -> bool:
    try:
        os.close(os.memfd_create("probe"))
    except (AttributeError, OSError):  # another system, or one that plays another system
        return False
    return True


needs_memfd = pytest.mark.skipif(not _memfd_works(), reason="memfd is Linux only")

USER_BASE = 0x7F00_0000_0000


def shared_file(size: int) -> Fd:
    """POSIX shared memory without a name, made here and not by the code under test."""
    name = f"/test-{os.urandom(8).hex()}"
    fd = Fd(posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600).fd)
    posix_ipc.unlink_shared_memory(name)
    if size:
        os.ftruncate(fd.fileno(), size)
    return fd


def region(guest_addr: int, size: int, *, user_addr: int | None = None, mmap_offset: int = 0) -> MemoryRegion:
    """A region whose user address follows from its guest address, unless given."""
    user_addr = USER_BASE + guest_addr if user_addr is None else user_addr
    return MemoryRegion(guest_addr=guest_addr, size=size, user_addr=user_addr, mmap_offset=mmap_offset)


def mapped_ranges(inode: int) -> list[int]:
    """The length of each shared mapping of that file in this process."""
    lengths = []
    for line in MAPS.read_text().splitlines():
        span, permissions, _offset, _device, found, *_ = line.split()
        if permissions == "rw-s" and int(found) == inode:
            begin, end = (int(part, 16) for part in span.split("-"))
            lengths.append(end - begin)
    return lengths


def mapping_at(address: int) -> dict[str, str]:
    """What /proc/self/smaps says about the mapping at an address; ``permissions`` and ``flags`` among it."""
    found: dict[str, str] = {}
    for line in SMAPS.read_text().splitlines():
        name, _, value = line.partition(" ")
        if not name.endswith(":"):
            begin, end = (int(part, 16) for part in name.split("-"))
            found = {"permissions": value.split()[0], "begin": name.split("-")[0]} if begin <= address < end else {}
        elif found:
            found[name.rstrip(":")] = value.strip()
            if name == "VmFlags:":
                return found
    raise LookupError(f"nothing is mapped at {address:#x}")


def file_bytes(fd: Fd, length: int, offset: int = 0) -> bytes:
    """What the file holds, read by a mapping of its own: macOS lets nobody read shared memory otherwise."""
    with mmap.mmap(fd.fileno(), offset + length, prot=mmap.PROT_READ) as mapping:
        return mapping[offset:]


def inode_of(fd: Fd) -> int:
    return os.fstat(fd.fileno()).st_ino


def open_fds() -> int:
    """How many descriptors this process has."""
    return len(list(FDS.iterdir()))
