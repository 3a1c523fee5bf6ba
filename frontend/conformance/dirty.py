"""A dirty log for the back-end to mark: a bit for each page of guest memory ("Migration")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from vhostuser.fd import Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.wire.frontend_messages import SetLogBase

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.session import Session

LOG_PAGE = 4096
"""Bytes of guest memory behind one bit, whatever a page of the host is."""
FILE_UNIT = 4096


class DirtyLog:
    """A log that covers all of ``memory``.

    Args:
        memory: the guest's.
        offset: where the log begins in its file.
        size: bytes; by default what it takes.

    Attributes:
        view: the file.
    """

    def __init__(self, memory: SharedMemory, *, offset: int = 0, size: int | None = None) -> None:
        end = max(region.guest_addr + region.size for region in memory.regions)
        self.offset, self.size = offset, -(-end // (8 * LOG_PAGE)) if size is None else size
        room = -(-(self.offset + self.size) // FILE_UNIT) * FILE_UNIT
        self._block = MemoryBackendShm(size=room).allocate()
        self.view = self._block.view

    async def share(self, session: Session) -> None:
        """SET_LOG_BASE, which LOG_SHMFD has to be negotiated for; its reply is awaited, whatever is in it."""
        await session.send(SetLogBase(self.size, self.offset), Fds.of(self._block.fd.duplicate()))
        (await session.answer(SetLogBase.spec.request)).fds.close()

    def marked(self, addr: int) -> bool:
        """Is the page of a guest address marked?"""
        page = addr // LOG_PAGE
        return bool(self.view[self.offset + page // 8] >> page % 8 & 1)

    def pages(self) -> set[int]:
        """The numbers of all pages that are marked."""
        log = bytes(self.view[self.offset : self.offset + self.size])
        return {8 * at + bit for at, byte in enumerate(log) if byte for bit in range(8) if byte >> bit & 1}

    def clear(self) -> None:
        """Forget all marks."""
        self.view[:] = bytes(len(self.view))

    def close(self) -> None:
        """Close the descriptor; the mapping lives as long as the view."""
        self._block.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
