"""PROTOCOL_FEATURES in SET_FEATURES, and what it does to rings (B-FEAT-09 to 12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic, bring_up
from frontend.conformance.expect import recorded
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

NEIGHBOURS = 0b11110
"""Bits 1 to 4: those of the number 30, where the bit 30 was meant."""
GLANCE = 0.5
"""Seconds in which a ring that is not disabled would have done a request."""


@case(
    "B-FEAT-09",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="SET_FEATURES with PROTOCOL_FEATURES leaves running rings as they are",
    provoke="the same SET_FEATURES once more on an enabled, running ring; then requests",
    passes="requests are done as before; the text only implies it, so what happens is recorded",
    needs=[VirtioFeature.PROTOCOL_FEATURES],
    variants=["split", "packed"],
    tags=["ring"],
)
async def again_with_bit_30(peer: Peer) -> Verdict | None:
    """QEMU sends SET_FEATURES on live rings to switch logging; whoever disables them then stops the guest."""
    async with peer.device() as device:
        await device.works()
        await device.session.set_features(device.session.features)
        verdict = await recorded(peer, "a request after SET_FEATURES", device.works(2))
        if verdict is not Verdict.REJECT:
            await device.session.in_sync()
    return verdict


@case(
    "B-FEAT-10",
    level=Level.MUST,
    section="Ring states",
    title="SET_FEATURES without PROTOCOL_FEATURES enables all rings",
    provoke="SET_FEATURES without bit 30; rings are started, SET_VRING_ENABLE is never sent",
    passes="a request is done",
    variants=["split", "packed"],
    tags=["ring"],
)
async def enabled_from_the_start(peer: Peer) -> None:
    """Front-ends older than protocol features do not know SET_VRING_ENABLE, and it is not legal without the bit."""
    async with peer.device(without=VirtioFeature.PROTOCOL_FEATURES) as device:
        await device.works(2)


@case(
    "B-FEAT-11",
    level=Level.MUST,
    section="Ring states",
    title="Taking PROTOCOL_FEATURES back enables rings that were disabled",
    provoke="SET_FEATURES with bit 30, rings started and not enabled, SET_FEATURES without it; then a request",
    passes="it is done",
    needs=[VirtioFeature.PROTOCOL_FEATURES],
    variants=["split", "packed"],
    tags=["ring"],
)
async def bit_30_taken_back(peer: Peer) -> None:
    """Each SET_FEATURES counts anew: without the bit nobody can enable a ring, so it is enabled."""
    device = await bring_up(peer, await peer.negotiated(basic(peer)), peer.memory(), enable=False)
    await device.session.set_features(device.session.features & ~VirtioFeature.PROTOCOL_FEATURES)
    device.ring.notify()
    await device.works(2)


@case(
    "B-FEAT-12",
    level=Level.MUST,
    section="Ring states",
    title="Bit 30 decides whether rings are enabled, and no other bit",
    provoke="rings started and not enabled, with bit 30 and with those of bits 1 to 4 that are offered all set, "
    "and once more with all of them clear; a request each time",
    passes="the request is left alone both times, or treated alike",
    needs=[VirtioFeature.PROTOCOL_FEATURES],
    tags=["ring"],
)
async def bit_30_alone(peer: Peer) -> None:
    """There are back-ends that test the features against the number 30, which is bits 1 to 4: a disk with SEG_MAX
    then has other ring states than one without."""
    offered = peer.profile.features & NEIGHBOURS
    if not offered:
        peer.note("none of bits 1 to 4 is offered: seen with all of them clear only")
    done = {bits: await _served_while_disabled(peer, bits) for bits in {0, offered}}
    if len(set(done.values())) > 1:
        words = [f"{'done' if served else 'left alone'} with bits {bits:#x}" for bits, served in done.items()]
        raise Failure(f"a request on a ring that is not enabled: found it {', '.join(words)}; expected no difference")
    if any(done.values()):
        peer.note("requests on a ring that was never enabled come back in any case (see B-STA)")


async def _served_while_disabled(peer: Peer, bits: int) -> bool:
    device = await bring_up(peer, await peer.negotiated(basic(peer) | bits), peer.memory(), enable=False)
    device.ring.add(device.request())
    device.ring.publish(kick=True)
    try:
        await device.ring.stays_idle(GLANCE)
    except Failure:
        return True
    finally:
        await device.session.in_sync()
        peer.hang_up()
    return False
