"""The device status (B-STS)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic, bring_up
from frontend.conformance.expect import equal
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.session import DEFAULT_PROTOCOL, Closed, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetStatus, SetFeatures, SetStatus
from vhostuser.wire.records import U64
from vhostuser.wire.virtio.ids import DeviceStatus

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

ACKNOWLEDGED = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER
NEGOTIATED = ACKNOWLEDGED | DeviceStatus.FEATURES_OK
FEATURES_OK = DeviceStatus.FEATURES_OK
PROTOCOL = DEFAULT_PROTOCOL | ProtocolFeature.STATUS
QUIET = 0.05
"""Seconds in which a device that was reset is watched."""

status_case = partial(case, needs=(ProtocolFeature.STATUS,), tags=("status",))


async def status_of(session: Session) -> int:
    """GET_STATUS."""
    return (await session.ask(GetStatus(), U64)).value


@status_case(
    "B-STS-01",
    level=Level.MUST,
    section="msg GET_STATUS",
    title="GET_STATUS is answered with the device status",
    provoke="GET_STATUS",
    passes="a reply of eight bytes, at most 255",
)
async def reply(peer: Peer) -> None:
    """The status of VIRTIO is a byte; in the message it has eight of them."""
    session = await peer.negotiated(basic(peer), PROTOCOL)
    found = await status_of(session)
    if found > 0xFF:
        raise Failure(f"device status: found {found:#x}, expected at most 0xff")
    await session.in_sync()


@status_case(
    "B-STS-02",
    level=Level.MUST,
    section="V 2.1",
    title="The device status is 0 in the beginning",
    provoke="GET_STATUS on a new connection, and on one after another front-end has set it",
    passes="0 each time",
)
async def initial(peer: Peer) -> None:
    """Nobody has found the device yet.  What another front-end told belongs to its own session."""
    for _ in range(2):
        session = await peer.negotiated(basic(peer), PROTOCOL)
        equal("device status on a new connection", await status_of(session), 0)
        await session.tell(SetStatus(ACKNOWLEDGED))
        await session.in_sync()
        peer.hang_up()


@status_case(
    "B-STS-03",
    level=Level.MUST,
    section="msg SET_STATUS",
    title="The device status is as it was set",
    provoke="SET_STATUS with 1, 3, 11 and 15, as a driver does it, each followed by GET_STATUS",
    passes="the same number, or, for 11 and 15, the same without FEATURES_OK",
)
async def set_and_get(peer: Peer) -> None:
    """The driver reads it back after each step, and gives the device up when it is another."""
    session = await peer.negotiated(basic(peer), PROTOCOL)
    for value in (1, 3, 11, 15):
        await session.tell(SetStatus(value))
        found = await status_of(session)
        if found == value & ~FEATURES_OK != value:
            peer.note(f"FEATURES_OK was not taken: {found} after SET_STATUS {value}")
            return
        equal(f"device status after SET_STATUS {value}", found, value)


@status_case(
    "B-STS-04",
    level=Level.ROBUSTNESS,
    section="V 2.1",
    title="FEATURES_OK is withheld when the features make no sense",
    provoke="SET_FEATURES with a bit that was not offered, then SET_STATUS 11",
    passes="SET_FEATURES is refused, or GET_STATUS comes without FEATURES_OK, or the connection is closed",
)
async def bad_features(peer: Peer) -> Verdict | None:
    """By this bit the device tells the driver that it cannot work with what was chosen."""
    session = await peer.negotiated(basic(peer), PROTOCOL)
    foreign = _not_offered(session.offered)
    try:
        await session.send(SetFeatures(session.features | foreign), need_reply=session.acks)
        outcome = await session.outcome(SetFeatures.spec.request)
        if outcome is Outcome.NACK:
            peer.note("SET_FEATURES was refused")
            return None
        if outcome is not Outcome.CLOSED:
            await session.send(SetStatus(NEGOTIATED))
            found = await status_of(session)
            if found & FEATURES_OK:
                raise Failure(
                    f"device status: found {found:#x} although SET_FEATURES had {foreign:#x}, which is not offered; "
                    f"expected it without FEATURES_OK ({int(FEATURES_OK):#x})"
                )
            return None
    except Closed:
        pass
    await peer.alive()
    return Verdict.REJECT


def _not_offered(offered: int) -> int:
    """A bit below 24, which belongs to device types, that is not in ``offered``.

    Raises:
        Skip: there is none.
    """
    for bit in reversed(range(24)):
        if not offered & 1 << bit:
            return 1 << bit
    raise Skip("every feature bit of the device is offered")


@status_case(
    "B-STS-05",
    level=Level.MUST,
    section="V 2.1",
    title="Status 0 resets the device",
    provoke="SET_STATUS 0 while rings run; then a request",
    passes="GET_STATUS says 0, and the request has no effect",
    variants=("split", "packed"),
)
async def reset(peer: Peer) -> None:
    """A driver takes its memory back after that, so the device may not touch it any more."""
    session = await peer.negotiated(basic(peer), PROTOCOL)
    await session.tell(SetStatus(ACKNOWLEDGED))
    await session.tell(SetStatus(NEGOTIATED))
    device = await bring_up(peer, session, peer.memory())
    await session.tell(SetStatus(NEGOTIATED | DeviceStatus.DRIVER_OK))
    await device.works(1)
    await session.tell(SetStatus(0))
    equal("device status after SET_STATUS 0", await status_of(session), 0)
    device.ring.add(device.request(1))
    device.ring.publish(kick=True)
    await session.in_sync()
    await device.ring.stays_idle(QUIET)


@status_case(
    "B-STS-06",
    level=Level.ROBUSTNESS,
    section="msg SET_STATUS",
    title="A device status that is no byte is survived",
    provoke="SET_STATUS with 0x100 and with 64 bits set",
    passes="refused, ignored or closed; the program lives",
    tags=("status", "hostile"),
)
async def too_large(peer: Peer) -> Verdict | None:
    """The payload has room for more than the device status has bits."""
    values = (0x100, (1 << 64) - 1)
    return await survives_each(peer, *(Raw.of(SetStatus(value)) for value in values), protocol=PROTOCOL)
