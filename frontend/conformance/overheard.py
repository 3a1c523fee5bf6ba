"""What a back-end says of its own accord while its device is used: heard on the channel that it was given.

No message makes a back-end speak; use does.  A ring is started and gets a request, which is enough for one that offers
a host notifier, exports an object, or changes its configuration.  Where there are calls in band the call descriptor is
taken away, and with ACCESS_PLATFORM nobody translates the addresses, so that it has to ask.
"""

from __future__ import annotations

import select
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio

from frontend.background import background
from frontend.conformance.bring_up import basic, bring_up
from frontend.conformance.session import DEFAULT_PROTOCOL, REPLY, Answer, Closed
from vhostuser.conformance import Skip, Wedged
from vhostuser.fd import NO_FDS
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import SetVringCall
from vhostuser.wire.records import U64
from vhostuser.wire.requests import BackendRequest, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from frontend.conformance.channel import BackendChannel
    from frontend.conformance.peer import Device, Peer

    Reaction = Callable[[BackendChannel, Answer], Awaitable[None]]

CHANNEL = ProtocolFeature.BACKEND_REQ
GATES = (
    ProtocolFeature.BACKEND_SEND_FD
    | ProtocolFeature.HOST_NOTIFIER
    | ProtocolFeature.SHARED_OBJECT
    | ProtocolFeature.SHMEM
    | ProtocolFeature.INBAND_NOTIFICATIONS
)
"""Features that let it say more."""
ALL = DEFAULT_PROTOCOL | CHANNEL | GATES
LISTENED = 0.1
"""The part of our patience for an answer in which something that is said unasked would be heard."""


class Overheard:
    """A device that is up, and what its back-end has said.

    Attributes:
        device: as it was brought up; with ACCESS_PLATFORM or without a call descriptor it does not do what it is asked.
        channel: our end.
        said: the requests; their descriptors are closed.
    """

    def __init__(self, device: Device, channel: BackendChannel, said: list[Answer], heard: trio.Event) -> None:
        self.device, self.channel, self.said = device, channel, said
        self._heard = heard

    @property
    def owed(self) -> list[Answer]:
        """Those of them that an answer is waited for."""
        return [request for request in self.said if answer_owed(request)]

    async def stir(self) -> None:
        """Use the device, and wait a little for what is said about it."""
        ring = self.device.ring
        ring.add(self.device.request(len(self.said)))
        ring.publish(kick=True)
        with trio.move_on_after(self.device.session.patience * LISTENED):
            await self._heard.wait()

    async def use(self, times: int = 1) -> None:
        """Have a request done so many times, where the device can do any; what is said about it has come by then."""
        ring, session = self.device.ring, self.device.session
        for _ in range(times):
            await self.stir()
            if not session.features & VirtioFeature.ACCESS_PLATFORM:
                with suppress(Wedged):
                    await ring.finish()
        await session.in_sync()
        while select.select([self.channel], [], [], 0)[0]:  # noqa: ASYNC110 - whoever listens has to get a turn
            await trio.sleep(0.001)

    async def speech(self) -> list[Answer]:
        """`stir`, and all that has been said by then.

        Raises:
            Skip: nothing.
        """
        await self.stir()
        await self.device.session.in_sync()
        if not self.said:
            raise Skip("the back-end has said nothing on its channel, though its device was used")
        return self.said


def answer_owed(request: Answer) -> bool:
    """Whether the front-end has to answer: where it is asked to, and a lookup in any case."""
    return bool(request.flags & HeaderFlags.NEED_REPLY) or request.request == BackendRequest.SHARED_OBJECT_LOOKUP


def answering(value: int) -> Reaction:
    """``value`` to whoever asks for an answer; a lookup, with which a 0 would bear a descriptor, finds nothing."""

    async def react(channel: BackendChannel, request: Answer) -> None:
        if answer_owed(request):
            told = value or int(request.request == BackendRequest.SHARED_OBJECT_LOOKUP)
            await channel.send_raw(request.request, U64(told).build(), flags=REPLY)

    return react


async def silent(channel: BackendChannel, request: Answer) -> None:
    """No answer at all."""
    await trio.lowlevel.checkpoint()


POLITE = answering(0)


@asynccontextmanager
async def overheard(
    peer: Peer, *, protocol: ProtocolFeature = ALL, react: Reaction = POLITE
) -> AsyncIterator[Overheard]:
    """A device that is up, with a channel that somebody listens to.

    Args:
        peer: the back-end.
        protocol: features to negotiate, where they are offered.
        react: what is done about each request.
    """
    virtio = basic(peer) | VirtioFeature.ACCESS_PLATFORM
    session = await peer.negotiated(virtio, protocol)
    channel = await peer.channel(session)
    said: list[Answer] = []
    heard = trio.Event()

    async def listen() -> None:
        while True:
            try:
                request = await channel.receive(within=float("inf"))
                said.append(request)
                request.fds.close()
                heard.set()
                await react(channel, request)
            except Closed:
                return

    async with background() as nursery:
        nursery.start_soon(listen)
        device = await bring_up(peer, session, peer.memory())
        if session.protocol & ProtocolFeature.INBAND_NOTIFICATIONS:
            for ring in device.rings:
                await session.tell(SetVringCall.of(ring.index, no_fd=True), NO_FDS)
        yield Overheard(device, channel, said, heard)
