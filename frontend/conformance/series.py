"""Long series of messages: sent in batches, a fence behind each, on as many connections as it takes.

A back-end may close the connection over whatever it does not like; then the series goes on over the next one.  It is
given up, and what was done counts, when it is clear how the back-end takes it: a program that ends with every such
connection would otherwise be started thousands of times.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from frontend.conformance.session import Closed
from vhostuser.conformance import Failure, Verdict
from vhostuser.wire.frontend_messages import GetFeatures

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session
    from vhostuser.fd import Fds

BATCH = 20
CONNECTIONS = 400
"""Connections that may be closed over a series."""
PROGRAMS = 15
"""Programs that may end over it."""


class Series:
    """A series against ``peer``.

    Attributes:
        sent: messages so far.
        closed: connections that the back-end closed.
        programs: how many programs had a part in it.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._pids: set[int | None] = set()
        self.sent = self.closed = 0

    @property
    def programs(self) -> int:
        """How many programs were seen."""
        return len(self._pids)

    async def run(
        self,
        count: int,
        begin: Callable[[], Awaitable[Session]],
        batch: Callable[[Session, int], Awaitable[None]],
    ) -> Verdict | None:
        """Have ``count`` messages sent.

        Args:
            count: of messages.
            begin: makes a connection ready.
            batch: sends that many messages on one; GET_FEATURES is not among them.

        Returns:
            REJECT when every connection was closed before anything was answered on it, else None.

        Raises:
            Failure: the program was killed by a signal; says by which messages.
            Wedged: it does not answer any more.
        """
        peer = self._peer
        answered = False
        while self.sent < count and self.closed < CONNECTIONS and self.programs <= PROGRAMS:
            try:
                session = await begin()
                self._pids.add(peer.target.pid)
                while self.sent < count:
                    number = min(BATCH, count - self.sent)
                    self.sent += number
                    await batch(session, number)
                    await fence(session)
                    answered = True
            except Closed:
                self.closed += 1
            peer.hang_up()
            self._check_alive()
        peer.note(f"{self.sent} messages; closed {self.closed} connections over them")
        await peer.alive()
        return None if answered else Verdict.REJECT

    def _check_alive(self) -> None:
        if (status := self._peer.target.exited()) is not None and status < 0:
            first = max(0, self.sent - BATCH)
            raise Failure(f"signal {-status} killed the back-end, over messages {first} to {self.sent} of the series")


async def fence(session: Session) -> None:
    """GET_FEATURES is answered; what comes before the answer is thrown away."""
    await session.send(GetFeatures())
    (await session.answer(GetFeatures.spec.request)).fds.close()
    session.strays.clear()


async def together(session: Session, messages: Sequence[tuple[bytes, Fds]]) -> None:
    """Send messages, whole ones in bytes, with as few calls as it takes: descriptors go with the one they belong to.

    The descriptors are owned and closed here.
    """
    with ExitStack() as owned:
        for _, fds in messages:
            owned.enter_context(fds)
        waiting = b""
        for data, fds in messages:
            if fds:
                await session.send_bytes(waiting)
                await session.send_bytes(data, fds)
                waiting = b""
            else:
                waiting += data
        await session.send_bytes(waiting)
