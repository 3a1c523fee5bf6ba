"""Multiple queues (B-MQ)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.datapath import CALL_WITHIN
from frontend.conformance.expect import equal
from frontend.conformance.hostile import Raw, survives_each, watched
from frontend.conformance.queues import all_queues, batch, number_of_queues, request_rings
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetVringCall, SetVringErr, SetVringKick, SetVringNum
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

NEEDS = (ProtocolFeature.MQ,)
SECTION = "Multiple queue support"
TAGS = ("queues",)
BOTH = ("split", "packed")
LOAD = 16
"""Requests in flight per queue."""
PER_PAIR = 2


@case(
    "B-MQ-01",
    level=Level.MUST,
    section="msg GET_QUEUE_NUM",
    title="GET_QUEUE_NUM is answered with at least 1",
    provoke="GET_QUEUE_NUM",
    passes="a number of 64 bits, not 0",
    needs=NEEDS,
    tags=TAGS,
)
async def number(peer: Peer) -> None:
    """A front-end stops if it wants more than that."""
    found = await number_of_queues(await peer.negotiated())
    peer.note(f"{found} queues")
    if found < 1:
        raise Failure(f"GET_QUEUE_NUM: found {found}, expected at least 1")


@case(
    "B-MQ-02",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="The number of queues stays the same on a connection",
    provoke="GET_QUEUE_NUM before and after rings are started",
    passes="both answers are equal",
    needs=NEEDS,
    tags=TAGS,
)
async def constant(peer: Peer) -> None:
    """The front-end makes its queues once."""
    session = await peer.negotiated()
    first = await number_of_queues(session)
    peer.hang_up()
    async with peer.device() as device:
        before = await number_of_queues(device.session)
        await device.works()
        equal("GET_QUEUE_NUM while rings run", await number_of_queues(device.session), before)
    equal("GET_QUEUE_NUM on another connection", before, first)


@case(
    "B-MQ-03",
    level=Level.MUST,
    section="msg GET_QUEUE_NUM",
    title="All queues that were told of work",
    provoke="as many rings as GET_QUEUE_NUM says; a request on each that takes requests",
    passes="all of them are done",
    needs=NEEDS,
    variants=BOTH,
    tags=[*TAGS, "ring"],
)
async def all_work(peer: Peer) -> None:
    """The guest spreads its requests over all of them, and those on a dead one are never seen again."""
    device = await all_queues(peer)
    for ring in request_rings(peer, device):
        await ring.do(device.request(ring.index))


@case(
    "B-MQ-04",
    level=Level.MUST,
    section=SECTION,
    title="Fewer queues than there are will do",
    provoke="as few rings as this type of device works with",
    passes="a request is done",
    needs=NEEDS,
    variants=BOTH,
    tags=[*TAGS, "ring"],
)
async def fewer(peer: Peer) -> None:
    """A guest with one processor uses one queue, however many there are."""
    async with peer.device(rings=peer.model.queues) as device:
        await device.works(2)


@case(
    "B-MQ-05",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="A queue behind the last one is survived",
    provoke="SET_VRING_NUM for the index that GET_QUEUE_NUM says; for a network card for twice that, since some count "
    "pairs",
    passes="refused, closed or accepted; the program lives",
    needs=NEEDS,
    tags=[*TAGS, "hostile"],
)
async def one_behind(peer: Peer) -> Verdict | None:
    """The first index that is too large is the one that a wrong comparison lets through."""
    each = PER_PAIR if peer.profile.device_type == DeviceType.NET else 1
    index = each * await number_of_queues(await peer.negotiated())
    peer.hang_up()
    return await survives_each(peer, Raw.of(SetVringNum(index, 64)))


@case(
    "B-MQ-06",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="Queues may be started in any order",
    provoke="all rings, the last one first",
    passes="a request is done on each that takes requests",
    needs=[*NEEDS, Need.TWO_QUEUES],
    variants=BOTH,
    tags=[*TAGS, "ring"],
)
async def backwards(peer: Peer) -> None:
    """Nothing says that queue 0 comes first."""
    device = await all_queues(peer, backwards=True)
    for ring in request_rings(peer, device):
        await ring.do(device.request(ring.index))


@case(
    "B-MQ-07",
    level=Level.MUST,
    section=SECTION,
    title="Queues under load at the same time do not get mixed up",
    provoke=f"{LOAD} requests on each queue at once",
    passes="each queue gives back its own requests, each once, with their own answers, and signals its own call",
    needs=[*NEEDS, Need.TWO_QUEUES],
    variants=BOTH,
    tags=[*TAGS, "ring"],
)
async def together(peer: Peer) -> None:
    """Threads that share what they should not, show it here."""
    device = await all_queues(peer)
    rings = request_rings(peer, device)
    asked = {ring.index: batch(device, ring, LOAD) for ring in rings}
    for ring in rings:
        done = await ring.finish()
        equal(f"requests back from queue {ring.index}", len({id(request) for request, _ in done}), LOAD)
        for request, used in done:
            if request not in asked[ring.index]:
                raise Failure(f"queue {ring.index} gave back a request of another queue")
            request.check(used)
        if not await ring.called(CALL_WITHIN):
            raise Failure(f"queue {ring.index} gave requests back, and its call was not signalled")
    device.memory.check()


@case(
    "B-MQ-08",
    level=Level.ROBUSTNESS,
    section="msg SET_VRING_KICK",
    title="Queue 255 in messages with descriptors is survived",
    provoke="SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR with 0xff and a pipe",
    passes="refused, closed or accepted; the pipe is closed when the connection is, and the program lives",
    tags=[*TAGS, "hostile"],
)
async def last_expressible(peer: Peer) -> Verdict | None:
    """The index has eight bits in these messages, and not all back-ends have 256 rings."""
    with watched(peer) as watch:
        kinds = (SetVringKick, SetVringCall, SetVringErr)
        verdict = await survives_each(peer, *(Raw.of(kind.of(0xFF), watch.fds) for kind in kinds))
        await watch.check(keep_open="for ring 255")
    return verdict
