"""Guest memory for tests: bytes of this process at guest addresses of our choice, with a guard around each region.

Nothing has to be shared or mapped, and a step outside shows.
"""

from __future__ import annotations

from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.wire.records import MemoryRegion

_GUARD = 64
_CANARY = 0xA5


class GuardedMemory:
    """Guest memory of this process's own bytes, with guard bytes around each region.

    Args:
        regions: guest address and size of each; neighbours may touch, as regions of a guest do.

    Attributes:
        guest: the same bytes as a device sees them.
    """

    def __init__(self, *regions: tuple[int, int]) -> None:
        self._storage = [bytearray([_CANARY]) * (size + 2 * _GUARD) for _, size in regions]
        views = [memoryview(storage)[_GUARD:-_GUARD] for storage in self._storage]
        pairs = zip(regions, views, strict=True)
        self.guest = GuestMemory.of(*((MemoryRegion(addr, size, addr, 0), view) for (addr, size), view in pairs))
        for view in views:
            view[:] = bytes(len(view))

    def view(self, addr: int, length: int) -> memoryview:
        """The bytes at ``addr``, inside one region."""
        return self.guest.view(GuestAddr(addr), length)

    def read(self, addr: int, length: int) -> bytes:
        """A copy of the bytes at ``addr``."""
        return b"".join(self.guest.views(GuestAddr(addr), length))

    def write(self, addr: int, data: bytes) -> None:
        """Put ``data`` at ``addr``."""
        self.view(addr, len(data))[:] = data

    @property
    def intact(self) -> bool:
        """True while nobody has written outside the regions."""
        guard = bytes([_CANARY]) * _GUARD
        return all(storage[:_GUARD] == guard == storage[-_GUARD:] for storage in self._storage)
