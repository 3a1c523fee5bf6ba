"""A dirty log for the back-end to mark: a bit for each page of guest memory ("Migration")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from vhostuser.conformance import Failure
from vhostuser.fd import Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.wire.frontend_messages import SetLogBase

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.session import Session

LOG_PAGE = 4096
"""Bytes of guest memory behind one bit, whatever a page of the host is."""
FILE_UNIT = 4096
BEHIND = 4096
"""Bytes of the file behind the log, which are not the back-end's."""


def log_size(memory: SharedMemory) -> int:
    """Bytes of a log for all of ``memory``, in whole words of eight."""
    end = max(region.guest_addr + region.size for region in memory.regions)
    return -(-end // (64 * LOG_PAGE)) * 8


class DirtyLog:
    """A log that covers all of ``memory``.

    Args:
        memory: the guest's.
        offset: where the log begins in its file.
        size: bytes; by default what it takes, in whole words of eight bytes as QEMU has it.
        file_size: bytes that the file has; by default more than the log takes.

    Attributes:
        view: the file.
        message: SET_LOG_BASE that hands it over.
    """

    def __init__(
        self, memory: SharedMemory, *, offset: int = 0, size: int | None = None, file_size: int | None = None
    ) -> None:
        self.offset, self.size = offset, log_size(memory) if size is None else size
        room = -(-(self.offset + self.size) // FILE_UNIT) * FILE_UNIT + BEHIND if file_size is None else file_size
        self._block = MemoryBackendShm(size=room).allocate()
        self.view = self._block.view
        self.message = SetLogBase(self.size, self.offset)

    def fds(self) -> Fds:
        """What goes with `message`; the caller owns it."""
        return Fds.of(self._block.fd.duplicate())

    async def share(self, session: Session) -> None:
        """SET_LOG_BASE, which LOG_SHMFD has to be negotiated for; its reply is awaited, whatever is in it."""
        await session.send(self.message, self.fds())
        (await session.answer(SetLogBase.spec.request)).fds.close()

    def marked(self, addr: int) -> bool:
        """Is the page of a guest address marked?"""
        page = addr // LOG_PAGE
        return bool(self.view[self.offset + page // 8] >> page % 8 & 1)

    def pages(self) -> set[int]:
        """The numbers of all pages that are marked."""
        log = bytes(self.view[self.offset : self.offset + self.size])
        return {8 * at + bit for at, byte in enumerate(log) if byte for bit in range(8) if byte >> bit & 1}

    def check(self) -> None:
        """Has the back-end kept to the log?

        Raises:
            Failure: it wrote before or behind it.
        """
        end = self.offset + self.size
        for name, part in (("before", self.view[: self.offset]), ("behind", self.view[end:])):
            if any(part):
                raise Failure(f"bytes of the file {name} the log ({self.size} at {self.offset}) were written to")

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
