"""REPLY_ACK (B-ACK)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.expect import equal, recorded
from frontend.conformance.hostile import Raw
from frontend.conformance.memory import Span
from frontend.conformance.session import ASKING, DEFAULT_PROTOCOL, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict, Wedged
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.transport.unix import socket_pair
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetVringBase,
    ResetDevice,
    SetBackendReqFd,
    SetFeatures,
    SetMemTable,
    SetOwner,
    SetStatus,
    SetVringBase,
    SetVringCall,
    SetVringEnable,
    SetVringErr,
    SetVringKick,
    SetVringNum,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.ring import TestRing
    from frontend.conformance.session import Session
    from vhostuser.wire.catalog import Message

SECTION = "REPLY_ACK"
NEEDS = (ProtocolFeature.REPLY_ACK,)
EXTRA = ProtocolFeature.BACKEND_REQ | ProtocolFeature.RESET_DEVICE | ProtocolFeature.STATUS
MIB = 1 << 20
UNKNOWN = 200


@case(
    "B-ACK-01",
    level=Level.MUST,
    section=SECTION,
    title="need_reply on a message that succeeds is answered with 0",
    provoke="SET_FEATURES with need_reply",
    passes="a reply of 8 bytes, all 0",
    needs=NEEDS,
)
async def success(peer: Peer) -> None:
    """The front-end waits for exactly this, and gives the device up over anything else."""
    session = await peer.negotiated()
    await session.send(SetFeatures(session.features), need_reply=True)
    answer = await session.receive(what="the acknowledgement of SET_FEATURES")
    equal("request code of the acknowledgement", answer.request, int(SetFeatures.spec.request))
    equal("payload of the acknowledgement", answer.payload.hex(), bytes(8).hex())


@case(
    "B-ACK-02",
    level=Level.MUST,
    section=SECTION,
    title="need_reply on a message that fails is not answered with 0",
    provoke="SET_VRING_NUM for ring 0xffff, with need_reply",
    passes="a number other than 0, or the connection is closed",
    needs=NEEDS,
    tags=["hostile"],
)
async def failure(peer: Peer) -> Verdict | None:
    """An error that is acknowledged as a success comes back as a guest that hangs."""
    session = await peer.negotiated()
    await session.send(SetVringNum(0xFFFF, 64), need_reply=True)
    outcome = await session.outcome(SetVringNum.spec.request)
    if not outcome.refused:
        raise Failure(f"SET_VRING_NUM for ring 65535: found it {outcome.value}, expected non-zero or a hang-up")
    peer.note(f"SET_VRING_NUM for ring 65535: {outcome.value}")
    await peer.alive()
    return Verdict.REJECT if outcome is Outcome.CLOSED else None


@case(
    "B-ACK-03",
    level=Level.MUST,
    section=SECTION,
    title="Every message that has no reply of its own can be acknowledged",
    provoke="each of them in turn with need_reply, as far as the target's features allow: SET_FEATURES, memory table, "
    "ring set-up, enable, SET_BACKEND_REQ_FD, SET_STATUS, RESET_DEVICE",
    passes="one acknowledgement for each",
    needs=NEEDS,
    variants=["split", "packed"],
)
async def each_message(peer: Peer) -> None:
    """A handler that forgets the flag leaves the front-end waiting for ever."""
    memory = peer.memory()
    session = await peer.negotiated(basic(peer), DEFAULT_PROTOCOL | EXTRA)
    for message, fds in _plain_messages(session, memory, peer.rings(session, memory, count=1)[0]):
        await session.send(message, fds, need_reply=True)
        outcome = await session.outcome(message.spec.request)
        if outcome not in (Outcome.ACK, Outcome.NACK):
            raise Failure(f"{message.spec.name} with need_reply: found it {outcome.value}, expected an acknowledgement")
        if outcome is Outcome.NACK:
            peer.note(f"{message.spec.name}: {outcome.value}")


def _plain_messages(session: Session, memory: SharedMemory, ring: TestRing) -> Iterator[tuple[Message, Fds]]:
    yield SetFeatures(session.features), NO_FDS
    yield SetMemTable(memory.regions), memory.fds()
    yield SetVringNum(ring.index, ring.size), NO_FDS
    yield SetVringBase(ring.index, ring.base), NO_FDS
    yield ring.addresses(), NO_FDS
    yield SetVringCall.of(ring.index), ring.call_fds()
    yield SetVringErr.of(ring.index), ring.err_fds()
    yield SetVringKick.of(ring.index), ring.kick_fds()
    if session.features & VirtioFeature.PROTOCOL_FEATURES:
        yield SetVringEnable(ring.index, 1), NO_FDS
        yield SetVringEnable(ring.index, 0), NO_FDS
    if session.protocol & ProtocolFeature.BACKEND_REQ:
        ours, theirs = socket_pair()
        yield SetBackendReqFd(), Fds.of(theirs)
        ours.close()
    if session.protocol & ProtocolFeature.STATUS:
        yield SetStatus(1), NO_FDS
    if session.protocol & ProtocolFeature.RESET_DEVICE:
        yield ResetDevice(), NO_FDS


@case(
    "B-ACK-04",
    level=Level.MUST,
    section=SECTION,
    title="A message with a reply of its own gets that reply only",
    provoke="GET_VRING_BASE with need_reply on a running ring",
    passes="one reply, then the connection is in step",
    needs=NEEDS,
)
async def own_reply(peer: Peer) -> None:
    """A second answer puts everything that follows out of step."""
    async with peer.device() as device:
        session = device.session
        await session.send(GetVringBase(device.ring.index), need_reply=True)
        answer = await session.receive(what="the reply to GET_VRING_BASE")
        equal("request code of the reply", answer.request, int(GetVringBase.spec.request))
        equal("size of the reply", len(answer.payload), 8)
        await session.in_sync()


@case(
    "B-ACK-05",
    level=Level.MUST,
    section=SECTION,
    title="Without need_reply there is no acknowledgement",
    provoke="SET_FEATURES without need_reply, REPLY_ACK being negotiated",
    passes="silence, and the connection is in step",
    needs=NEEDS,
)
async def not_asked(peer: Peer) -> None:
    """The feature allows to ask; it does not make every message a question."""
    session = await peer.negotiated()
    await session.send(SetFeatures(session.features))
    await session.in_sync()


@case(
    "B-ACK-06",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="need_reply without REPLY_ACK leaves the connection in step",
    provoke="SET_OWNER with need_reply on a connection without protocol features",
    passes="an acknowledgement or silence, which is recorded; then GET_FEATURES is answered",
    absent=NEEDS,
)
async def not_negotiated(peer: Peer) -> None:
    """The text says nothing of it; QEMU sets the flag on some messages in any case."""
    session = await peer.connect()
    await session.send_raw(SetOwner.spec.request, flags=ASKING)
    outcome = await session.outcome(SetOwner.spec.request)
    peer.note(f"SET_OWNER with need_reply: {outcome.value}")
    if outcome is not Outcome.CLOSED:
        await session.in_sync()
    await peer.alive()


@case(
    "B-ACK-07",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="What is acknowledged is in force",
    provoke="SET_VRING_CALL with a new descriptor and need_reply on a running ring; then a request",
    passes="the new descriptor is signalled; the text does not say so, so anything else is recorded",
    needs=NEEDS,
    variants=["split", "packed"],
    tags=["ring"],
)
async def in_force(peer: Peer) -> Verdict | None:
    """QEMU exchanges call descriptors when the guest masks an interrupt, and counts on losing none."""
    async with peer.device() as device:
        await device.works()
        device.ring.renew_call()
        await device.ring.send_call(device.session)
        return await recorded(peer, "a call descriptor that was exchanged", _signals(device))


async def _signals(device: Device) -> None:
    await device.works()
    if not await device.ring.called(1.0):
        raise Failure("the request is done, and the new call descriptor was not signalled within 1 s")


@case(
    "B-ACK-08",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="A message that could not be carried out is not acknowledged with 0",
    provoke="SET_MEM_TABLE with need_reply, whose descriptor is a pipe: it cannot be mapped",
    passes="a number other than 0, or the connection is closed",
    needs=NEEDS,
    tags=["hostile", "memory"],
)
async def not_carried_out(peer: Peer) -> Verdict | None:
    """The front-end believes it, starts the guest, and the guest's first request is lost."""
    table = SetMemTable(peer.memory(Span(0x10_0000, MIB)).regions)

    async def provoke(session: Session) -> None:
        read_end, write_end = (Fd(number) for number in os.pipe())
        write_end.close()
        await session.send(table, Fds.of(read_end), need_reply=True)

    return await peer.survives(provoke, SetMemTable.spec.request, need_reply=(True,), may_accept=False)


@case(
    "B-ACK-09",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="An unknown request with need_reply is not acknowledged with 0",
    provoke=f"request {UNKNOWN} with need_reply",
    passes="a number other than 0, or the connection is closed",
    needs=NEEDS,
    tags=["hostile"],
)
async def unknown_request(peer: Peer) -> Verdict | None:
    """Whoever asks something new has to learn that it was not understood."""
    message = Raw(UNKNOWN, flags=ASKING)

    async def provoke(session: Session) -> None:
        await message.send(peer, session)

    verdict = await peer.survives(provoke, UNKNOWN, need_reply=(True,), may_accept=False)
    if any(Outcome.IGNORED.value in note for note in peer.notes):
        raise Wedged(f"request {UNKNOWN} with need_reply was never answered")
    return verdict
