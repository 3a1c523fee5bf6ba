"""The log of a case: everything that went over its connections, and notes of what was done beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from vhostuser.conformance import Exchange
from vhostuser.trace.decode import Decoder
from vhostuser.transport.channel import Direction
from vhostuser.wire.requests import Role

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.transport.channel import Observer

SHOWN = 512
"""Bytes of a message that are kept."""
MOST = 2000
"""Exchanges that are kept; a case that sends a hundred thousand messages is not told one by one."""


class Recorder:
    """Collects the exchanges of one case.

    Attributes:
        exchanges: what happened, in order.
    """

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self._begin = trio.current_time()
        self._connections = 0
        self._dropped = 0

    def observer(self, *, requester: Role = Role.FRONTEND) -> Observer:
        """What a new channel is to tell its frames to; counts as a connection of its own."""
        decoder, connection = Decoder(requester=requester), self._connections
        self._connections += 1

        def observe(direction: Direction, frame: Frame) -> None:
            if self._full():
                return
            sender = Role.FRONTEND if direction is Direction.SENT else Role.BACKEND
            words = decoder.decode(sender, frame)
            self._add(connection, direction.value, str(words), frame.build(), [str(fd) for fd in words.descriptors])

        return observe

    def note(self, text: str, *, connection: int = 0, data: bytes = b"") -> None:
        """Something that was done or seen, and is not a message."""
        self._add(connection, "note", text, data, [])

    def _add(self, connection: int, direction: str, text: str, data: bytes, fds: list[str]) -> None:
        if self._full():
            return
        seconds = trio.current_time() - self._begin
        self.exchanges.append(
            Exchange(
                seconds=seconds,
                connection=connection,
                direction=direction,
                text=text,
                data=data[:SHOWN],
                size=len(data),
                fds=fds,
            )
        )

    def _full(self) -> bool:
        """No more is kept, and not even decoded: only counted."""
        full = len(self.exchanges) >= MOST
        self._dropped += full
        return full

    def finish(self) -> list[Exchange]:
        """The whole log."""
        if self._dropped:
            last, self._dropped = self._dropped, 0
            self.exchanges.append(
                Exchange(
                    seconds=trio.current_time() - self._begin,
                    connection=0,
                    direction="note",
                    text=f"{last} more exchanges",
                )
            )
        return self.exchanges
