"""What a back-end says on its channel (B-CH-01 to 09, and 15)."""

from __future__ import annotations

import mmap
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.overheard import ALL, CHANNEL, answering, overheard, silent
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Skip
from vhostuser.wire.backend_messages import BackendVringHostNotifierMsg
from vhostuser.wire.features import ProtocolFeature, names
from vhostuser.wire.messages import CATALOG
from vhostuser.wire.requests import VERSION_MASK, BackendRequest, HeaderFlags, Role
from vhostuser.wire.schema import FormatError

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Answer
    from vhostuser.wire.catalog import MessageSpec

REPLY_ACK = ProtocolFeature.REPLY_ACK
SEND_FD = ProtocolFeature.BACKEND_SEND_FD
MOST_FDS = 8
USE = "the device is used while somebody listens on the channel"
NOBODY_WAITS = "the back-end has asked for no acknowledgement on its channel"

channel_case = partial(case, section="Back-end communication", needs=(Need.CHANNEL,), tags=("channel",))


def spec_of(request: Answer) -> MessageSpec | None:
    """Its row in the catalogue of messages."""
    return CATALOG.get((Role.BACKEND, request.request))


def name_of(request: Answer) -> str:
    """What to call it."""
    spec = spec_of(request)
    return spec.name if spec else f"request {request.request}"


@channel_case(
    "B-CH-01",
    level=Level.MUST,
    section="msg SET_BACKEND_REQ_FD",
    title="SET_BACKEND_REQ_FD is accepted",
    provoke="SET_BACKEND_REQ_FD with one end of a socket pair",
    passes="acknowledged with 0 where acknowledgements are negotiated; the device works",
)
async def accepted(peer: Peer) -> None:
    """The feature was offered, so that it is there for."""
    session = await peer.negotiated(protocol=ALL)
    await peer.channel(session)
    await session.in_sync()


@channel_case(
    "B-CH-02",
    level=Level.MUST,
    section="Header",
    title="Requests of the back-end are well-formed",
    provoke=USE,
    passes="request codes 1 to 10, version 1, no reply bit, and a payload that fits the code",
)
async def well_formed(peer: Peer) -> None:
    """On this channel the back-end is the one who has to be understood."""
    async with overheard(peer) as heard:
        for request in await heard.speech():
            spec = spec_of(request)
            if spec is None:
                raise Failure(f"on the back-end channel: found request {request.request}, expected 1 to 10")
            flags = request.flags & (VERSION_MASK | HeaderFlags.REPLY)
            equal(f"version and reply bit in the flags of {spec.name}", flags, 1)
            try:
                spec.payload(heard.device.session.protocol).parse(request.payload)
            except FormatError as error:
                raise Failure(f"{spec.name}: {error}") from None


@channel_case(
    "B-CH-03",
    level=Level.MUST,
    title="Nothing is asked before there is a channel",
    provoke="the device is used, and no channel was given",
    passes="on the main channel there is nothing but answers",
)
async def not_on_the_main_channel(peer: Peer) -> None:
    """The main channel is for the front-end's requests: one that comes from the other side is taken for an answer."""
    async with peer.device(protocol=ALL & ~ProtocolFeature.INBAND_NOTIFICATIONS) as device:
        await device.works(3)
        await device.session.in_sync()
        if stray := next(iter(device.session.strays), None):
            raise Failure(f"on the main channel: found request {stray.request}, expected nothing but answers")


@channel_case(
    "B-CH-04",
    level=Level.SHOULD,
    title="Only what was negotiated is asked",
    provoke=f"{USE}; CONFIG and all that lets it say more was not negotiated",
    passes="nothing is asked that needs a feature which was not negotiated",
)
async def gated(peer: Peer) -> None:
    """A front-end that did not negotiate a feature has no code for its messages, and may hang up."""
    async with overheard(peer, protocol=ProtocolFeature.MQ | REPLY_ACK | CHANNEL) as heard:
        await heard.stir()
        session = heard.device.session
        await session.in_sync()
        for request in heard.said:
            spec = spec_of(request)
            if spec is not None and (missing := spec.needs & ~session.protocol):
                without = ", ".join(names(missing, ProtocolFeature))
                raise Failure(f"found {spec.name}, expected none: {without} was not negotiated")


@channel_case(
    "B-CH-05",
    level=Level.ROBUSTNESS,
    section="REPLY_ACK",
    title="Acknowledgements are asked for only where they are negotiated",
    provoke=f"{USE}; REPLY_ACK was not negotiated",
    passes="bit 3 of the flags is clear; SHARED_OBJECT_LOOKUP is answered anyway",
)
async def no_need_reply(peer: Peer) -> None:
    """The answer never comes, and who waits for it waits for ever."""
    protocol = ALL & ~REPLY_ACK & ~ProtocolFeature.INBAND_NOTIFICATIONS
    async with overheard(peer, protocol=protocol) as heard:
        for request in await heard.speech():
            if request.flags & HeaderFlags.NEED_REPLY and request.request != BackendRequest.SHARED_OBJECT_LOOKUP:
                raise Failure(f"flags of {name_of(request)}: found {request.flags:#x} without REPLY_ACK, expected 0x1")


@channel_case(
    "B-CH-06",
    level=Level.MUST,
    title="Descriptors come only where BACKEND_SEND_FD is negotiated",
    provoke=f"{USE}; BACKEND_SEND_FD was not negotiated",
    passes="no request bears a descriptor",
)
async def no_fds(peer: Peer) -> None:
    """Who reads without room for descriptors loses them, and does not know it."""
    async with overheard(peer, protocol=ALL & ~SEND_FD) as heard:
        for request in await heard.speech():
            equal(f"descriptors with {name_of(request)} without BACKEND_SEND_FD", len(request.fds), 0)


@channel_case(
    "B-CH-07",
    level=Level.MUST,
    title=f"At most {MOST_FDS} descriptors come with a request",
    provoke=USE,
    passes=f"{MOST_FDS} or fewer each time",
)
async def few_fds(peer: Peer) -> None:
    """That is how much room front-ends have: what is beyond it the kernel drops, or worse, all of it."""
    async with overheard(peer) as heard:
        for request in await heard.speech():
            if len(request.fds) > MOST_FDS:
                raise Failure(
                    f"descriptors with {name_of(request)}: found {len(request.fds)}, expected at most {MOST_FDS}"
                )


@channel_case(
    "B-CH-08",
    level=Level.ROBUSTNESS,
    section="REPLY_ACK",
    title="A refusal on the back-end's channel is survived",
    provoke=f"{USE}; what asks for an acknowledgement gets 1",
    passes="the main channel goes on, and the program lives",
    needs=(Need.CHANNEL, REPLY_ACK),
)
async def refused(peer: Peer) -> None:
    """The front-end may not know the request, or have no room for what is asked."""
    async with overheard(peer, react=answering(1)) as heard:
        await heard.stir()
        await heard.device.session.in_sync()
        if not heard.owed:
            raise Skip(NOBODY_WAITS)
    await peer.alive()


@channel_case(
    "B-CH-09",
    level=Level.ROBUSTNESS,
    section="REPLY_ACK",
    title="The main channel is served while an acknowledgement is awaited",
    provoke=f"{USE}; what asks for an acknowledgement gets none; GET_FEATURES",
    passes="GET_FEATURES is answered in time",
    needs=(Need.CHANNEL, REPLY_ACK),
)
async def no_deadlock(peer: Peer) -> None:
    """To do what it was asked a front-end may first have to send a message, and wait for the answer: if both wait,
    they do so for ever."""
    async with overheard(peer, react=silent) as heard:
        await heard.stir()
        await heard.device.session.in_sync()
        if not heard.owed:
            raise Skip(NOBODY_WAITS)


@channel_case(
    "B-CH-15",
    level=Level.MUST,
    section="msg BACKEND_VRING_HOST_NOTIFIER_MSG",
    title="A host notifier is a page of a queue, or is taken back",
    provoke=USE,
    passes="a queue that there is, the size of a page, an offset of whole pages and one descriptor; or bit 8 and none",
    needs=(Need.CHANNEL, ProtocolFeature.HOST_NOTIFIER | SEND_FD),
)
async def host_notifier(peer: Peer) -> None:
    """The front-end maps it into the guest, where a queue's notification register was."""
    async with overheard(peer) as heard:
        spec = BackendVringHostNotifierMsg.spec
        notifiers = [request for request in await heard.speech() if request.request == spec.request]
        if not notifiers:
            raise Skip("the back-end has offered no host notifier, though its device was used")
        for request in notifiers:
            area = request.parse(BackendVringHostNotifierMsg)
            equal(f"descriptors with {spec.name}", len(request.fds), 0 if area.no_fd else 1)
            if area.index >= max(peer.profile.queues, len(heard.device.rings)):
                raise Failure(f"host notifier: found queue {area.index}, expected one of {peer.profile.queues}")
            if not area.no_fd:
                equal("size of a host notifier", area.size, mmap.PAGESIZE)
                equal("offset of a host notifier within a page", area.offset % mmap.PAGESIZE, 0)
