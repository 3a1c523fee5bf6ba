"""Ownership, and connections that come and go (B-OWN)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from frontend.conformance.expect import equal, recorded
from frontend.conformance.session import Closed, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import CaseError, Failure, Level, Unsupported, Verdict, Wedged
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import GetFeatures, GetQueueNum, ResetOwner, SetOwner
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.session import Session

GLANCE = 0.1
"""Seconds for something that may happen or not."""
PENDING = 16


@case(
    "B-OWN-01",
    level=Level.MUST,
    section="msg SET_OWNER",
    title="SET_OWNER is accepted as the start of a session",
    provoke="SET_OWNER as the first message",
    passes="silence or an acknowledgement with 0, and the connection is in step",
)
async def first(peer: Peer) -> None:
    """The text has a session begin with it."""
    session = await peer.connect()
    await session.send(SetOwner())
    outcome = await session.outcome(SetOwner.spec.request)
    if outcome not in (Outcome.ACK, Outcome.IGNORED):
        raise Failure(f"SET_OWNER as the first message: found it {outcome.value}, expected silence")


@case(
    "B-OWN-02",
    level=Level.ROBUSTNESS,
    section="msg SET_OWNER",
    title="SET_OWNER may come after the questions about features",
    provoke="features and protocol features first, then SET_OWNER, as QEMU does; then rings and requests",
    passes="requests are done",
)
async def late(peer: Peer) -> None:
    """QEMU is the front-end that most back-ends will meet, and this is its order."""
    async with peer.device() as device:
        await device.works()


@case(
    "B-OWN-03",
    level=Level.ROBUSTNESS,
    section="msg SET_OWNER",
    title="A second SET_OWNER is survived",
    provoke="SET_OWNER twice on one connection",
    passes="refused, closed or ignored; the program lives",
    tags=["hostile"],
)
async def twice(peer: Peer) -> Verdict | None:
    """The session has an owner already, who is the same."""

    async def provoke(session: Session) -> None:
        await session.send(SetOwner(), need_reply=peer.asking)

    return await peer.survives(provoke, SetOwner.spec.request)


@case(
    "B-OWN-04",
    level=Level.SHOULD,
    section="msg RESET_OWNER",
    title="RESET_OWNER is ignored, or disables the rings and no more",
    provoke="RESET_OWNER on a running device; a request, and if it is not done SET_VRING_ENABLE for each ring",
    passes="requests are done without a new set-up",
    tags=["ring"],
)
async def reset_owner(peer: Peer) -> Verdict | None:
    """It is deprecated, since the words once let back-ends throw everything away; front-ends may still send it."""
    async with peer.device() as device:
        await device.works()
        await device.session.send(ResetOwner(), need_reply=device.session.acks)
        outcome = await device.session.outcome(ResetOwner.spec.request)
        peer.note(f"RESET_OWNER: {outcome.value}")
        if outcome is Outcome.CLOSED:
            raise Failure("RESET_OWNER closed the connection, expected it to be ignored, or rings to be disabled")
        return await recorded(peer, "requests after RESET_OWNER, and rings enabled again", _resumes(device))


async def _resumes(device: Device) -> None:
    device.ring.add(device.request())
    device.ring.publish(kick=True)
    try:
        done = await device.ring.finish(within=GLANCE)
    except Wedged:
        for ring in device.rings:
            await ring.enable(device.session)
            ring.notify()
        done = await device.ring.finish()
    for request, used in done:
        request.check(used)
    await device.works()


@case(
    "B-OWN-05",
    level=Level.ROBUSTNESS,
    section="msg RESET_OWNER",
    title="RESET_OWNER does not make the back-end forget protocol features",
    provoke="RESET_OWNER, then GET_QUEUE_NUM, and SET_OWNER with need_reply",
    passes="both are answered; some back-ends drop the connection's state, which is recorded",
    needs=[VirtioFeature.PROTOCOL_FEATURES, ProtocolFeature.REPLY_ACK],
)
async def reset_owner_keeps_features(peer: Peer) -> Verdict | None:
    """The front-end will go on using what was negotiated, for it has no way to learn that it is gone."""
    session = await peer.negotiated()
    try:
        await session.tell(ResetOwner())
        verdict = await recorded(peer, "after RESET_OWNER", _still_negotiated(session))
    except Closed:
        peer.note("RESET_OWNER closed the connection")
        verdict = Verdict.REJECT
    await peer.alive()
    return verdict


async def _still_negotiated(session: Session) -> None:
    if session.protocol & ProtocolFeature.MQ:
        await session.ask(GetQueueNum(), U64)
    await session.send(SetOwner(), need_reply=True)
    equal("SET_OWNER with need_reply", (await session.outcome(SetOwner.spec.request)).value, Outcome.ACK.value)


@case(
    "B-OWN-06",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A front-end that leaves does no harm",
    provoke="connections that are closed: without a word, after negotiation, and with idle rings",
    passes="the program takes a new connection, or has ended with status 0",
)
async def leaves_idle(peer: Peer) -> None:
    """A guest that is switched off is nothing unusual."""
    await peer.connect()
    await peer.alive()
    await peer.negotiated()
    await peer.alive()
    async with peer.device():
        pass
    await peer.alive()


@case(
    "B-OWN-07",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A front-end that leaves in the middle of its requests does no harm",
    provoke=f"{PENDING} requests and a kick, and the connection is closed at once; then a new connection",
    passes="the program lives, and does not write to the old guest's memory any more",
    variants=["split", "packed"],
    tags=["ring"],
)
async def leaves_busy(peer: Peer) -> None:
    """The memory may belong to somebody else by then."""
    async with peer.device() as device:
        for number in range(PENDING):
            device.ring.add(device.request(number))
        device.ring.publish(kick=True)
        peer.hang_up()
        await peer.alive()
        before = device.memory.snapshot()
        await trio.sleep(GLANCE)
        if device.memory.snapshot() != before:
            raise Failure("guest memory was written to after the connection was closed and a new one served")


@case(
    "B-OWN-08",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A second connection does not harm the first",
    provoke="a second connection and GET_FEATURES on it, while a device is up on the first; a request on the first",
    passes="the second is refused, kept waiting or served, which is recorded; the request is done",
    tags=["ring"],
)
async def second_connection(peer: Peer) -> None:
    """Whoever may open the socket can try it at any time."""
    async with peer.device() as device:
        await device.works()
        try:
            second = await _within_a_glance(peer)
            await second.send(GetFeatures())
            await second.receive(within=GLANCE)
            peer.note("a second connection is served beside the first")
        except Wedged:
            peer.note("a second connection has to wait")
        except (CaseError, Closed) as error:
            peer.note(f"a second connection is refused: {error}")
        await device.works()


async def _within_a_glance(peer: Peer) -> Session:
    with trio.move_on_after(GLANCE):
        return await peer.connect()
    if peer.target.exited() is not None:
        raise Failure("the program ended when somebody else tried to connect")
    raise Unsupported("nobody accepts")
