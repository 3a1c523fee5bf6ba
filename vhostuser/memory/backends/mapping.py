"""How a block of guest memory is mapped: shared or private, writable or not, aligned, synchronous.

A `Mapping` is owned by an ``mmap`` object, as everywhere in this package: it goes with its last view.  That holds for
aligned memory too.  ``mmap`` chooses addresses in multiples of a page; for more, a larger piece of address space is
reserved, made untouchable, and the memory put over the part of it that begins at the right place.  What is left at
both ends stays untouchable.
"""

from __future__ import annotations

import errno
import mmap
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vhostuser.memory.address import address_of
from vhostuser.memory.backends import libc
from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.pages import round_up, say_free_huge_pages

if TYPE_CHECKING:
    from vhostuser.fd import Fd

# Before 3.13 each mmap object keeps a duplicate of its descriptor, for resize(), which we never call.
_UNTRACKED: Final[dict[str, Any]] = {"trackfd": False} if sys.version_info >= (3, 13) else {}


@dataclass(frozen=True, kw_only=True)
class Backing:
    """What a backend has opened, and how it is to be mapped.

    Attributes:
        fd: still owned by whoever opened it; None for anonymous memory.
        page_size: bytes in a page of it.
        offset: where in the file the memory begins; bytes, whole pages.
        align: the memory's address is a multiple of this; 0 for a page.
        writable: false for memory that the guest sees as ROM.
        synchronous: ask for MAP_SYNC.
        discard: what is in the file is worth nothing once the memory is closed.
        name: what it was called for an instant; empty if it never had a name.
    """

    fd: Fd | None
    page_size: int = mmap.PAGESIZE
    offset: int = 0
    align: int = 0
    writable: bool = True
    synchronous: bool = False
    discard: bool = False
    name: str = ""

    @property
    def huge(self) -> bool:
        """Whether it is made of huge pages."""
        return self.page_size > mmap.PAGESIZE


class _Plan(NamedTuple):
    """The arguments of ``mmap``, but for the address."""

    fd: int
    size: int
    flags: int
    prot: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """Mapped memory.

    Attributes:
        owner: what is unmapped with its last view.
        begin: where in ``owner`` the memory begins; 0 unless it is aligned.
        size: bytes.
        page_size: bytes in a page of it.
        writable: whether it is mapped with PROT_WRITE.
        shared: whether what is written reaches the file.
        synchronous: whether it is mapped with MAP_SYNC.
    """

    owner: mmap.mmap
    begin: int
    size: int
    page_size: int
    writable: bool
    shared: bool
    synchronous: bool = False

    @classmethod
    def make(cls, backing: Backing, size: int, *, share: bool, reserve: bool) -> Mapping:
        """Map it.  The mapping does not need the descriptor any more afterwards.

        Raises:
            MemoryBackendError: the system refuses.
        """
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if backing.writable else 0)
        flags = (mmap.MAP_SHARED if share else mmap.MAP_PRIVATE) | (0 if reserve else libc.MAP_NORESERVE)
        fd = -1 if backing.fd is None else backing.fd.fileno()
        plan = _Plan(fd, size, flags | (mmap.MAP_ANONYMOUS if fd < 0 else 0), prot, backing.offset)
        try:
            synchronous = None
            if backing.synchronous and share:
                synchronous = _map_synchronously(plan, backing.align)
            owner, begin = synchronous or _map(plan, backing.align)
        except (OSError, ValueError, OverflowError) as error:
            why = _why_not(error, backing)
            raise MemoryBackendError(f"unable to map {size:#x} bytes of guest RAM: {why}") from error
        return cls(owner, begin, size, backing.page_size, backing.writable, share, synchronous is not None)

    @property
    def view(self) -> memoryview:
        """All bytes; read-only if the mapping is.  Holding it keeps the mapping alive."""
        return memoryview(self.owner)[self.begin : self.begin + self.size]

    @property
    def huge(self) -> bool:
        """Whether it is made of huge pages."""
        return self.page_size > mmap.PAGESIZE

    @property
    def address(self) -> int:
        """Where it begins in this process."""
        return address_of(self.owner) + self.begin

    def advise(self, advice: int) -> None:
        """``madvise`` for all of it.

        Raises:
            OSError: the system does not know the advice, or cannot follow it.
        """
        # In whole pages: a part of a huge page is refused, and the rest of the last page is ours anyway.
        libc.advise(self.address, round_up(self.size, self.page_size), advice)

    def flush(self, offset: int, length: int) -> None:
        """``msync`` the pages that these bytes lie in, and wait until the file system has them.

        Raises:
            OSError: it could not store them.
        """
        start = offset - offset % self.page_size
        self.owner.flush(self.begin + start, min(round_up(offset + length, self.page_size), self.size) - start)


def _map(plan: _Plan, align: int) -> tuple[mmap.mmap, int]:
    """Map, as (owner, where in it the memory begins)."""
    if align > mmap.ALLOCATIONGRANULARITY:
        return _map_aligned(plan, align)
    owner = mmap.mmap(plan.fd, plan.size, flags=plan.flags, prot=plan.prot, offset=plan.offset, **_UNTRACKED)
    return owner, 0


def _map_aligned(plan: _Plan, align: int) -> tuple[mmap.mmap, int]:
    # With the protection that the memory will have, for Python decides by it whether the views are read-only.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | libc.MAP_NORESERVE
    owner = mmap.mmap(-1, plan.size + align, flags=flags, prot=plan.prot)
    start = address_of(owner)
    libc.forbid(start, len(owner))
    address = round_up(start, align)
    libc.map_over(address, plan.size, plan.prot, plan.flags, plan.fd, plan.offset)
    return owner, address - start


def _map_synchronously(plan: _Plan, align: int) -> tuple[mmap.mmap, int] | None:
    """Map with MAP_SYNC; None where the file system, or the system, has no such thing."""
    flags = plan.flags & ~mmap.MAP_SHARED | libc.MAP_SHARED_VALIDATE | libc.MAP_SYNC
    try:
        return _map(plan._replace(flags=flags), align)
    except OSError:
        return None  # whatever the reason: if it is another, then the ordinary mapping fails as well and says so


def _why_not(error: Exception, backing: Backing) -> str:
    if backing.huge and isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return f"{error}; {say_free_huge_pages(backing.page_size)}"
    return str(error)
