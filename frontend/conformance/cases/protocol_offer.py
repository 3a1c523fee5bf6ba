"""What is offered: consistent, and enough to work with (B-PF-04, 09 to 11, 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import PREREQUISITES, ProtocolFeature, VirtioFeature, names
from vhostuser.wire.frontend_messages import GetFeatures, GetProtocolFeatures
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

BIT_30 = VirtioFeature.PROTOCOL_FEATURES
KNOWN = sum(ProtocolFeature)
ON_THE_CHANNEL = (
    ProtocolFeature.BACKEND_SEND_FD
    | ProtocolFeature.HOST_NOTIFIER
    | ProtocolFeature.SHARED_OBJECT
    | ProtocolFeature.SHMEM
)


async def offered(peer: Peer) -> int:
    """All 64 bits of GET_PROTOCOL_FEATURES, on a new connection."""
    session = await peer.connect()
    await session.ask(GetFeatures(), U64)
    return (await session.ask(GetProtocolFeatures(), U64)).value


@case(
    "B-PF-04",
    level=Level.ROBUSTNESS,
    section="Protocol features",
    title="No protocol feature is offered that the document does not have",
    provoke="GET_PROTOCOL_FEATURES",
    passes="no bit above 22; others are told, and do not fail the target: a later text may have them",
    needs=[BIT_30],
)
async def only_known_bits(peer: Peer) -> Verdict | None:
    """QEMU acknowledges whatever is offered below its own highest bit, so an offer is a promise."""
    unknown = await offered(peer) & ~KNOWN
    if not unknown:
        return None
    peer.note(f"offers protocol features that are not in the text of QEMU 11.1: {', '.join(names(unknown))}")
    return Verdict.WARN


@case(
    "B-PF-09",
    level=Level.MUST,
    section="msg GET_VRING_BASE",
    title="GET_VRING_BASE_INFLIGHT is offered only with INFLIGHT_SHMFD",
    provoke="GET_PROTOCOL_FEATURES",
    passes="bit 20 comes with bit 12",
    needs=[ProtocolFeature.GET_VRING_BASE_INFLIGHT],
)
async def suspending_needs_a_record(peer: Peer) -> None:
    """Requests that are suspended have to be written down somewhere, and that is the inflight area."""
    bit = ProtocolFeature.GET_VRING_BASE_INFLIGHT
    if missing := PREREQUISITES[bit] & ~await offered(peer):
        raise Failure(f"GET_VRING_BASE_INFLIGHT is offered without {', '.join(names(missing, ProtocolFeature))}")


@case(
    "B-PF-10",
    level=Level.ROBUSTNESS,
    section="Back-end communication",
    title="What needs the back-end's channel is offered together with it",
    provoke="GET_PROTOCOL_FEATURES",
    passes="bits 10, 11, 18 and 22 come with bit 5; the text only implies it, so an offer without is told",
    needs=[BIT_30],
)
async def channel_features(peer: Peer) -> Verdict | None:
    """Without SET_BACKEND_REQ_FD there is no socket for these requests to go to."""
    features = await offered(peer)
    lost = features & ON_THE_CHANNEL
    if not lost or features & ProtocolFeature.BACKEND_REQ:
        return None
    peer.note(f"offers {', '.join(names(lost, ProtocolFeature))} and not BACKEND_REQ")
    return Verdict.WARN


@case(
    "B-PF-11",
    level=Level.SHOULD,
    section="Multiple queue support",
    title="MQ is always offered",
    provoke="GET_PROTOCOL_FEATURES",
    passes="bit 0 is set",
    needs=[BIT_30],
)
async def mq(peer: Peer) -> None:
    """With it a front-end can ask how many queues there are, also where the number never changes."""
    features = await offered(peer)
    if not features & ProtocolFeature.MQ:
        raise Failure(f"protocol features: found {features:#x}, expected bit 0 (MQ) to be set")


@case(
    "B-PF-14",
    level=Level.MUST,
    section="Communication",
    title="A device works without protocol features",
    provoke="neither protocol feature message, SET_FEATURES without bit 30, rings, requests",
    passes="requests are done",
    variants=["split", "packed"],
    tags=["ring"],
)
async def without_protocol_features(peer: Peer) -> None:
    """Bit 30 is an extension: a front-end that never heard of it gets a working device."""
    async with peer.device(without=BIT_30) as device:
        await device.works(3)
