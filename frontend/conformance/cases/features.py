"""Feature negotiation: the questions, and which answers are kept to (B-FEAT-01 to 08, 13)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.dirty import DirtyLog
from frontend.conformance.expect import equal, recorded
from frontend.conformance.logged import logged, marks_request
from frontend.conformance.session import DEFAULT_PROTOCOL, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Level, Verdict
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names
from vhostuser.wire.frontend_messages import GetFeatures, SetFeatures
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

BASIC = VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES
GLANCE = 0.1
"""Seconds for something that may happen or not."""
NOT_ALONE = VirtioFeature.LOG_ALL | VirtioFeature.ACCESS_PLATFORM
"""Bits that ask for more than a bit: a log, an IOTLB."""


@case(
    "B-FEAT-01",
    level=Level.MUST,
    section="msg GET_FEATURES",
    title="GET_FEATURES is answered with 64 bits",
    provoke="GET_FEATURES",
    passes="the reply has 8 bytes",
)
async def features_are_a_u64(peer: Peer) -> None:
    """All else is built on this one number; bits from 32 on, VERSION_1 the first of them, need the upper half."""
    session = await peer.connect()
    await session.send(GetFeatures())
    equal("size of the reply to GET_FEATURES", len((await session.receive()).payload), 8)


@case(
    "B-FEAT-02",
    level=Level.ROBUSTNESS,
    section="msg GET_FEATURES",
    title="The offer stays the same on a connection",
    provoke="GET_FEATURES twice",
    passes="both answers are equal",
)
async def features_are_stable(peer: Peer) -> None:
    """QEMU asks twice, for the device and for each of its queues, and goes by whichever answer it got last."""
    session = await peer.connect()
    first = (await session.ask(GetFeatures(), U64)).value
    second = (await session.ask(GetFeatures(), U64)).value
    equal("features, asked a second time", hex(second), hex(first))


@case(
    "B-FEAT-03",
    level=Level.ROBUSTNESS,
    section="msg GET_FEATURES",
    title="GET_FEATURES may be the first message of all",
    provoke="GET_FEATURES on a new connection, before SET_OWNER",
    passes="it is answered",
)
async def features_come_first(peer: Peer) -> None:
    """The text calls SET_OWNER the start of a session, and QEMU asks for features before it."""
    await (await peer.connect()).ask(GetFeatures(), U64)


@case(
    "B-FEAT-04",
    level=Level.MUST,
    section="msg SET_FEATURES",
    title="A subset of what was offered is accepted",
    provoke="SET_FEATURES with VERSION_1 and PROTOCOL_FEATURES only, and with all that is offered but LOG_ALL and "
    "ACCESS_PLATFORM, each on a connection of its own",
    passes="acknowledged with 0 where REPLY_ACK is offered, else the connection stays in step",
)
async def a_subset_is_accepted(peer: Peer) -> None:
    """An offer is what may be chosen from; who takes less gets less."""
    for wanted in (BASIC, ~NOT_ALONE):
        session = await peer.negotiated(wanted)
        await session.in_sync()
        peer.hang_up()


@case(
    "B-FEAT-05",
    level=Level.ROBUSTNESS,
    section="msg SET_FEATURES",
    title="A feature that was never offered does not come into force",
    provoke="SET_FEATURES with what is offered and one bit more, the lowest from 41 on that is not; then, if the "
    "connection stands, a request on a ring",
    passes="the message is refused, or the connection closed, or all goes on as without that bit",
)
async def foreign_bit(peer: Peer) -> Verdict | None:
    """A bit that a driver was let have, and that nobody implements, breaks at a worse moment than this one."""
    session = await peer.negotiated()
    foreign = next(1 << bit for bit in range(41, 64) if not session.offered >> bit & 1)
    await session.send(SetFeatures(session.features | foreign), need_reply=session.acks)
    outcome = await session.outcome(SetFeatures.spec.request)
    peer.note(f"{', '.join(names(foreign, VirtioFeature))}: {outcome.value}")
    if outcome is Outcome.CLOSED:
        await peer.alive()
        return Verdict.REJECT
    device = await bring_up(peer, session, peer.memory())
    await device.works()
    return None


@case(
    "B-FEAT-06",
    level=Level.MUST,
    section="V 2.7",
    title="With VERSION_1, ring fields are little-endian",
    provoke="a few requests on a ring",
    passes="they are done, and the used index, read as little-endian, counts them",
    needs=[VirtioFeature.VERSION_1],
    tags=["ring"],
)
async def little_endian_rings(peer: Peer) -> None:
    """Legacy devices used the guest's byte order; with VERSION_1 both ends agree without knowing each other."""
    async with peer.device() as device:
        await device.works(3)
        equal("used index after 3 requests", int.from_bytes(device.ring.device.view[2:4], "little"), 3)


@case(
    "B-FEAT-07",
    level=Level.MUST,
    section="Migration",
    title="LOG_ALL may be switched on and off while rings run",
    provoke="SET_FEATURES with and without LOG_ALL between requests",
    passes="requests are done before, between and after",
    needs=[VirtioFeature.LOG_ALL],
    variants=["split", "packed"],
    tags=["ring"],
)
async def log_all_at_run_time(peer: Peer) -> None:
    """That is how a migration begins, and how it ends when it is called off: the guest must not notice."""
    shmfd = peer.profile.protocol & ProtocolFeature.LOG_SHMFD
    async with peer.device(protocol=DEFAULT_PROTOCOL | shmfd) as device:
        await device.works()
        with DirtyLog(device.memory) as log:
            if shmfd:
                await log.share(device.session)
            quiet = device.session.features
            for features in (quiet | VirtioFeature.LOG_ALL, quiet):
                await device.session.set_features(features)
                await device.works(2)


@case(
    "B-FEAT-08",
    level=Level.ROBUSTNESS,
    section="msg SET_FEATURES",
    title="Dropping EVENT_IDX on a running ring corrupts nothing",
    provoke="requests with EVENT_IDX, SET_FEATURES without it, a request and a kick",
    passes="refused, closed, or carried on; nothing outside the buffers is written, and the program lives",
    needs=[VirtioFeature.EVENT_IDX],
    variants=["split", "packed"],
    tags=["ring"],
)
async def other_bits_at_run_time(peer: Peer) -> Verdict | None:
    """Only LOG_ALL is meant to change on a live ring; a driver that changes more must not get at the back-end."""
    verdict = None
    async with peer.device(virtio=VirtioFeature.EVENT_IDX) as device:
        await device.works(2)
        session, smaller = device.session, device.session.features & ~VirtioFeature.EVENT_IDX
        await session.send(SetFeatures(smaller), need_reply=session.acks)
        outcome = await session.outcome(SetFeatures.spec.request)
        peer.note(f"dropping EVENT_IDX: {outcome.value}")
        if outcome is Outcome.CLOSED:
            verdict = Verdict.REJECT
        else:
            device.ring.add(device.request())
            device.ring.publish(kick=True)
            await recorded(peer, "a request afterwards", device.ring.finish(within=GLANCE))
    await peer.alive()
    return verdict


@case(
    "B-FEAT-13",
    level=Level.SHOULD,
    section="Migration",
    title="Who offers LOG_ALL does log",
    provoke="a log that covers all of memory, LOG_ALL, and a request that writes to a buffer",
    passes="the pages of the buffer are marked",
    needs=[VirtioFeature.LOG_ALL, ProtocolFeature.LOG_SHMFD],
    tags=["ring"],
)
async def log_all_is_real(peer: Peer) -> None:
    """A page that was written and not marked is lost in a migration, and nobody learns of it."""
    async with logged(peer) as (device, log):
        await marks_request(device, log)
