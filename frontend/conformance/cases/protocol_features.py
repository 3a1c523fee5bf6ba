"""Protocol feature negotiation: the two messages (B-PF-01 to 08, 12, 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.session import ASKING, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetFeatures,
    GetProtocolFeatures,
    SetFeatures,
    SetOwner,
    SetProtocolFeatures,
)
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

BIT_30 = VirtioFeature.PROTOCOL_FEATURES
MQ, REPLY_ACK = ProtocolFeature.MQ, ProtocolFeature.REPLY_ACK
INBAND, BACKEND_REQ = ProtocolFeature.INBAND_NOTIFICATIONS, ProtocolFeature.BACKEND_REQ
HARMLESS = (
    ProtocolFeature.RARP,
    ProtocolFeature.MTU,
    ProtocolFeature.CROSS_ENDIAN,
    ProtocolFeature.SHARED_OBJECT,
    ProtocolFeature.CRYPTO_SESSION,
)
"""Bits that change no message which we send anyway."""
UNKNOWN = 1 << 40


async def offer(session: Session) -> ProtocolFeature:
    """GET_FEATURES, as a front-end has to ask before, and GET_PROTOCOL_FEATURES."""
    session.offered = (await session.ask(GetFeatures(), U64)).value
    session.protocol_offered = ProtocolFeature((await session.ask(GetProtocolFeatures(), U64)).value)
    return session.protocol_offered


@case(
    "B-PF-01",
    level=Level.MUST,
    section="msg GET_PROTOCOL_FEATURES",
    title="GET_PROTOCOL_FEATURES is answered before SET_FEATURES",
    provoke="GET_FEATURES, GET_PROTOCOL_FEATURES on a new connection",
    passes="a reply of 8 bytes",
    needs=[BIT_30],
)
async def asked_early(peer: Peer) -> None:
    """Bit 30 in GET_FEATURES is all that is needed: which features to set may depend on this answer."""
    await offer(await peer.connect())


@case(
    "B-PF-02",
    level=Level.MUST,
    section="msg SET_PROTOCOL_FEATURES",
    title="SET_PROTOCOL_FEATURES is accepted before SET_FEATURES",
    provoke="SET_PROTOCOL_FEATURES with MQ and REPLY_ACK, as far as they are offered",
    passes="the connection goes on, in step",
    needs=[BIT_30],
)
async def set_early(peer: Peer) -> None:
    """QEMU negotiates protocol features first; the guest's driver chooses virtio features much later."""
    session = await peer.connect()
    await session.send(SetProtocolFeatures(await offer(session) & (MQ | REPLY_ACK)))
    await session.in_sync()


@case(
    "B-PF-03",
    level=Level.MUST,
    section="msg GET_PROTOCOL_FEATURES",
    title="Protocol features work though bit 30 is never acknowledged",
    provoke="REPLY_ACK negotiated, SET_FEATURES without bit 30, SET_OWNER with need_reply",
    passes="SET_OWNER is acknowledged",
    needs=[BIT_30, REPLY_ACK],
)
async def without_bit_30(peer: Peer) -> None:
    """Setting bit 30 is about who enables rings.  That the features are there is told by its being offered."""
    session = await peer.connect()
    await session.send(SetProtocolFeatures(await offer(session) & (MQ | REPLY_ACK)))
    await session.send(SetFeatures(session.offered & VirtioFeature.VERSION_1))
    await session.send(SetOwner(), need_reply=True)
    equal("SET_OWNER with need_reply", (await session.outcome(SetOwner.spec.request)).value, Outcome.ACK.value)


@case(
    "B-PF-05",
    level=Level.ROBUSTNESS,
    section="msg SET_PROTOCOL_FEATURES",
    title="Protocol features that were not offered are survived",
    provoke="SET_PROTOCOL_FEATURES with what is offered and a bit that is known and not offered; then with bit 40",
    passes="refused, closed or ignored; the program lives",
    needs=[BIT_30],
    tags=["hostile"],
)
async def more_than_offered(peer: Peer) -> Verdict | None:
    """Some back-ends store whatever comes, which unlocks messages that they have never been tried with."""
    verdicts = set()
    known = next((bit for bit in HARMLESS if not peer.profile.protocol & bit), ProtocolFeature(0))
    for extra in filter(None, (known, ProtocolFeature(UNKNOWN))):

        async def provoke(session: Session, extra: ProtocolFeature = extra) -> None:
            await session.send(SetProtocolFeatures(session.protocol | extra), need_reply=peer.asking)

        verdicts.add(await peer.survives(provoke, SetProtocolFeatures.spec.request))
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


@case(
    "B-PF-06",
    level=Level.MUST,
    section="Protocol features",
    title="A front-end may do without any protocol feature",
    provoke="SET_PROTOCOL_FEATURES with 0, rings, requests, and need_reply nowhere",
    passes="requests are done",
    needs=[BIT_30],
    variants=["split", "packed"],
    tags=["ring"],
)
async def none_at_all(peer: Peer) -> None:
    """Each bit is an extension; what it extends works without it."""
    async with peer.device(protocol=ProtocolFeature(0)) as device:
        await device.session.in_sync()
        await device.works(2)


async def _inband_with(peer: Peer, only: ProtocolFeature, missing: ProtocolFeature) -> None:
    session = await peer.connect()
    await offer(session)
    await session.send(SetProtocolFeatures(INBAND | only))
    if not await session.closes(within=0.5):
        raise Failure(f"INBAND_NOTIFICATIONS without {missing.name}: found the connection open, expected it closed")


@case(
    "B-PF-07",
    level=Level.SHOULD,
    section="In-band notifications",
    title="INBAND_NOTIFICATIONS without BACKEND_REQ ends the connection",
    provoke="SET_PROTOCOL_FEATURES with INBAND_NOTIFICATIONS and REPLY_ACK only",
    passes="the connection is closed",
    needs=[INBAND, REPLY_ACK],
)
async def inband_without_channel(peer: Peer) -> None:
    """Calls have to go over the back-end's channel; without one there is no way to tell the driver anything."""
    await _inband_with(peer, REPLY_ACK, BACKEND_REQ)


@case(
    "B-PF-08",
    level=Level.SHOULD,
    section="In-band notifications",
    title="INBAND_NOTIFICATIONS without REPLY_ACK ends the connection",
    provoke="SET_PROTOCOL_FEATURES with INBAND_NOTIFICATIONS and BACKEND_REQ only",
    passes="the connection is closed",
    needs=[INBAND, BACKEND_REQ],
)
async def inband_without_acks(peer: Peer) -> None:
    """Notifications in messages are for simulations, which have to know when one has been seen."""
    await _inband_with(peer, BACKEND_REQ, REPLY_ACK)


@case(
    "B-PF-12",
    level=Level.ROBUSTNESS,
    section="msg SET_PROTOCOL_FEATURES",
    title="Protocol features that are set twice are survived",
    provoke="SET_PROTOCOL_FEATURES with 0 on a connection where others are in force",
    passes="refused, closed or accepted; the program lives",
    needs=[BIT_30],
    tags=["hostile"],
)
async def set_again(peer: Peer) -> Verdict | None:
    """The text does not say that it is done once, and what was built on the first choice has to go or to stay."""

    async def provoke(session: Session) -> None:
        await session.send(SetProtocolFeatures(ProtocolFeature(0)), need_reply=peer.asking)

    return await peer.survives(provoke, SetProtocolFeatures.spec.request)


@case(
    "B-PF-13",
    level=Level.ROBUSTNESS,
    section="REPLY_ACK",
    title="SET_PROTOCOL_FEATURES that asks for an acknowledgement leaves the connection in step",
    provoke="SET_PROTOCOL_FEATURES with REPLY_ACK in it, and need_reply in its header",
    passes="an acknowledgement or none, which is recorded; then GET_FEATURES is answered",
    needs=[BIT_30, REPLY_ACK],
)
async def asking_too_early(peer: Peer) -> None:
    """Whether the feature is in force for the message that negotiates it is left open."""
    session = await peer.connect()
    chosen = await offer(session) & (MQ | REPLY_ACK)
    await session.send_raw(SetProtocolFeatures.spec.request, SetProtocolFeatures(chosen).build(), flags=ASKING)
    outcome = await session.outcome(SetProtocolFeatures.spec.request)
    peer.note(f"SET_PROTOCOL_FEATURES with need_reply: {outcome.value}")
    if outcome is not Outcome.CLOSED:
        await session.in_sync()
    await peer.alive()
