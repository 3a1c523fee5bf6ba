"""What can be wrong with what a back-end says of its own accord."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.deviations import PLAIN, a_pipe, deviates, frame
from tests.conformance.backends.talkative import Fickle, Talkative
from vhostuser.errors import RemoteProtocolError
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.transport.unix import adopt_channel
from vhostuser.wire.frontend_messages import SetBackendReqFd, SetVringEnable
from vhostuser.wire.records import VringArea
from vhostuser.wire.requests import BackendRequest, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import Message


class Mumbling(Talkative):
    """Says something else than `Talkative` when a ring is enabled."""

    def words(self, index: int) -> Frame | None:
        """What it says."""
        raise NotImplementedError

    async def _offer(self, index: int) -> None:
        words = self.words(index)
        if self._talk is not None and words is not None:
            await self._talk.send(words)


def area(index: int, size: int, flags: HeaderFlags = PLAIN, fds: Fds = NO_FDS) -> Frame:
    """A host notifier by hand."""
    payload = VringArea(index | 0x100 * (not fds), size, 0).build()
    return frame(BackendRequest.VRING_HOST_NOTIFIER_MSG, payload, flags, fds)


@deviates("B-CH-02", Fickle)
class NoVersion(Mumbling):
    """Its requests have version 2."""

    def words(self, index: int) -> Frame | None:
        return area(index, 0, HeaderFlags(2))


@deviates("B-CH-03", Fickle)
class OnTheWrongChannel(Talkative):
    """Asks on the main channel when it has no other."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        if isinstance(message, SetVringEnable) and self._talk is None:
            self.protocol.nack()
            return area(0, 0)
        return await super()._act(message, received)


@deviates("B-CH-04", Fickle)
class Unasked(Mumbling):
    """Offers a host notifier that nobody negotiated."""

    def words(self, index: int) -> Frame | None:
        return area(index, 0)


@deviates("B-CH-05", Fickle)
class Impatient(Mumbling):
    """Wants acknowledgements that were not negotiated."""

    def words(self, index: int) -> Frame | None:
        return area(index, 0, PLAIN | HeaderFlags.NEED_REPLY)


@deviates("B-CH-06", Fickle)
class Generous(Mumbling):
    """Sends descriptors that were not negotiated."""

    def words(self, index: int) -> Frame | None:
        return area(index, 4096, PLAIN, a_pipe())


@deviates("B-CH-08", Fickle)
class EasilyHurt(Talkative):
    """Hangs up when it is refused something."""

    async def _offer(self, index: int) -> None:
        assert self._talk is not None
        await self._talk.send(area(index, 0, PLAIN | HeaderFlags.NEED_REPLY))
        answer = await self._talk.receive()
        if any(answer.payload):
            raise RemoteProtocolError("found a refusal, expected gratitude")


@deviates("B-CH-09", Fickle)
class OneThingAtATime(Talkative):
    """Reads no message while it waits for an acknowledgement."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        answer = await super()._act(message, received)
        if isinstance(message, SetVringEnable) and self._talk is not None:
            await self._talk.send(area(message.index, 0, PLAIN | HeaderFlags.NEED_REPLY))
            with suppress(trio.EndOfChannel):
                await self._talk.receive()
        return answer

    async def _offer(self, index: int) -> None:
        await trio.lowlevel.checkpoint()


@deviates("B-CH-11", Fickle)
class Collector(Talkative):
    """Keeps every channel that it was ever given."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        if isinstance(message, SetBackendReqFd):
            self._nursery.start_soon(self._keep, received.fds[0].duplicate())
        return await super()._act(message, received)

    async def _keep(self, fd: Fd) -> None:
        async with adopt_channel(fd):
            await trio.sleep_forever()


@deviates("B-CH-15", Fickle)
class HalfAPage(Mumbling):
    """Its host notifiers are smaller than a page."""

    def words(self, index: int) -> Frame | None:
        return area(index, 2048, PLAIN, a_pipe())
