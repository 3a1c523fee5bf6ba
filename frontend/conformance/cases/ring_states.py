"""Started and stopped rings (B-STA-01 to 06, 12, 13, 16, 18 to 22)."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

import trio

from frontend.conformance.effects import without_effect
from frontend.conformance.expect import equal
from frontend.conformance.load import prepared, start
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from frontend.conformance.watch import Footprint
from vhostuser.conformance import Failure, Level, Need, Verdict, Wedged
from vhostuser.fd import Fd, Fds
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetProtocolFeatures,
    GetQueueNum,
    SetBackendReqFd,
    SetVringEnable,
)
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer

state = partial(case, level=Level.MUST, section="Ring states", tags=("ring",))
suspended = partial(case, level=Level.MUST, section="Suspended device state", tags=("ring",))
BOTH = ("split", "packed")
PF = VirtioFeature.PROTOCOL_FEATURES
RESTARTS = 20
WATCHED = 0.1
"""Seconds in which something that must not happen would be seen."""


async def _configured(peer: Peer, *, without: int = 0) -> Device:
    """Rings that have all they need but the kick descriptor."""
    device = await prepared(peer, without=without)
    for ring in device.rings:
        await ring.configure(device.session)
    return device


async def _started(device: Device, *, enable: bool) -> None:
    """SET_VRING_KICK for all rings, and nothing written to the descriptor."""
    for ring in device.rings:
        await ring.send_kick(device.session)
        if enable:
            await ring.enable(device.session)


@state(
    "B-STA-01",
    title="With PROTOCOL_FEATURES a ring starts disabled",
    provoke="SET_VRING_KICK without SET_VRING_ENABLE; a request",
    passes="it has no effect",
    needs=(PF,),
    variants=BOTH,
)
async def starts_disabled(peer: Peer) -> Verdict | None:
    """A front-end sets up all rings, and enables those that the guest's driver wants."""
    device = await _configured(peer)
    await _started(device, enable=False)
    return await without_effect(peer, device)


@state(
    "B-STA-02",
    title="A stopped ring is not touched",
    provoke="everything but SET_VRING_KICK; a request in the ring",
    passes="not a byte of guest memory changes",
    variants=BOTH,
)
async def stopped_untouched(peer: Peer) -> None:
    """Before the kick descriptor comes the ring is the front-end's, which may be loading it from a file."""
    device = await _configured(peer)
    for ring in device.rings:
        await ring.enable(device.session)
    device.ring.add(device.request())
    device.ring.publish(kick=True)
    before = Footprint(device.memory)
    await device.session.in_sync()
    await trio.sleep(WATCHED)
    before.check()


@state(
    "B-STA-03",
    title="SET_VRING_KICK starts the ring",
    provoke="SET_VRING_KICK, SET_VRING_ENABLE, requests",
    passes="they are done",
    variants=BOTH,
)
async def kick_starts(peer: Peer) -> None:
    """There is no message "start": this one is it."""
    device = await _configured(peer)
    await _started(device, enable=True)
    await device.ring.do(device.request(), kick=True)


@state(
    "B-STA-04",
    level=Level.SHOULD,
    title="Requests that wait when the ring starts need no kick",
    provoke="a request in the ring, SET_VRING_KICK, SET_VRING_ENABLE, and nothing written to the descriptor",
    passes="it is done",
    variants=BOTH,
)
async def waiting_requests(peer: Peer) -> None:
    """After a migration nobody may kick: the guest did so long ago, elsewhere.  In the text since QEMU 11.1."""
    device = await _configured(peer)
    request = device.request()
    device.ring.add(request)
    device.ring.publish(kick=False)
    await _started(device, enable=True)
    try:
        ((_, used),) = await device.ring.finish(within=2.0)
    except Wedged:
        raise Failure("a request that was there when the ring started was not done within 2 s without a kick") from None
    request.check(used)


@state(
    "B-STA-05",
    title="A kick right after SET_VRING_KICK does no harm",
    provoke="a request in the ring, SET_VRING_KICK, SET_VRING_ENABLE, and a kick",
    passes="it is done once",
    variants=BOTH,
)
async def kick_at_once(peer: Peer) -> None:
    """Front-ends kick, because back-ends of old needed it."""
    device = await _configured(peer)
    device.ring.add(device.request())
    device.ring.publish(kick=True)
    await _started(device, enable=True)
    device.ring.notify()
    await device.ring.finish(1)
    await device.session.in_sync()
    await device.ring.stays_idle(0.02)
    await device.works(2)


@state(
    "B-STA-06",
    title="SET_VRING_ENABLE for a stopped ring is remembered",
    provoke="SET_VRING_ENABLE 1, then SET_VRING_KICK; requests",
    passes="they are done",
    needs=(PF,),
    variants=BOTH,
)
async def enabled_before(peer: Peer) -> None:
    """Enabled and started are two things, in either order."""
    device = await _configured(peer)
    for ring in device.rings:
        await ring.enable(device.session)
    await _started(device, enable=False)
    await device.ring.do(device.request(), kick=True)


@state(
    "B-STA-12",
    title="Stopping a ring keeps it enabled",
    provoke="stop, set up and SET_VRING_KICK again, without SET_VRING_ENABLE; requests",
    passes="they are done",
    variants=BOTH,
)
async def stays_enabled(peer: Peer) -> None:
    """GET_VRING_BASE says stop, and nothing of disabling."""
    async with peer.device() as device:
        await device.works(1)
        for ring in device.rings:
            ring.base = await ring.stop(device.session)
            await ring.configure(device.session)
            await ring.send_kick(device.session)
        await device.ring.do(device.request(), kick=True)


@state(
    "B-STA-13",
    title="A stopped ring starts again with SET_VRING_KICK",
    provoke="stop and start one ring, twenty times, with requests in between, and one that was kicked while it stood",
    passes="they are done",
    variants=BOTH,
)
async def restarted(peer: Peer) -> None:
    """Guests pause, resume, and reload drivers.

    A kick to a stopped ring stays in the descriptor, which is then readable when SET_VRING_KICK gives it: the ring is
    processed at once, maybe by another thread than the one that is still about to start it.  No second kick comes.
    """
    async with peer.device() as device:
        ring = device.ring
        for number in range(RESTARTS):
            await device.works(1)
            ring.base = await ring.stop(device.session)
            ring.add(device.request(number))
            ring.publish(kick=True)
            await ring.configure(device.session)
            await ring.send_kick(device.session)
            await ring.enable(device.session)
            for request, used in await ring.finish(1):
                request.check(used)
        await device.works(1)


@state(
    "B-STA-16",
    level=Level.ROBUSTNESS,
    title="SET_VRING_ENABLE without PROTOCOL_FEATURES",
    provoke="SET_VRING_ENABLE where bit 30 was not acknowledged",
    passes="refused, ignored or closed; the back-end lives",
    tags=("hostile",),
    absent=(PF,),
)
async def enable_without_feature(peer: Peer) -> Verdict | None:
    """Without the feature rings are always enabled, and the message does not exist."""
    try:
        session = await peer.negotiated(without=PF)
        await session.send(SetVringEnable(0, 0))
        outcome = await session.outcome(SetVringEnable.spec.request)
    except Closed as closed:
        peer.note(str(closed))
        await peer.alive()
        return Verdict.REJECT
    peer.note(outcome.value)
    await peer.alive()
    return Verdict.REJECT if outcome.refused else None


async def _all_stopped(device: Device) -> None:
    for ring in device.rings:
        ring.base = await ring.stop(device.session)


@suspended(
    "B-STA-18",
    title="When all rings are stopped guest memory is not written",
    provoke="requests, stop all, one more request and a kick",
    passes="not a byte changes",
    variants=BOTH,
)
async def no_writes(peer: Peer) -> None:
    """This is the state in which memory is copied for the last time, and devices are saved."""
    async with peer.device() as device:
        await device.works(3)
        await _all_stopped(device)
        device.ring.add(device.request())
        device.ring.publish(kick=False)
        before = Footprint(device.memory)  # before the kick: a ring that goes on is done with it in no time
        device.ring.notify()
        await device.session.in_sync()
        await trio.sleep(WATCHED)
        before.check()
        equal("requests done in a stopped ring", len(device.ring.reap()), 0)


@suspended(
    "B-STA-19",
    title="When all rings are stopped no call is made",
    provoke="requests, stop all, one more request and a kick",
    passes="the call descriptors stay silent",
    variants=BOTH,
)
async def no_calls(peer: Peer) -> None:
    """The guest may run elsewhere by now, or not at all."""
    async with peer.device() as device:
        await device.works(3)
        await _all_stopped(device)
        for ring in device.rings:
            ring.drain_call()
        device.ring.add(device.request())
        device.ring.publish(kick=True)
        await device.session.in_sync()
        await trio.sleep(WATCHED)
        called = [ring.index for ring in device.rings if ring.drain_call()]
        equal("rings whose call descriptor was signalled after the reply to GET_VRING_BASE", called, [])


@suspended(
    "B-STA-20",
    title="When all rings are stopped the back-end sends no requests",
    provoke="a back-end channel; requests, stop all",
    passes="nothing comes on it",
    needs=(Need.CHANNEL, ProtocolFeature.BACKEND_REQ),
)
async def no_requests(peer: Peer) -> None:
    """A front-end that saves its state cannot answer, and what it would be asked to change is saved already.

    A change of configuration, which would be the occasion for one, cannot be caused from outside in general.
    """
    device = await prepared(peer, protocol=ProtocolFeature.BACKEND_REQ | ProtocolFeature.REPLY_ACK)
    ours, theirs = socket.socketpair()
    with ours:
        await device.session.tell(SetBackendReqFd(), Fds.of(Fd(theirs.detach())))
        await start(device)
        await device.works(2)
        await _all_stopped(device)
        ours.setblocking(False)
        with trio.move_on_after(WATCHED):
            await trio.lowlevel.wait_readable(ours)
            if data := ours.recv(4096):
                raise Failure(f"{len(data)} bytes on the back-end channel of a device whose rings are all stopped")
            peer.note("closed the channel")
        await device.session.in_sync()


@suspended(
    "B-STA-21",
    title="When all rings are stopped messages are answered",
    provoke="requests, stop all, questions",
    passes="GET_FEATURES, GET_PROTOCOL_FEATURES and GET_QUEUE_NUM are answered as before",
)
async def still_answers(peer: Peer) -> None:
    """Only the data path is suspended."""
    async with peer.device() as device:
        session = device.session
        await device.works(1)
        await _all_stopped(device)
        await session.in_sync()
        if session.features & PF:
            found = (await session.ask(GetProtocolFeatures(), U64)).value
            equal("protocol features", hex(found), hex(session.protocol_offered))
        if session.protocol & ProtocolFeature.MQ:
            await session.ask(GetQueueNum(), U64)
        await start(device)
        await device.works(1)


@suspended(
    "B-STA-22",
    title="A device with one ring running is not suspended",
    provoke="two rings run; one is stopped; requests on the other, with calls asked for",
    passes="they are done, and called",
    needs=(Need.TWO_QUEUES,),
    variants=BOTH,
)
async def one_is_enough(peer: Peer) -> None:
    """Suspended is the device only when its last ring has stopped."""
    async with peer.device(rings=max(2, peer.model.queues)) as device:
        await device.other.stop(device.session)
        await device.works(2)
        device.ring.queue.arm()
        device.ring.drain_call()
        await device.ring.do(device.request())
        if not await device.ring.called(1.0):
            raise Failure("no call within 1 s of a completion, with another ring stopped")
