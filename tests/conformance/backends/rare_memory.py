"""Where the addresses in a ring lead, for a back-end with an IOMMU, a dirty log, and Xen's way to map memory.

`AddressSpace.views` and `stretch` are all that a device queue wants of its memory.  Behind them one step follows the
other: I/O virtual address, user address, region; and what was found last is remembered by guest address, for the log.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

from vhostuser.errors import VhostUserError
from vhostuser.memory.map import GuestAddr, GuestAddressError, GuestMemory, UserAddr
from vhostuser.wire.records import IotlbPermission, MemoryRegion, XenMmapFlags

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vhostuser.fd import Fd, Fds
    from vhostuser.wire.frontend_messages import IotlbMsg
    from vhostuser.wire.records import Iotlb, Log, XenMemoryRegion

LOG_PAGE = 4096


class Miss(VhostUserError):
    """An I/O virtual address without entry; the front-end has to be asked."""

    def __init__(self, iova: int) -> None:
        super().__init__(f"no entry for {iova:#x}")
        self.iova = iova


class BadEntry(VhostUserError):
    """A message about addresses that make no sense."""


class DirtyLog:
    """The front-end's dirty log.

    Raises:
        BadEntry: its file does not have what the message says.
    """

    def __init__(self, told: Log, fd: Fd) -> None:
        there = os.fstat(fd.fileno()).st_size
        if not 0 < told.size <= there or told.offset > there - told.size:
            raise BadEntry(f"a log of {told.size} bytes at {told.offset} in a file of {there}")
        whole = mmap.mmap(fd.fileno(), there)
        self.file = memoryview(whole)[told.offset :]
        self.size = told.size

    @property
    def end(self) -> int:
        """The first page that it has no bit for."""
        return 8 * self.size

    def mark(self, addr: int, length: int) -> None:
        """Mark the pages of a range of guest addresses, as far as the log goes."""
        for page in range(addr // LOG_PAGE, (addr + max(length, 1) - 1) // LOG_PAGE + 1):
            if page < self.end:
                self.set(page)

    def set(self, page: int) -> None:
        """Set a page's bit."""
        self.file[page // 8] |= 1 << page % 8


class OnDemand:
    """Memory of which each piece is mapped for as long as somebody looks at it (bit 8 of Xen's flags).

    Args:
        regions: of the table.
        fds: one each; owned from now on.
    """

    def __init__(self, regions: Sequence[MemoryRegion], fds: Fds) -> None:
        self._fds = fds.take_all()
        self._parts = list(zip(regions, self._fds, strict=True))

    def close(self) -> None:
        """Close the files; pieces stay for as long as somebody looks at them."""
        self._fds.close()

    def views(self, addr: int, length: int) -> list[memoryview]:
        """As `GuestMemory.views`, within one region."""
        return [self._piece("guest_addr", addr, length)] if length else []

    def user_view(self, user: int, length: int) -> memoryview:
        """As `GuestMemory.user_view`."""
        return self._piece("user_addr", user, length)

    def guest_addr(self, user: int) -> int:
        """As `GuestMemory.guest_addr`."""
        for region, _ in self._parts:
            if 0 <= user - region.user_addr < region.size:
                return region.guest_addr + user - region.user_addr
        raise GuestAddressError(user, 1, "in no region")

    def _piece(self, kind: str, addr: int, length: int) -> memoryview:
        for region, fd in self._parts:
            start = addr - getattr(region, kind)
            if start >= 0 and start + length <= region.size:
                at = region.mmap_offset + start
                skip = at % mmap.ALLOCATIONGRANULARITY
                piece = mmap.mmap(fd.fileno(), skip + length, offset=at - skip)
                return memoryview(piece)[skip:]
        raise GuestAddressError(addr, length, "in no region")


class AddressSpace:
    """What the front-end has told of memory.

    Attributes:
        translating: ring and descriptor addresses are I/O virtual.
        log: where writes are marked; None when nothing is logged.
        seen: guest addresses and lengths of what `views` has found since somebody cleared it.
    """

    def __init__(self) -> None:
        self.translating = False
        self.log: DirtyLog | None = None
        self.seen: list[tuple[int, int]] = []
        self._memory: GuestMemory | OnDemand = GuestMemory.EMPTY
        self._entries: list[Iotlb] = []

    # --- what it is told ---

    def release(self) -> None:
        """Forget all memory."""
        if isinstance(self._memory, OnDemand):
            self._memory.close()
        self._memory = GuestMemory.EMPTY

    def replace(self, regions: Sequence[MemoryRegion | XenMemoryRegion], fds: Fds) -> None:
        """A new memory table."""
        plain = [MemoryRegion(each.guest_addr, each.size, each.user_addr, each.mmap_offset) for each in regions]
        flags = [getattr(each, "xen_flags", 0) for each in regions]
        self.release()
        if any(each & XenMmapFlags.NO_ADVANCE_MAP for each in flags):
            self._memory = OnDemand(plain, fds)
        else:
            self._memory = GuestMemory.map(plain, fds.take_all())

    def update(self, entry: IotlbMsg) -> None:
        """A new entry, in the place of older ones for the same addresses.

        Raises:
            BadEntry: it leads to no memory.
        """
        if not 0 < entry.size <= (1 << 64) - entry.iova:
            raise BadEntry(f"an entry of {entry.size:#x} bytes at {entry.iova:#x}")
        self._memory.user_view(UserAddr(entry.user_addr), entry.size)
        self.invalidate(entry)
        self._entries.append(entry)

    def invalidate(self, entry: IotlbMsg) -> None:
        """Forget all entries that touch these addresses: the rest of them can be asked for again."""
        end = entry.iova + entry.size
        self._entries = [each for each in self._entries if each.iova + each.size <= entry.iova or each.iova >= end]

    # --- what it tells ---

    def views(self, addr: GuestAddr, length: int) -> list[memoryview]:
        """The bytes at a descriptor's address; those that may not be written to are read-only.

        Raises:
            Miss: an entry is missing.
            GuestAddressError: there is no such memory.
        """
        if not self.translating:
            self.seen.append((addr, length))
            return self._memory.views(addr, length)
        found = []
        for user, size, permission in self._pieces(addr, length):
            view = self._memory.user_view(UserAddr(user), size)
            self.seen.append((self._memory.guest_addr(UserAddr(user)), size))
            found.append(view if permission & IotlbPermission.WRITE else view.toreadonly())
        return found

    def stretch(self, addr: GuestAddr) -> tuple[int, int, memoryview]:
        """As `GuestMemory.stretch`: always an empty one, so that each address is asked for by itself."""
        return 0, 0, memoryview(b"")

    def part(self, addr: int, length: int) -> memoryview:
        """A part of a ring, which lies in one piece.

        Raises:
            Miss: an entry is missing.
            GuestAddressError: there is no such memory, or not in one piece.
        """
        if self.translating:
            (addr, size, _), *more = self._pieces(addr, length)
            if more:
                raise GuestAddressError(addr, size, "a part of a ring in several pieces")
        return self._memory.user_view(UserAddr(addr), length)

    def guest_addr(self, addr: int) -> int:
        """The guest address of a part of a ring."""
        user = next(self._pieces(addr, 1))[0] if self.translating else addr
        return self._memory.guest_addr(UserAddr(user))

    def _pieces(self, iova: int, length: int) -> Iterator[tuple[int, int, IotlbPermission]]:
        while length > 0:
            entry = next((each for each in self._entries if 0 <= iova - each.iova < each.size), None)
            if entry is None:
                raise Miss(iova)
            skip = iova - entry.iova
            size = min(length, entry.size - skip)
            yield entry.user_addr + skip, size, entry.permission
            iova, length = iova + size, length - size
