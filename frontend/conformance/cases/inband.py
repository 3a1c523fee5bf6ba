"""Notifications as messages (B-INB)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from frontend.conformance.expect import equal
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.load import prepared
from frontend.conformance.raw_ring import RawRing
from frontend.conformance.session import DEFAULT_PROTOCOL, Closed, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Verdict, Wedged
from vhostuser.wire.backend_messages import BackendVringCall, BackendVringErr
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetVringCall, SetVringErr, SetVringKick, VringKick

if TYPE_CHECKING:
    from frontend.conformance.channel import BackendChannel
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.session import Session

INBAND = ProtocolFeature.INBAND_NOTIFICATIONS
SPEAKING = DEFAULT_PROTOCOL | INBAND | ProtocolFeature.BACKEND_REQ
inband = partial(
    case,
    level=Level.MUST,
    section="In-band notifications",
    tags=("ring", "inband"),
    needs=(INBAND, ProtocolFeature.BACKEND_REQ, ProtocolFeature.REPLY_ACK, Need.CHANNEL),
)
hostile = partial(
    inband,
    level=Level.ROBUSTNESS,
    section="msg VRING_KICK",
    tags=("hostile", "inband"),
    passes="refused, ignored or closed; the back-end lives",
)
REACTION = 0.1
"""Seconds in which a broken ring would be told of."""


async def _laid_out(peer: Peer) -> tuple[Device, BackendChannel]:
    """A device whose rings have everything but descriptors, and its channel."""
    device = await prepared(peer, protocol=SPEAKING)
    channel = await peer.channel(device.session)
    for ring in device.rings:
        await ring.lay_out(device.session)
        await ring.enable(device.session)
    return device, channel


async def _kicked_by_message(device: Device) -> None:
    """Three requests, each with VRING_KICK; calls come by descriptor."""
    for number in range(3):
        device.ring.add(device.request(number))
        device.ring.publish(kick=False)
        await device.session.tell(VringKick(device.ring.index))
        for request, used in await device.ring.finish(1):
            request.check(used)
    device.memory.check()


@inband(
    "B-INB-01",
    section="msg VRING_KICK",
    title="VRING_KICK is a kick",
    provoke="SET_VRING_KICK that says there is no descriptor; requests, with VRING_KICK after each",
    passes="they are done",
)
async def kick(peer: Peer) -> None:
    """In a simulation nothing may happen beside the messages: here a kick is one of them."""
    device, _ = await _laid_out(peer)
    for ring in device.rings:
        await ring.send_call(device.session)
        await device.session.tell(SetVringKick.of(ring.index, no_fd=True))
    await _kicked_by_message(device)


@inband(
    "B-INB-02",
    section="Ring states",
    title="VRING_KICK starts a ring",
    provoke="no SET_VRING_KICK at all; requests, with VRING_KICK after each",
    passes="they are done",
)
async def start(peer: Peer) -> None:
    """A ring starts with SET_VRING_KICK or, where that need not come, with the first kick by message."""
    device, _ = await _laid_out(peer)
    for ring in device.rings:
        await ring.send_call(device.session)
    await _kicked_by_message(device)


@inband(
    "B-INB-03",
    section="msg BACKEND_VRING_CALL",
    title="Without a call descriptor the call is a message",
    provoke="no SET_VRING_CALL; SET_VRING_CALL that says there is no descriptor; a request each",
    passes="BACKEND_VRING_CALL on the channel, with the ring's index and num 0",
)
async def call(peer: Peer) -> None:
    """The driver asked to be told, and nobody can tell it otherwise."""
    device, channel = await _laid_out(peer)
    ring = device.ring
    for number, told in enumerate((False, True)):
        if told:
            await device.session.tell(SetVringCall.of(ring.index, no_fd=True))
        ring.queue.arm()
        ring.add(device.request(number))
        ring.publish(kick=False)
        await device.session.tell(VringKick(ring.index))
        message, request = await channel.expect(BackendVringCall)
        await channel.reply(request)
        equal("index and num of BACKEND_VRING_CALL", (message.index, message.num), (ring.index, 0))
        for done, used in await ring.finish(1):
            done.check(used)


@inband(
    "B-INB-04",
    section="msg SET_VRING_KICK",
    title="A kick descriptor counts, if there is one",
    provoke="SET_VRING_KICK with a descriptor; requests, kicked with it",
    passes="they are done",
)
async def kick_fd(peer: Peer) -> None:
    """The feature adds a way, and takes none away."""
    device, _ = await _laid_out(peer)
    for ring in device.rings:
        await ring.send_call(device.session)
        await ring.send_kick(device.session)
    for number in range(3):
        await device.ring.do(device.request(number), kick=True)


@inband(
    "B-INB-05",
    section="msg SET_VRING_ERR",
    title="An err descriptor counts, if there is one",
    provoke="SET_VRING_ERR with a descriptor; a broken ring",
    passes="if it is told of at all, then by the descriptor, not with BACKEND_VRING_ERR",
)
async def err_fd(peer: Peer) -> Verdict | None:
    """Told of twice, in two ways, an error is handled twice; that it is told of at all no text demands."""
    device, channel = await _laid_out(peer)
    for ring in device.rings:
        await ring.send_call(device.session)
        await device.session.tell(SetVringErr.of(ring.index), ring.err_fds())
    try:
        await _break(device)
        signalled = await device.ring.errored(REACTION)
        peer.note(f"the err descriptor was {'signalled' if signalled else 'not signalled'}")
        try:
            request = await channel.receive(within=REACTION)
        except Wedged:
            return None
        request.fds.close()
        if request.request == BackendVringErr.spec.request:
            raise Failure("BACKEND_VRING_ERR was sent although the ring has an err descriptor")
    except Closed:
        peer.note("closed the connection")
        await peer.alive()
        return Verdict.REJECT
    return None


async def _break(device: Device) -> None:
    """A chain that begins behind the end of the table."""
    raw = RawRing(device.ring)
    raw.offer(device.ring.size + 5)
    await device.session.send(VringKick(device.ring.index))
    await device.session.in_sync()


@inband(
    "B-INB-06",
    title="VRING_KICK is acknowledged when the ring has been processed",
    provoke="a request, and VRING_KICK with need_reply",
    passes="when the acknowledgement is there, so is the used entry",
)
async def processed(peer: Peer) -> None:
    """A simulation moves its clock on when all messages are answered: what is done later is done too late."""
    device, _ = await _laid_out(peer)
    ring = device.ring
    await ring.send_call(device.session)
    for number in range(5):
        ring.add(device.request(number))
        ring.publish(kick=False)
        await device.session.send(VringKick(ring.index), need_reply=True)
        answer = await device.session.answer(VringKick.spec.request)
        answer.fds.close()
        equal("acknowledgement of VRING_KICK", answer.value, 0)
        done = ring.reap()
        equal("requests done by the time of the acknowledgement", len(done), 1)
        for request, used in done:
            request.check(used)


async def _prepare(peer: Peer, session: Session) -> None:
    await peer.channel(session)


@hostile(
    "B-INB-07",
    title="VRING_KICK for a ring that there is not",
    provoke="index 9999, and the largest",
)
async def no_such_ring(peer: Peer) -> Verdict | None:
    """The index has 32 bits here, where SET_VRING_KICK has 8."""
    kicks = (Raw.of(VringKick(index)) for index in (9999, 0xFFFF_FFFF))
    return await survives_each(peer, *kicks, prepare=partial(_prepare, peer), protocol=SPEAKING, may_accept=False)


@hostile(
    "B-INB-08",
    title="VRING_KICK with a num that is not 0",
    provoke="num 5, for a ring that is ready",
    passes="refused, closed, or taken as a kick; the back-end lives",
)
async def odd_num(peer: Peer) -> Verdict | None:
    """The field is there because the payload is a ring's state; it means nothing."""
    device, _ = await _laid_out(peer)
    await device.ring.send_call(device.session)
    device.ring.add(device.request())
    device.ring.publish(kick=False)
    await device.session.send(VringKick(device.ring.index, 5), need_reply=True)
    outcome = await device.session.outcome(VringKick.spec.request)
    peer.note(outcome.value)
    if outcome is not Outcome.CLOSED:
        with trio.move_on_after(REACTION):
            await device.ring.until(lambda: device.ring.reap(), "nothing came of it")
    device.memory.check()
    await peer.alive()
    return Verdict.REJECT if outcome is Outcome.CLOSED else None


@case(
    "B-INB-09",
    level=Level.ROBUSTNESS,
    section="msg VRING_KICK",
    title="VRING_KICK without the feature",
    provoke="the message, INBAND_NOTIFICATIONS not being negotiated",
    passes="refused, ignored or closed; taken as a kick nevertheless, that is told; the back-end lives",
    tags=("hostile", "inband"),
    absent=(INBAND,),
)
async def without_feature(peer: Peer) -> Verdict | None:
    """A request whose feature was not negotiated is none that it has to know; a kick too many does no harm."""
    return await survives_each(peer, Raw.of(VringKick(0)), protocol=DEFAULT_PROTOCOL)
