"""Our end of the back-end channel: what the back-end asks of its own accord, and what it is answered.

Here the roles are the other way round, so `Session` with its fence does not fit: a request comes when it comes.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, TypeVar

from frontend.conformance.session import REPLY, Answer, Session
from vhostuser.conformance import Failure
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.wire.records import U64
from vhostuser.wire.requests import HeaderFlags, Role
from vhostuser.wire.schema import FormatError

if TYPE_CHECKING:
    from frontend.conformance.log import Recorder
    from vhostuser.wire.catalog import Message

    M = TypeVar("M", bound=Message)

__all__ = ["BackendChannel", "channel_pair"]


def channel_pair(recorder: Recorder, *, patience: float = 2.0) -> tuple[BackendChannel, Fds]:
    """Our end, and what goes with SET_BACKEND_REQ_FD, which the caller owns."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    return BackendChannel(ours, recorder, patience=patience), Fds.of(Fd(theirs.detach()))


class BackendChannel(Session):
    """The front-end's end of the channel: `receive` gives requests, `reply` answers them.

    Args:
        sock: our end, non-blocking; owned from now on.
        recorder: gets everything that passes.
        patience: seconds to wait for a request that is owed.
    """

    def __init__(self, sock: socket.socket, recorder: Recorder, *, patience: float = 2.0) -> None:
        super().__init__(sock, recorder, patience=patience, requester=Role.BACKEND)

    async def expect(self, kind: type[M], *, within: float | None = None) -> tuple[M, Answer]:
        """The next request, which has to be a ``kind`` in good form; as a message, and as it came, to be answered.

        Raises:
            Closed: the back-end hung up instead.
            Wedged: nothing came in time.
            Failure: another request came, or a malformed one.
        """
        name = kind.spec.name
        request = await self.receive(within=within, what=name)
        if request.request != kind.spec.request:
            request.fds.close()
            raise Failure(f"on the back-end channel: found request {request.request}, expected {name}")
        if request.flags & ~HeaderFlags.NEED_REPLY != HeaderFlags.VERSION_1:
            raise Failure(f"{name}: found flags {request.flags:#x}, expected 0x1 or 0x9")
        try:
            return kind.parse(request.payload), request
        except FormatError as error:
            raise Failure(f"{name}: {error}") from None

    async def reply(self, request: Answer, value: int = 0, fds: Fds = NO_FDS) -> None:
        """Answer ``request`` with a u64 if it asks for an answer; ``fds`` are owned and closed here."""
        if request.flags & HeaderFlags.NEED_REPLY:
            await self.send_raw(request.request, U64(value).build(), flags=REPLY, fds=fds)
        else:
            fds.close()
