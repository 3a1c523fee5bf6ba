"""What hostile cases share: descriptors to send and to watch, and messages by number."""

from __future__ import annotations

import os
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from vhostuser.conformance import Failure, Verdict
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.wire.requests import HeaderFlags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.features import ProtocolFeature

HEADER = struct.Struct("=III")
"""Request, flags and size, to be put together by hand."""


def flags_of(peer: Peer) -> int:
    """Header flags as `Peer.survives` wants them this time: version 1, and need_reply or not."""
    return HeaderFlags.VERSION_1 | (HeaderFlags.NEED_REPLY if peer.asking else 0)


@dataclass(frozen=True)
class Raw:
    """A message to be, any number of times: `send` builds it anew.

    Attributes:
        request: its number.
        payload: behind the header.
        flags: of the header; None for what `flags_of` says.
        size: that the header tells; None for the true one.
        fds: makes the descriptors that go with it.
    """

    request: int
    payload: bytes = b""
    flags: int | None = None
    size: int | None = None
    fds: Callable[[], Fds] = lambda: NO_FDS

    @classmethod
    def of(cls, message: Message, fds: Callable[[], Fds] = lambda: NO_FDS) -> Raw:
        """A well-formed message, with descriptors of the caller's choice."""
        return cls(message.spec.request, message.build(), fds=fds)

    async def send(self, peer: Peer, session: Session) -> None:
        """Send it."""
        flags = flags_of(peer) if self.flags is None else self.flags
        await session.send_raw(self.request, self.payload, flags=flags, size=self.size, fds=self.fds())


async def survives_each(
    peer: Peer,
    *messages: Raw,
    may_accept: bool = True,
    prepare: Callable[[Session], Awaitable[None]] | None = None,
    protocol: ProtocolFeature | None = None,
) -> Verdict | None:
    """`Peer.survives` for one message after the other, each on connections of its own.

    Returns:
        REJECT when every one of them was answered by closing the connection.
    """
    verdicts = set()
    for message in messages:

        async def provoke(session: Session, message: Raw = message) -> None:
            await message.send(peer, session)

        verdicts.add(
            await peer.survives(provoke, message.request, may_accept=may_accept, prepare=prepare, protocol=protocol)
        )
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


class Watched:
    """A pipe whose write end goes to the back-end: when every copy of it is closed, our read end says so."""

    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        self._read, self._write = Fd(read_end), Fd(write_end)

    def fds(self, count: int = 1) -> Fds:
        """``count`` descriptors to send; the caller owns them."""
        return Fds(self._write.duplicate() for _ in range(count))

    async def gone(self, within: float) -> bool:
        """Close our own copy, and wait until the back-end has closed all of its."""
        self._write.close()
        with trio.move_on_after(within):
            await trio.lowlevel.wait_readable(self._read.fileno())
            return True
        return False

    def close(self) -> None:
        """Close both ends."""
        self._read.close()
        self._write.close()


@contextmanager
def watched(peer: Peer, *, within: float = 2.0) -> Iterator[WatchedCheck]:
    """Descriptors to send, and the question whether the back-end has closed them, asked by `WatchedCheck.check`."""
    check = WatchedCheck(peer, within)
    try:
        yield check
    finally:
        check.close()


class WatchedCheck:
    """Hands out descriptors and knows afterwards whether any of them is still open over there."""

    def __init__(self, peer: Peer, within: float) -> None:
        self._peer, self._within = peer, within
        self._all: list[Watched] = []

    def fds(self, count: int = 1) -> Fds:
        """``count`` fresh descriptors for one message; the caller owns them."""
        self._all.append(Watched())
        return self._all[-1].fds(count)

    async def check(self, *, keep_open: str = "") -> None:
        """Every descriptor that went over has been closed there.

        Args:
            keep_open: what to say of where they were left.

        Raises:
            Failure: one has not.
        """
        for each in self._all:
            if not await each.gone(self._within):
                raise Failure(f"a file descriptor sent {keep_open or 'to no use'} is still open in the back-end")

    def close(self) -> None:
        """Close our ends."""
        for each in self._all:
            each.close()
