"""RESET_DEVICE (B-RST)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from frontend.conformance.bring_up import basic, bring_up
from frontend.conformance.config import WRITABLE, field_of, read_field, with_config, write
from frontend.conformance.effects import Seen, request_on_disabled_ring
from frontend.conformance.expect import equal, recorded
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.load import batch_of, used_idx
from frontend.conformance.session import DEFAULT_PROTOCOL
from frontend.conformance.suite import case
from frontend.conformance.watch import Footprint, written_by_device
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetQueueNum, ResetDevice, SetFeatures
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.session import Session

RESET = ProtocolFeature.RESET_DEVICE
PROTOCOL = DEFAULT_PROTOCOL | RESET
BOTH = ("split", "packed")
ROUNDS = 3
UNDER_LOAD = 4
LATE = 0.03
"""Seconds in which a write that comes too late would show."""

resetting = partial(case, section="msg RESET_DEVICE", needs=(RESET,), tags=("reset",))


async def running(peer: Peer, session: Session | None = None) -> Device:
    """A device with rings started, on a new connection or on ``session``; it works."""
    if session is None:
        session = await peer.negotiated(basic(peer), PROTOCOL)
    device = await bring_up(peer, session, peer.memory())
    await device.works(1)
    return device


async def reset(session: Session) -> None:
    """RESET_DEVICE, which has to be accepted; it is done on return."""
    await session.tell(ResetDevice())
    await session.in_sync()


async def stopped_and_reset(device: Device) -> None:
    """What QEMU does: GET_VRING_BASE for each ring, then RESET_DEVICE."""
    for ring in device.rings:
        await ring.stop(device.session)
    await reset(device.session)


async def begin_anew(peer: Peer, session: Session) -> Device:
    """What a driver makes the front-end do after a reset: features, memory, rings; no SET_OWNER."""
    await session.tell(SetFeatures(session.features))
    return await running(peer, session)


@resetting(
    "B-RST-01",
    level=Level.MUST,
    title="RESET_DEVICE disables all rings",
    provoke="RESET_DEVICE while rings run; then a request and a kick",
    passes="the request is not answered",
    variants=BOTH,
)
async def disables(peer: Peer) -> None:
    """After a reset the guest's memory is the guest's, until it sets the device up again.

    Of a ring that is only disabled the text lets a device take requests, without effect; a device that was reset keeps
    away from its rings (V 2.4.1).
    """
    device = await running(peer)
    await reset(device.session)
    seen = await request_on_disabled_ring(device)
    peer.note(seen.value)
    if seen is Seen.ANSWERED:
        raise Failure("a request after RESET_DEVICE: found it answered, expected it left alone")


@resetting(
    "B-RST-02",
    level=Level.MUST,
    title="A device that was reset can be set up again",
    provoke=f"a device that works; its rings stopped; RESET_DEVICE; all of it again in other memory, {ROUNDS} times; "
    "then once more without stopping the rings",
    passes="it works each time, from ring position 0 on; whether it does when the rings were not stopped is told",
    variants=BOTH,
)
async def set_up_again(peer: Peer) -> Verdict | None:
    """Every reboot of a guest does this, every kexec, every driver that is loaded again.

    The text says that rings are disabled, and not whether they are stopped: front-ends do that before.
    """
    device = await running(peer)
    for _ in range(ROUNDS):
        await stopped_and_reset(device)
        device = await begin_anew(peer, device.session)
    await reset(device.session)
    return await recorded(peer, "set up again with rings that were not stopped", begin_anew(peer, device.session))


@resetting(
    "B-RST-03",
    level=Level.MUST,
    title="RESET_DEVICE leaves the session to its owner",
    provoke="SET_OWNER in the beginning only; RESET_DEVICE before any ring was set up; then features, memory, rings",
    passes="all is accepted, and the device works",
)
async def ownership(peer: Peer) -> None:
    """That is what distinguishes it from RESET_OWNER, in whose place it came."""
    session = await peer.negotiated(basic(peer), PROTOCOL)
    await reset(session)
    await begin_anew(peer, session)


@resetting(
    "B-RST-04",
    level=Level.ROBUSTNESS,
    title="Protocol features and memory outlive RESET_DEVICE",
    provoke="rings stopped; RESET_DEVICE; a message with need_reply, and GET_QUEUE_NUM with MQ; rings in "
    "the memory of before, which is not told again",
    passes="acknowledged and answered as before; whether the memory is still there is told",
)
async def what_is_kept(peer: Peer) -> Verdict | None:
    """Protocol features are between the two programs and no matter of the guest's: QEMU negotiates them once for a
    connection.  Memory that came region by region it does not send again either."""
    device = await running(peer)
    session = device.session
    await stopped_and_reset(device)
    await session.tell(SetFeatures(session.features))
    if session.protocol & ProtocolFeature.MQ:
        await session.ask(GetQueueNum(), U64)

    async def without_memory_table() -> None:
        again = await bring_up(peer, session, device.memory, share=False)
        await again.works(1)

    return await recorded(peer, "rings in the memory of before the reset", without_memory_table())


@resetting(
    "B-RST-05",
    level=Level.ROBUSTNESS,
    title="RESET_DEVICE under load: nothing is written once it is done",
    provoke=f"a full ring and RESET_DEVICE at once, on {UNDER_LOAD} connections",
    passes="after the acknowledgement no buffer of a request changes; the next connection is served and works",
    variants=BOTH,
)
async def under_load(peer: Peer) -> None:
    """What the disk still had to write then lands in memory that belongs to somebody else."""
    late = 0
    for _ in range(UNDER_LOAD):
        device = await running(peer)
        for request in batch_of(device, long=True):
            device.ring.add(request)
        device.ring.publish(kick=True)
        await reset(device.session)
        before, used = Footprint(device.memory), used_idx(device.ring)
        await trio.sleep(LATE)
        before.check(written_by_device(*device.rings))
        late += used_idx(device.ring) != used
        peer.hang_up()
    await running(peer)
    if late:
        peer.note(f"the used ring went on after {late} of {UNDER_LOAD} resets")


@resetting(
    "B-RST-06",
    level=Level.MUST,
    title="RESET_DEVICE brings configuration space back to where it began",
    provoke="SET_CONFIG of a writable field, of a disk its write cache mode; RESET_DEVICE; GET_CONFIG",
    passes="the value of before SET_CONFIG",
    needs=(RESET, ProtocolFeature.CONFIG),
)
async def configuration(peer: Peer) -> None:
    """The next driver expects the device as it comes out of the box."""
    field = field_of(peer, WRITABLE)
    session = await with_config(peer, field.features)
    before = await read_field(peer, session, field)
    outcome = await write(session, field, bytes([before[0] ^ 1]))
    if outcome.refused:
        raise Failure(f"SET_CONFIG of {field.name} to {before[0] ^ 1}: found it {outcome.value}, expected it accepted")
    await reset(session)
    equal(f"{field.name} after RESET_DEVICE", (await read_field(peer, session, field)).hex(), before.hex())


@resetting(
    "B-RST-07",
    level=Level.ROBUSTNESS,
    title="RESET_DEVICE without its feature is survived",
    provoke="RESET_DEVICE on a connection where it was not negotiated",
    passes="refused, ignored or closed; the program lives",
    needs=(),
    absent=(RESET,),
    tags=("reset", "hostile"),
)
async def not_negotiated(peer: Peer) -> Verdict | None:
    """There are front-ends that send it whatever was negotiated."""
    return await survives_each(peer, Raw.of(ResetDevice()))
