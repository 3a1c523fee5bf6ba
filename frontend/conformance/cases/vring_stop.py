"""Stopping rings: what GET_VRING_BASE answers, and what has happened by then (B-VR-06 to 08, 10 to 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from frontend.conformance.expect import equal
from frontend.conformance.inflight import InflightArea
from frontend.conformance.load import batch_of, drained, many, prepared, start
from frontend.conformance.session import Closed
from frontend.conformance.stopping import stop_under_load
from frontend.conformance.suite import case
from frontend.conformance.watch import Footprint
from vhostuser.conformance import Failure, Level, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetVringBase, SetVringBase, SetVringNum
from vhostuser.wire.records import VringState

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

BOTH = ("split", "packed")
TAGS = ("ring",)
SUSPENDING = ProtocolFeature.INFLIGHT_SHMFD | ProtocolFeature.GET_VRING_BASE_INFLIGHT
QUIET = 0.1
"""Seconds in which a stopped ring is watched."""
HEAD_STARTS = (0, 0, 0.001, 0.002, 0.004, 0.008, 0.016, 0.064)
"""Seconds between the kick and GET_VRING_BASE: a device should be met at the beginning of its work, and amidst it."""


@case(
    "B-VR-06",
    level=Level.MUST,
    section="GET_VRING_BASE",
    title="GET_VRING_BASE is answered with the ring's index and its position",
    provoke="GET_VRING_BASE for each ring, after some requests",
    passes="a reply of 8 bytes that repeats the index",
    tags=TAGS,
    variants=BOTH,
)
async def base_reply(peer: Peer) -> None:
    """A front-end stops many rings, and files each answer under the index that stands in it."""
    # Two where there are two: an answer that always says 0 is right for the first.
    async with peer.device(rings=max(peer.model.queues, min(peer.profile.queues, 2))) as device:
        await device.works(1)
        for ring in device.rings:
            await device.session.send(GetVringBase(ring.index))
            answer = await device.session.answer(GetVringBase.spec.request)
            answer.fds.close()
            equal("bytes of the reply", len(answer.payload), 8)
            equal("index in the reply", answer.parse(VringState).index, ring.index)


@case(
    "B-VR-07",
    level=Level.MUST,
    section="Payload (ring state)",
    title="A split ring's position is its free-running available index, in 16 bits",
    provoke="200 requests from base 65436 on; stop",
    passes="the reply says 100, the upper 16 bits 0",
    tags=TAGS,
)
async def free_running(peer: Peer) -> None:
    """It is no entry of the ring: reduced by the ring's size, the driver's index looks like a jump after a restart."""
    device = await start(await prepared(peer, base=65436))
    await many(device, batch_of(device), 200)
    equal("position", await device.ring.stop(device.session), 100)


@case(
    "B-VR-08",
    level=Level.MUST,
    section="GET_VRING_BASE",
    title="Stop under load and go on with the returned base: nothing is lost, nothing repeated",
    provoke="a full ring, stopped while the device works on it, started again, twelve times",
    passes="every request is completed once",
    tags=TAGS,
)
async def stop_and_restart(peer: Peer) -> None:
    """This is what a guest's pause and a migration are made of."""
    async with peer.device() as device:
        await stop_under_load(peer, device)


@case(
    "B-VR-10",
    level=Level.ROBUSTNESS,
    section="GET_VRING_BASE",
    title="GET_VRING_BASE for a ring that was never started",
    provoke="SET_VRING_BASE 7, then GET_VRING_BASE",
    passes="it says 7, or something else, or closes: the text is silent",
    tags=TAGS,
)
async def never_started(peer: Peer) -> Verdict | None:
    """Front-ends do this when a guest never used a queue: implementations answer 7, 0, or hang up."""
    session = await peer.negotiated()
    try:
        await session.tell(SetVringNum(0, 64))
        await session.tell(SetVringBase(0, 7))
        found = (await session.ask(GetVringBase(0), VringState)).num
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    if found != 7:
        peer.note(f"it says {found:#x}, not 7")
    await session.in_sync()
    return None


@case(
    "B-VR-11",
    level=Level.ROBUSTNESS,
    section="GET_VRING_BASE",
    title="GET_VRING_BASE twice gives one answer",
    provoke="some requests, then the message twice",
    passes="the same value again, or the connection is closed",
    tags=TAGS,
    variants=BOTH,
)
async def twice(peer: Peer) -> Verdict | None:
    """A ring that stands stands where it stood; a front-end may ask again after an error of its own."""
    async with peer.device() as device:
        await device.works(3)
        first = await device.ring.stop(device.session)
        try:
            equal("position the second time", hex(await device.ring.stop(device.session)), hex(first))
        except Closed:
            peer.note("closed the connection")
            return Verdict.REJECT
    return None


@case(
    "B-VR-12",
    level=Level.MUST,
    section="GET_VRING_BASE",
    title="Requests in flight are completed before the reply",
    provoke="a ring full of long requests, and GET_VRING_BASE at once, or a little later, eight times",
    passes="when the reply comes, as much has been used as was taken",
    tags=TAGS,
    variants=BOTH,
)
async def completes_first(peer: Peer) -> None:
    """After the reply the guest's memory may be gone, or elsewhere: what is still under way then is lost, or worse."""
    async with peer.device() as device:
        requests = batch_of(device, long=True)
        for pause in HEAD_STARTS:
            for request in requests:
                device.ring.add(request)
            device.ring.publish(kick=True)
            await trio.sleep(pause)
            base = await device.ring.stop(device.session)
            drained(device.ring, base)
            device.ring.base = base
            await device.ring.start(device.session)
            await device.ring.finish()


@case(
    "B-VR-13",
    level=Level.MUST,
    section="Suspended device state",
    title="After the reply nothing of a stopped ring's guest memory is written",
    provoke="long requests; at once, and when one of them is done: stop all rings, and watch guest memory for a while",
    passes="not a byte changes",
    tags=TAGS,
    variants=BOTH,
)
async def nothing_after(peer: Peer) -> None:
    """A migration copies memory last after the rings have stopped; what is written later is lost."""
    for done in (0, 1):
        async with peer.device() as device:
            for request in batch_of(device, long=True):
                device.ring.add(request)
            device.ring.publish(kick=True)
            await device.ring.finish(done)
            for ring in reversed(device.rings):
                await ring.stop(device.session)
            before = Footprint(device.memory)
            await trio.sleep(QUIET)
            await device.session.in_sync()
            before.check()
        peer.hang_up()


@case(
    "B-VR-14",
    level=Level.MAY,
    section="GET_VRING_BASE",
    title="Requests in flight may be suspended and recorded instead",
    provoke="long requests with GET_VRING_BASE_INFLIGHT negotiated; stop at once, and when one of them is done",
    passes="each request that was taken is used, or recorded in the inflight area",
    needs=(ProtocolFeature.GET_VRING_BASE_INFLIGHT, ProtocolFeature.INFLIGHT_SHMFD),
    tags=TAGS,
)
async def recorded(peer: Peer) -> None:
    """A slow request need not hold up a migration, if whoever goes on knows of it."""
    for done in (0, 1):
        device = await prepared(peer, protocol=SUSPENDING | ProtocolFeature.REPLY_ACK)
        if device.model.queue:
            raise Skip("a device whose first queue takes requests")
        with await InflightArea.got(device.session, len(device.rings), device.ring.size) as area:
            await area.share(device.session)
            await start(device)
            for request in batch_of(device, long=True):
                device.ring.add(request)
            device.ring.publish(kick=True)
            used = len(await device.ring.finish(done))
            base = await device.ring.stop(device.session)
            used += len(device.ring.reap())
            recorded_ = len(area.in_flight())
            if used + recorded_ != base & 0xFFFF:
                raise Failure(f"{base & 0xFFFF} requests were taken, {used} used and {recorded_} recorded as in flight")
            peer.note(f"{recorded_} of {base & 0xFFFF} requests were suspended")
        peer.hang_up()
