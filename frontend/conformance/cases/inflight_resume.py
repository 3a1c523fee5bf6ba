"""Going on after a crash, with what the inflight area says (B-INF-11 to 18, 26)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.load import batch_of, start, used_idx
from frontend.conformance.resume import (
    TRACKING,
    behind_used,
    crafted,
    hand_over,
    heads,
    packed_area,
    resumed,
    tracked,
    use_by_hand,
    used_heads,
)
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.inflight import VERSION, DescStateSplit, QueueRegionSplit
from vhostuser.wire.packed import PackedBase, Position

if TYPE_CHECKING:
    from frontend.conformance.inflight import InflightArea
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.ring import TestRing

INF = ProtocolFeature.INFLIGHT_SHMFD
SUSPENDING = TRACKING | ProtocolFeature.GET_VRING_BASE_INFLIGHT
PACKED = VirtioFeature.RING_PACKED
BOTH = ("split", "packed")
resume = partial(case, level=Level.SHOULD, section="Inflight I/O tracking", tags=("inflight",), needs=(INF,))


async def _killed(peer: Peer, *, after: int) -> None:
    """Kill the back-end with SIGKILL once so many long requests are done, and see the others done by the next one."""
    async with tracked(peer) as (device, area):
        await start(device)
        requests = batch_of(device, long=True)
        for request in requests:
            device.ring.add(request)
        device.ring.publish(kick=True)
        done = await _begun(device, area, after)
        await peer.target.kill()
        done += device.ring.reap()
        peer.note(f"{len(done)} of {len(requests)} requests were done before the kill")
        behind_used(device, [request for request, _ in done])
        device = await resumed(peer, device, area)
        done += await device.ring.finish(len(requests) - len(done))
        for request, used in done:
            request.check(used)
        equal("requests completed", len({id(request) for request, _ in done}), len(requests))
        await device.session.in_sync()
        await device.ring.stays_idle(0.02)
        await device.works(1)
    peer.hang_up()


async def _begun(device: Device, area: InflightArea, after: int) -> list[tuple[Request, int]]:
    """Wait until so many requests are done and one more is in flight, or done as well; what is done."""
    done = await device.ring.finish(after) if after else []

    def begun() -> bool:
        done.extend(device.ring.reap())
        return len(done) > after or bool(area.in_flight(device.model.queue))

    await device.ring.until(begun, f"after {after} requests none was begun")
    return done


@resume(
    "B-INF-11",
    title="After a crash requests in flight are carried out",
    provoke="long requests, SIGKILL, a new start with the area",
    passes="all are completed",
    needs=(INF, Need.PROGRAM),
    variants=BOTH,
)
async def after_a_crash(peer: Peer) -> None:
    """The guest notices nothing but a delay."""
    await _killed(peer, after=0)


@resume(
    "B-INF-13",
    title="After a crash each request is completed once",
    provoke="SIGKILL after none, one, and several of a ring full of long requests",
    passes="every id comes back once",
    needs=(INF, Need.PROGRAM),
    variants=BOTH,
)
async def once_each(peer: Peer) -> None:
    """One completion too many names a buffer that is somebody else's by then."""
    for after in (0, 1, 5):
        await _killed(peer, after=after)


def _split_header(ring: TestRing, *, used: int, last: int = 0, version: int = VERSION) -> QueueRegionSplit:
    return QueueRegionSplit(version=version, desc_num=ring.size, last_batch_head=last, used_idx=used)


def _put_requests(device: Device, count: int) -> list[int]:
    """Requests in the ring of a device that nobody runs; their heads."""
    for number in range(count):
        device.ring.add(device.request(number))
    device.ring.publish(kick=False)
    return heads(device.ring, count)


@resume(
    "B-INF-12",
    title="Requests in flight are carried out in the order of their counters",
    provoke="an area by hand: three requests in flight, counters 3, 1 and 2",
    passes="all three are done, in the order of the counters",
)
async def by_counter(peer: Peer) -> None:
    """Nobody remembers the order of the available ring once some of its requests are done.

    A device that works on several at once may well finish them in another order.
    """
    async with crafted(peer) as (device, area):
        queue = device.model.queue
        chains = _put_requests(device, 3)
        area.put_header(_split_header(device.ring, used=0), queue)
        for head, counter in zip(chains, (3, 1, 2), strict=True):
            area.put_entry(head, DescStateSplit(inflight=1, counter=counter), queue)
        await hand_over(device, area)
        await device.ring.until(lambda: used_idx(device.ring) >= 3, "not all that was in flight was done")
        equal("order of completion", used_heads(device.ring, 3), [chains[1], chains[2], chains[0]])


async def _not_again(device: Device, area: InflightArea, count: int) -> None:
    """With the area handed over, nothing is done again of what was used already; new requests are done."""
    ring, queue = device.ring, device.model.queue
    for each in device.rings:
        each.base = used_idx(each)
    await hand_over(device, area)
    await device.session.in_sync()
    await ring.stays_idle(0.05)
    equal("used index", used_idx(ring), count)
    await device.works(2)
    if left := area.in_flight(queue):
        raise Failure(f"heads {left} are in flight still, although everything is done")


async def _interrupted(peer: Peer, count: int) -> None:
    """Crash after a batch was published in the used ring, before the area knew."""
    async with crafted(peer) as (device, area):
        queue = device.model.queue
        chains = _put_requests(device, count)
        use_by_hand(device.ring, *chains)
        device.ring.reap()
        area.put_header(_split_header(device.ring, used=0, last=chains[-1]), queue)
        for number, head in enumerate(chains):
            before = chains[number - 1] if number else 0
            area.put_entry(head, DescStateSplit(inflight=1, next=before, counter=1 + number), queue)
        await _not_again(device, area, count)


@resume(
    "B-INF-14",
    title="A request that was used, but not yet cleared, is not done again",
    provoke="an area by hand: its used index one behind the ring's, the last batch one request, in flight",
    passes="it is cleared, and not carried out",
)
async def used_not_cleared(peer: Peer) -> None:
    """The crash came between two stores; the list of the last batch tells which entries they were about."""
    await _interrupted(peer, 1)


@resume(
    "B-INF-15",
    title="A batch that was used, but not yet cleared, is not done again",
    provoke="an area by hand: its used index three behind the ring's, and a list of three",
    passes="all three are cleared, and none is carried out",
)
async def batch_not_cleared(peer: Peer) -> None:
    """Back-ends that clear the list's head alone do the others twice."""
    await _interrupted(peer, 3)


@resume(
    "B-INF-16",
    title="In an area of version 0 nothing counts",
    provoke="an area by hand: version 0, entries in flight",
    passes="they are not carried out; new requests are",
)
async def version_0(peer: Peer) -> None:
    """Memory that nobody has written to, or somebody else's."""
    async with crafted(peer) as (device, area):
        queue = device.model.queue
        area.put_header(_split_header(device.ring, used=7, last=3, version=0), queue)
        for number in range(4):
            area.put_entry(number, DescStateSplit(inflight=1, counter=number), queue)
        await _not_again(device, area, 0)


@resume(
    "B-INF-17",
    title="Packed: a completion that reached the driver is settled",
    provoke="an area by hand: two requests in flight, used_idx ahead of old_used_idx for the second, and the ring's "
    "descriptor there is used, where the first began",
    passes="the second is not carried out again; the first is, as it stands in the area",
    needs=(INF, PACKED),
)
async def commit(peer: Peer) -> None:
    """The descriptor's flags are the one store that the driver sees: they decide whether it happened."""
    async with crafted(peer, virtio=PACKED) as (device, area):
        waiting, completed, count = packed_area(device, area, used=True)
        device.ring.reap()
        device.ring.base = int(PackedBase(Position(2 * count, True), Position(count, True)))
        before = [bytes(each.view) for each in completed.writable]
        await hand_over(device, area)
        await _all_done(device, waiting)
        await device.session.in_sync()
        await device.ring.stays_idle(0.05)
        await device.works(2)
        if before != [bytes(each.view) for each in completed.writable]:
            raise Failure("what was used was carried out again: something was written to its buffers")


async def _all_done(device: Device, *requests: Request) -> None:
    """These are completed, each once and right."""
    done = await device.ring.finish(len(requests))
    equal("requests completed", {id(request) for request, _ in done}, {id(request) for request in requests})
    for request, used in done:
        request.check(used)


@resume(
    "B-INF-18",
    title="Packed: a completion that did not reach the driver is taken back",
    provoke="an area by hand: two requests in flight, used_idx ahead of old_used_idx for the second, and the ring's "
    "descriptor there is still available",
    passes="both are carried out",
    needs=(INF, PACKED),
)
async def roll_back(peer: Peer) -> None:
    """The driver waits still: for it, nothing has happened."""
    async with crafted(peer, virtio=PACKED) as (device, area):
        first, second, count = packed_area(device, area, used=False)
        device.ring.base = int(PackedBase(Position(2 * count, True), Position(0, True)))
        await hand_over(device, area)
        await _all_done(device, first, second)
        await device.works(2)


@resume(
    "B-INF-26",
    level=Level.MUST,
    section="GET_VRING_BASE",
    title="Requests that were suspended are completed by whoever goes on",
    provoke="long requests, stop with GET_VRING_BASE_INFLIGHT; a new connection with the area and the base",
    passes="each is completed once",
    needs=(INF, ProtocolFeature.GET_VRING_BASE_INFLIGHT),
    variants=BOTH,
)
async def suspended(peer: Peer) -> None:
    """A migration need not wait for a slow request: the destination does it."""
    async with tracked(peer, protocol=SUSPENDING) as (device, area):
        await start(device)
        requests = batch_of(device, long=True)
        for request in requests:
            device.ring.add(request)
        device.ring.publish(kick=True)
        done = await _begun(device, area, 0)
        for ring in device.rings:
            ring.base = await ring.stop(device.session)
        done += device.ring.reap()
        peer.note(f"{len(requests) - len(done)} of {len(requests)} requests went over")
        device = await resumed(peer, device, area, protocol=SUSPENDING)
        done += await device.ring.finish(len(requests) - len(done))
        equal("requests completed", len({id(request) for request, _ in done}), len(requests))
