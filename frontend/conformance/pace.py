"""Sending in pieces that really arrive as pieces.

Two sends in a row may be one read at the other end.  Whether the back-end has read what was sent is known to the
kernel, so nobody needs to sleep and hope.
"""

from __future__ import annotations

import fcntl
import struct
import sys
import termios
from typing import TYPE_CHECKING

import trio

from vhostuser.fd import NO_FDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from frontend.conformance.session import Session
    from vhostuser.fd import Fds

LONGEST = 0.02
"""Seconds to wait at most: some back-ends leave a piece in the socket until there is more of it."""
LOOK_AGAIN = 0.0005
_UNREAD = struct.Struct("=i")


async def send_apart(session: Session, pieces: Iterable[bytes], fds: Fds = NO_FDS) -> None:
    """Send ``pieces`` so that the back-end sees one after the other; ``fds`` go with the first and are owned."""
    for piece in pieces:
        await session.send_bytes(piece, fds)
        fds = NO_FDS
        await has_read(session)


async def has_read(session: Session, *, within: float = LONGEST) -> bool:
    """Wait until the back-end has read all that was sent; False when it has not in time, or nobody can tell."""
    with trio.move_on_after(within):
        while _unread(session) != 0:  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(LOOK_AGAIN)
        return True
    return False


def _unread(session: Session) -> int | None:
    """What of our bytes is still in the socket (SIOCOUTQ), in units of the kernel's; None where it does not tell."""
    if sys.platform != "linux":
        return None
    found: int = _UNREAD.unpack(fcntl.ioctl(session.fileno(), termios.TIOCOUTQ, bytes(_UNREAD.size)))[0]
    return found
