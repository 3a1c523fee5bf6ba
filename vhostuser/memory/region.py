"""One region of guest memory, and how a file that came from elsewhere becomes a view of it.

The file is the other side's: it can be too short, of the wrong kind, or cut short the moment after we looked.  Four
rules follow, two of them from systems that are not Linux:

* Its size is asked for with ``fstat`` and compared with ``>=``.  macOS rounds the size up to whole pages, and nothing
  promises that the file ends where the region ends.
* Nothing reads, writes or seeks a memory fd: macOS refuses all three on POSIX shared memory.
* ``mmap`` wants offsets in multiples of ``mmap.ALLOCATIONGRANULARITY``, 4 KiB on most systems and 16 KiB on macOS on
  arm64, and a front-end need not know that number of ours.  Any other offset: map from the start of the file and skip.
* Nobody calls ``mmap.close()``: it raises while there are views, and without views it is not needed.  A mapping lives
  as long as any view of it, and on CPython it goes with the last one, at once.

What becomes of a mapping whose file is cut short *afterwards* is the subject of ``guard.py``.
"""

from __future__ import annotations

import mmap
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NewType

from vhostuser.errors import VhostUserError
from vhostuser.memory import guard

if TYPE_CHECKING:
    from vhostuser.fd import Fd
    from vhostuser.memory.guard import Watch
    from vhostuser.wire.records import MemoryRegion

GuestAddr = NewType("GuestAddr", int)
"""A guest physical address: what descriptors hold."""
UserAddr = NewType("UserAddr", int)
"""An address in the front-end's process: how SET_VRING_ADDR says where a ring lies."""

ADDRESS_SPACE: Final = 1 << 64
"""Addresses and sizes are 64 bits wide; a region may end exactly here, but not beyond."""

# Before 3.13 each mmap object keeps a duplicate of its descriptor, for resize(), which we never call.
_UNTRACKED: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


class MappingError(VhostUserError, ValueError):
    """A memory table, or a region of it, cannot be used."""


@dataclass(frozen=True, slots=True)
class MappedRegion:
    """A memory region and the bytes it stands for.

    Attributes:
        region: where the bytes lie, in the guest's addresses and in the front-end's.
        view: exactly ``region.size`` writable bytes; holding it, or any slice of it, keeps the mapping alive.
        watch: what the SIGBUS guard knows about the mapping; None for memory of our own.
    """

    region: MemoryRegion
    view: memoryview
    watch: Watch | None = None

    @property
    def guest_addr(self) -> GuestAddr:
        """Where the region begins for the guest."""
        return GuestAddr(self.region.guest_addr)

    @property
    def user_addr(self) -> UserAddr:
        """Where it begins for the front-end."""
        return UserAddr(self.region.user_addr)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.region.size

    @property
    def damaged(self) -> bool:
        """Whether its file was cut short and the SIGBUS guard put zeros in: then stop using it."""
        return self.watch is not None and self.watch.damaged

    @classmethod
    def of(cls, region: MemoryRegion, view: memoryview) -> MappedRegion:
        """A region whose bytes somebody has mapped already.

        Raises:
            MappingError: the view is read-only, has gaps, or is not as long as the region.
        """
        if view.readonly or not view.c_contiguous:
            raise MappingError(f"{describe(region)}: its view must be writable and without gaps")
        if view.nbytes != region.size:
            raise MappingError(f"{describe(region)}: its view has {view.nbytes:#x} bytes")
        return cls(region, view if view.format == "B" else view.cast("B"))

    @classmethod
    def map(cls, region: MemoryRegion, fd: Fd) -> MappedRegion:
        """Map the region's bytes, shared and writable.

        Args:
            region: already checked to be neither empty nor wrapping.
            fd: still the caller's; the mapping does not need it any more afterwards.

        Raises:
            MappingError: the file is too short, or the system refuses to map it.
        """
        start, length = file_range(region)
        try:
            check_file_size(region, fd)
            mapping = mmap.mmap(
                fd.fileno(),
                length,
                flags=mmap.MAP_SHARED,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
                offset=start,
                **_UNTRACKED,
            )
        except VhostUserError:
            raise  # it says what is wrong already
        except (OSError, ValueError, OverflowError) as error:
            raise MappingError(f"{describe(region)}: cannot map it: {error}") from error
        return cls(region, memoryview(mapping)[length - region.size :], guard.watch(mapping))


def describe(region: MemoryRegion) -> str:
    """The region as error messages name it."""
    return f"memory region at guest address {region.guest_addr:#x}, size {region.size:#x}"


def file_range(region: MemoryRegion) -> tuple[int, int]:
    """The part of the file to map, as (offset, length): the region lies at its end."""
    if region.mmap_offset % mmap.ALLOCATIONGRANULARITY:
        return 0, region.mmap_offset + region.size
    return region.mmap_offset, region.size


def check_file_size(region: MemoryRegion, fd: Fd) -> None:
    """Refuse a region that its file does not hold: touching the missing pages would be a SIGBUS.

    Raises:
        MappingError: the file ends before the region does.
        OSError: the descriptor is not one.
    """
    found = os.fstat(fd.fileno()).st_size
    needed = region.mmap_offset + region.size
    if found < needed:
        raise MappingError(
            f"{describe(region)}: with mmap offset {region.mmap_offset:#x} it needs a file of {needed:#x} bytes, "
            f"its fd has {found:#x}"
        )


def check_bounds(region: MemoryRegion) -> None:
    """Refuse a region that is empty, or that wraps around the end of an address space.

    Raises:
        MappingError: says which of its numbers is wrong.
    """
    if region.size <= 0:
        raise MappingError(f"{describe(region)}: a region has at least one byte")
    for name in ("guest_addr", "user_addr", "mmap_offset"):
        begin = getattr(region, name)
        if begin < 0 or begin + region.size > ADDRESS_SPACE:
            raise MappingError(f"{describe(region)}: {name.replace('_', ' ')} {begin:#x} plus size wraps past 2^64")
