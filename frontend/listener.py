"""The front-end's end of the backend channel: hears what a back-end has to say of its own accord."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from vhostuser.errors import Hint, RemoteProtocolError, VhostUserError
from vhostuser.protocol.reverse import FrontendResponder
from vhostuser.transport.unix import socket_pair
from vhostuser.wire.backend_messages import BackendConfigChangeMsg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vhostuser.fd import Fd
    from vhostuser.protocol.framing import Frame
    from vhostuser.protocol.state import ProtocolState
    from vhostuser.transport.channel import Channel

log = logging.getLogger("frontend.listener")


class BackendListener:
    """Answers a back-end's requests.

    A request is acknowledged first and acted on after: acting may mean asking the back-end something on the main
    channel, and it may be waiting for the acknowledgement meanwhile.

    Args:
        channel: our end of the backend channel, owned from now on.
        state: what both ends have agreed on.
        config_changed: called when configuration space is stale.
    """

    def __init__(self, channel: Channel, state: ProtocolState, config_changed: Callable[[], Awaitable[None]]) -> None:
        self._channel = channel
        self._responder = FrontendResponder(state)
        self._config_changed = config_changed

    @classmethod
    def open(cls, state: ProtocolState, config_changed: Callable[[], Awaitable[None]]) -> tuple[BackendListener, Fd]:
        """A listener, and the descriptor to send with SET_BACKEND_REQ_FD."""
        channel, theirs = socket_pair()
        return cls(channel, state, config_changed), theirs

    async def run(self) -> None:
        """Listen until the back-end closes the channel, or breaks the protocol on it."""
        async with self._channel, trio.open_nursery() as nursery:
            try:
                while True:
                    await self._answer(await self._channel.receive(), nursery)
            except (trio.EndOfChannel, trio.BrokenResourceError):
                return
            except RemoteProtocolError as error:
                log.warning("closing the backend channel: %s", str(error))

    async def _answer(self, frame: Frame, nursery: trio.Nursery) -> None:
        try:
            message = self._responder.receive(frame)
            answer = self._responder.refusal(message) or self._responder.ack()
        except RemoteProtocolError as error:
            if error.hint is Hint.CLOSE:
                raise
            log.warning("refused: %s", str(error))
            answer = self._responder.nack()
        else:
            if isinstance(message, BackendConfigChangeMsg):
                nursery.start_soon(self._refresh)
        finally:
            frame.close()
        if answer is not None:
            await self._channel.send(answer)

    async def _refresh(self) -> None:
        try:
            await self._config_changed()
        except VhostUserError as error:
            log.warning("configuration space could not be read again: %s", str(error))
