"""Enabled and disabled rings (B-STA-07 to 11, 14, 15, 17)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.effects import Seen, request_on_disabled_ring, without_effect
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Verdict, Wedged
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import SetVringEnable

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer

PF = VirtioFeature.PROTOCOL_FEATURES
BOTH = ("split", "packed")
state = partial(case, level=Level.MUST, section="Ring states", tags=("ring",), needs=(PF,))


async def _disable(device: Device) -> None:
    """All rings of a device that has just worked; what is disabled by then is certain."""
    for ring in device.rings:
        await ring.enable(device.session, False)
    await device.session.in_sync()


@state(
    "B-STA-07",
    title="SET_VRING_ENABLE 0 for a stopped ring is remembered",
    provoke="enabled and running; stop; disable; start; a request",
    passes="it has no effect",
    variants=BOTH,
)
async def disabled_before(peer: Peer) -> Verdict | None:
    """A ring that was disabled while it was stopped does not come back to life by itself."""
    async with peer.device() as device:
        await device.works(1)
        for ring in device.rings:
            ring.base = await ring.stop(device.session)
        await _disable(device)
        for ring in device.rings:
            await ring.configure(device.session)
            await ring.send_kick(device.session)
        return await without_effect(peer, device)


@state(
    "B-STA-08",
    level=Level.ROBUSTNESS,
    title="Requests that wait when a ring is enabled need no second kick",
    provoke="disable, a request with its kick, enable",
    passes="it is done, or was dropped before",
    variants=BOTH,
)
async def enabled_again(peer: Peer) -> None:
    """The driver has kicked once, and has no reason to do so again."""
    async with peer.device() as device:
        await device.works(1)
        await _disable(device)
        if await request_on_disabled_ring(device) is not Seen.LEFT:
            return
        for ring in device.rings:
            await ring.enable(device.session)
        try:
            await device.ring.finish(within=2.0)
        except Wedged:
            raise Failure("a request that was kicked while the ring was disabled was not done within 2 s") from None


@state(
    "B-STA-09",
    title="A ring that is started and disabled is processed without effect",
    provoke="a request on such a ring",
    passes="nothing comes of it; a network card drops what it is to send",
    variants=BOTH,
)
async def processed_without_effect(peer: Peer) -> Verdict | None:
    """A network card that leaves packets in a disabled ring stops the guest's network stack for good."""
    async with peer.device() as device:
        await device.works(1)
        await _disable(device)
        if device.model.name == "net":
            seen = await request_on_disabled_ring(device)
            if seen is Seen.LEFT:
                raise Failure("a packet on a disabled transmit ring was left there, expected it to be dropped")
            return None
        return await without_effect(peer, device)


@state(
    "B-STA-10",
    section="SET_VRING_ENABLE",
    title="SET_VRING_ENABLE 0 ends all effects of a running ring",
    provoke="disable, a request; twice",
    passes="it has no effect; once enabled again, the ring works",
    variants=BOTH,
)
async def disabled(peer: Peer) -> Verdict | None:
    """The front-end has been told that the ring is disabled by the answer, and goes by it."""
    verdicts = []
    for _ in range(2):
        async with peer.device() as device:
            await device.works(1)
            await _disable(device)
            verdicts.append(await without_effect(peer, device))
            for ring in device.rings:
                await ring.enable(device.session)
                ring.notify()
            await device.works(1) if not device.ring.queue.outstanding else await device.ring.finish()
        peer.hang_up()
    return Verdict.WARN if Verdict.WARN in verdicts else None


@state(
    "B-STA-11",
    section="SET_VRING_ENABLE",
    title="SET_VRING_ENABLE is about one ring",
    provoke="two rings; one is disabled; requests on the other",
    passes="they are done",
    needs=(PF, Need.TWO_QUEUES),
    variants=BOTH,
)
async def one_ring(peer: Peer) -> None:
    """A guest that uses fewer queues than there are goes on using those."""
    async with peer.device(rings=max(2, peer.model.queues)) as device:
        await device.other.enable(device.session, False)
        await device.works(3)


@state(
    "B-STA-14",
    level=Level.ROBUSTNESS,
    section="SET_VRING_ENABLE",
    title="A ring is enabled twice",
    provoke="SET_VRING_ENABLE 1, again; disable twice as well",
    passes="accepted; the ring works",
)
async def twice(peer: Peer) -> None:
    """The message sets a state, and does not count."""
    async with peer.device() as device:
        for on in (True, False, False, True, True):
            await device.ring.enable(device.session, on)
        device.ring.notify()
        await device.works(2)


@state(
    "B-STA-15",
    level=Level.ROBUSTNESS,
    section="SET_VRING_ENABLE",
    title="Neither enabled nor disabled",
    provoke="SET_VRING_ENABLE 2, and 0xffffffff",
    passes="refused, ignored, taken for 1, or closed; the back-end lives",
    tags=("hostile",),
)
async def neither(peer: Peer) -> Verdict | None:
    """The field has 32 bits, and two values."""
    return await survives_each(peer, *(Raw.of(SetVringEnable(0, value)) for value in (2, 0xFFFF_FFFF)))


@state(
    "B-STA-17",
    section="REPLY_ACK",
    title="When SET_VRING_ENABLE is acknowledged it is in effect",
    provoke="disable, enable with need_reply, a request right behind the acknowledgement; ten times",
    passes="one acknowledgement of 0 each; the request is done",
    needs=(PF, ProtocolFeature.REPLY_ACK),
    variants=BOTH,
)
async def in_effect(peer: Peer) -> None:
    """This is what the acknowledgement is for: the next thing that happens may count on it."""
    async with peer.device() as device:
        for number in range(10):
            await device.ring.enable(device.session, False)
            await device.ring.enable(device.session)
            await device.ring.do(device.request(number), kick=True)
        await device.session.in_sync()
