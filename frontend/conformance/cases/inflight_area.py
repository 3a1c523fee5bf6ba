"""The inflight area: where it comes from, and what stands in it while requests are done (B-INF-01 to 10, 19)."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.inflight import InflightArea
from frontend.conformance.load import batch_of, many, start, used_idx
from frontend.conformance.resume import TRACKING, heads, tracked
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Unsupported
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import GetInflightFd
from vhostuser.wire.inflight import VERSION, DescStatePacked, DescStateSplit, QueueRegionPacked, QueueRegionSplit
from vhostuser.wire.records import Inflight

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Device, Peer

INF = ProtocolFeature.INFLIGHT_SHMFD
area_case = partial(case, level=Level.SHOULD, section="Inflight I/O tracking", tags=("inflight",), needs=(INF,))
BOTH = ("split", "packed")
SIZE = 128
TRIES = 40


def _queues(peer: Peer) -> int:
    """Two, if there are two."""
    return min(2, max(peer.profile.queues, peer.model.queues))


@area_case(
    "B-INF-01",
    level=Level.MUST,
    section="GET_INFLIGHT_FD",
    title="GET_INFLIGHT_FD gives memory, and says how large it is and where it begins",
    provoke=f"GET_INFLIGHT_FD for two queues of {SIZE}",
    passes="a descriptor that can be mapped, and a size that is not 0",
)
async def memory_given(peer: Peer) -> None:
    """The back-end decides what it needs; the front-end keeps it for the day on which the back-end is gone."""
    session = await peer.negotiated(protocol=TRACKING)
    (await InflightArea.got(session, _queues(peer), SIZE)).close()


@area_case(
    "B-INF-02",
    level=Level.ROBUSTNESS,
    section="Payload (inflight description)",
    title="The inflight description has 24 bytes both ways",
    provoke="GET_INFLIGHT_FD with 24 bytes",
    passes="a reply of 24",
)
async def description_size(peer: Peer) -> None:
    """Its fields have 20; everybody sends the structure with its padding."""
    session = await peer.negotiated(protocol=TRACKING)
    await session.send(GetInflightFd(0, 0, _queues(peer), SIZE))
    answer = await session.answer(GetInflightFd.spec.request)
    answer.fds.close()
    equal("bytes of the reply to GET_INFLIGHT_FD", len(answer.payload), 24)


@area_case(
    "B-INF-03",
    level=Level.ROBUSTNESS,
    section="GET_INFLIGHT_FD",
    title="Number of queues and queue size come back as they were asked for",
    provoke=f"GET_INFLIGHT_FD for two queues of {SIZE}",
    passes="both are the same in the reply",
)
async def echoed(peer: Peer) -> None:
    """The front-end keeps the reply, and sends it as SET_INFLIGHT_FD later."""
    session = await peer.negotiated(protocol=TRACKING)
    await session.send(GetInflightFd(0, 0, _queues(peer), SIZE))
    answer = await session.answer(GetInflightFd.spec.request)
    answer.fds.close()
    told = answer.parse(Inflight)
    equal("number of queues", told.num_queues, _queues(peer))
    equal("queue size", told.queue_size, SIZE)


@area_case(
    "B-INF-04",
    title="A new area has nothing in flight",
    provoke="GET_INFLIGHT_FD, and a look at the memory",
    passes="version 0 or 1, and no entry in flight",
)
async def new_area(peer: Peer) -> None:
    """What a back-end finds in flight it carries out: rubbish in a new area becomes requests that nobody made."""
    session = await peer.negotiated(protocol=TRACKING)
    with await InflightArea.got(session, _queues(peer), SIZE) as area:
        if area.header().version not in (0, VERSION):
            raise Failure(f"version of a new area: found {area.header().version}, expected 0 or {VERSION}")
        equal("entries in flight in a new area", area.in_flight(), [])


@area_case(
    "B-INF-05",
    level=Level.ROBUSTNESS,
    title="The area is large enough",
    provoke=f"GET_INFLIGHT_FD for two queues of {SIZE}, with split and with packed rings",
    passes="room for a header and an entry per descriptor for each queue",
    variants=BOTH,
)
async def large_enough(peer: Peer) -> None:
    """An entry of the packed format has 32 bytes, of the split format 16."""
    packed = peer.variant == "packed"
    queues = _queues(peer)
    header, state = (QueueRegionPacked, DescStatePacked) if packed else (QueueRegionSplit, DescStateSplit)
    async with tracked(peer, size=SIZE, virtio=VirtioFeature.RING_PACKED if packed else 0) as (device, _):
        with await InflightArea.got(device.session, queues, SIZE, packed=packed) as area:
            least = queues * (header.wire_size() + SIZE * state.wire_size())
            if area.mmap_size < least:
                raise Failure(f"size of the area: found {area.mmap_size}, expected at least {least}")


@area_case(
    "B-INF-06",
    title="A request that is being worked on is recorded as in flight",
    provoke="long requests, with the area watched meanwhile",
    passes="an entry is in flight at some time",
    variants=BOTH,
)
async def recorded(peer: Peer) -> None:
    """If the back-end is killed now, this entry is all that is left of the request."""
    async with tracked(peer, virtio=_format(peer)) as (device, area):
        await start(device)
        requests = batch_of(device, long=True)
        for _ in range(TRIES):
            for request in requests:
                device.ring.add(request)
            device.ring.publish(kick=True)
            seen = _watch(lambda: area.in_flight(device.model.queue))
            await device.ring.finish()
            if seen:
                return
    raise Unsupported("requests are done too fast to be seen in flight")


def _format(peer: Peer) -> int:
    return VirtioFeature.RING_PACKED if peer.variant == "packed" else 0


def _watch(look: Callable[[], object], seconds: float = 0.02) -> bool:
    """Look again and again, without letting anybody else run, for at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if look():
            return True
    return False


async def _settled(device: Device, look: Callable[[], bool], otherwise: str) -> None:
    """What is written after the used index needs a moment."""
    await device.session.in_sync()
    await device.ring.until(look, otherwise)


@area_case(
    "B-INF-07",
    title="A request that is done is not in flight any more",
    provoke="requests, and a look at the area afterwards",
    passes="no entry is in flight",
    variants=BOTH,
)
async def cleared(peer: Peer) -> None:
    """What is left over is carried out a second time after a restart."""
    async with tracked(peer, virtio=_format(peer)) as (device, area):
        await start(device)
        await many(device, batch_of(device), 200)
        await _settled(device, lambda: not area.in_flight(device.model.queue), "entries are in flight still")


@area_case(
    "B-INF-08",
    title="The counter grows in the order in which requests were taken",
    provoke="a ring full of requests, and a look at the counters afterwards",
    passes="each head's counter is larger than that of the head before it",
)
async def counted(peer: Peer) -> None:
    """After a restart requests are carried out in this order: a flush must not overtake the writes before it."""
    async with tracked(peer) as (device, area):
        await start(device)
        requests = batch_of(device, most=8)
        await many(device, requests, len(requests))
        taken = heads(device.ring, len(requests))
        counters = [area.entry(head, device.model.queue).counter for head in taken]
        if sorted(set(counters)) != counters:
            raise Failure(f"counters of heads {taken}: found {counters}, expected them to grow")


@area_case(
    "B-INF-09",
    title="The area's used index follows the ring's",
    provoke="requests, and a look at the area afterwards",
    passes="both are the same",
)
async def used_index(peer: Peer) -> None:
    """The difference tells a restarted back-end whether the last one was interrupted while it gave something back."""
    async with tracked(peer) as (device, area):
        await start(device)
        await many(device, batch_of(device), 100)
        queue = device.model.queue
        await _settled(
            device,
            lambda: area.header(queue).used_idx == used_idx(device.ring),
            "used_idx in the area does not follow used->idx",
        )


@area_case(
    "B-INF-10",
    title="Version and size are recorded while the ring is in use",
    provoke="requests, and a look at the area",
    passes="version 1, and the ring's size",
    variants=BOTH,
)
async def in_use(peer: Peer) -> None:
    """Version 0 means that nothing in it counts."""
    async with tracked(peer, virtio=_format(peer)) as (device, area):
        await start(device)
        await device.works(2)
        queue = device.model.queue
        header = area.packed_header(queue) if area.packed else area.header(queue)
        equal("version", header.version, VERSION)
        equal("desc_num", header.desc_num, device.ring.size)


@area_case(
    "B-INF-19",
    level=Level.ROBUSTNESS,
    section="SET_INFLIGHT_FD",
    title="SET_INFLIGHT_FD comes before memory table and rings",
    provoke="QEMU's order: features, inflight area, memory, rings",
    passes="accepted; requests are done",
)
async def before_memory(peer: Peer) -> None:
    """The document names no order; this is the one that back-ends meet."""
    session = await peer.negotiated(protocol=TRACKING)
    memory = peer.memory()
    rings = peer.rings(session, memory)
    with await InflightArea.got(session, len(rings), rings[0].size) as area:
        await area.share(session)
        await memory.share(session)
        for ring in rings:
            await ring.start(session)
        request = peer.model.request(memory)
        await rings[peer.model.queue].do(request)
