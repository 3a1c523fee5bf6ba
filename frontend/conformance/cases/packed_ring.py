"""The data path of packed rings (B-PKD)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.datapath import cut, driver_words, owed_a_call, spared_calls
from frontend.conformance.expect import equal
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.inflight import InflightArea
from frontend.conformance.load import batch_of, many, prepared, segments, start
from frontend.conformance.raw_ring import RawRing, descs_of
from frontend.conformance.stopping import stop_under_load
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import SetVringBase
from vhostuser.wire.packed import WRAP_BIT, EventFlags, PackedBase, Position

if TYPE_CHECKING:
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.ring import TestRing

PACKED = VirtioFeature.RING_PACKED
EVENT_IDX = VirtioFeature.EVENT_IDX
SUSPENDING = ProtocolFeature.INFLIGHT_SHMFD | ProtocolFeature.GET_VRING_BASE_INFLIGHT | ProtocolFeature.REPLY_ACK
packed = partial(case, level=Level.MUST, tags=("ring",), needs=(PACKED,))
OFF_WRAP, FLAGS = 0, 1
"""Words of the driver's event suppression."""


@packed(
    "B-PKD-01",
    section="V 2.8",
    title="An available descriptor is consumed, and a used one written in its place",
    provoke="one request",
    passes="a used descriptor whose AVAIL and USED both equal the device's wrap counter",
)
async def consumed(peer: Peer) -> None:
    """Whose turn an entry is, is told by these two bits and nothing else."""
    async with peer.device(virtio=PACKED) as device:
        await device.works(1)


@packed(
    "B-PKD-02",
    section="V 2.8.1",
    title="Wrap counters flip at the end of the ring",
    provoke="requests three times round a ring of 64",
    passes="all are done",
)
async def laps(peer: Peer) -> None:
    """After a lap the same bits mean the opposite; a device that misses one turn takes old entries for new ones."""
    async with peer.device(virtio=PACKED) as device:
        await many(device, batch_of(device), 3 * device.ring.size)


@packed(
    "B-PKD-03",
    section="V 2.8",
    title="A size that is no power of two",
    provoke="a ring of 7, ten times round",
    passes="all are done",
)
async def odd_size(peer: Peer) -> None:
    """Packed rings have any size up to 32768: positions cannot be masked."""
    async with peer.device(virtio=PACKED, size=7) as device:
        await many(device, batch_of(device), 70)


async def _raw_requests(device: Device, requests: list[tuple[Request, int]], raw: RawRing) -> None:
    """Have requests with ids of our choice done, and check ids, places and answers."""
    for request, name in requests:
        raw.push(*descs_of(request), name=name)
    device.ring.notify()
    await device.ring.until(lambda: len(raw.used()) == len(requests), "not all came back where they should")
    by_name = {name: request for request, name in requests}
    equal("ids of the used descriptors", sorted(name for name, _ in raw.used()), sorted(by_name))
    for name, used in raw.used():
        by_name[name].check(used)


@packed(
    "B-PKD-04",
    section="V 2.8",
    title="The used descriptor has the buffer id that the driver gave",
    provoke="requests with ids that are no slot numbers, and stand in the last descriptor of each chain only",
    passes="the same ids come back",
)
async def ids(peer: Peer) -> None:
    """The id is the driver's own name for the chain; a device that answers with the slot frees somebody else's."""
    async with peer.device(virtio=PACKED) as device:
        requests = [(device.request(number), 60 - 7 * number) for number in range(5)]
        raw = RawRing(device.ring)
        raw.decoys = True
        await _raw_requests(device, requests, raw)


@packed(
    "B-PKD-05",
    section="V 2.8.6",
    title="A chain is used by one descriptor, and takes up all of its entries",
    provoke="chains of three or more descriptors",
    passes="each used descriptor stands where its chain, or the one before it, leaves room",
)
async def one_for_a_chain(peer: Peer) -> None:
    """The driver skips as many entries as the chain had; the device has to write the next one just there.

    Requests go one by one, so that their places do not depend on the order of completion.
    """
    async with peer.device(virtio=PACKED) as device:
        raw = RawRing(device.ring)
        for number in range(6):
            request = cut(device.memory, device.request(number), 3)
            raw.push(*descs_of(request), name=number)
            device.ring.notify()
            await device.ring.until(lambda: len(raw.used()) == number + 1, "nothing came back in the right place")  # noqa: B023 - called here
            name, used = raw.used()[number]
            equal("id of the used descriptor", name, number)
            request.check(used)


@packed(
    "B-PKD-06",
    section="V 2.8.7",
    title="Indirect tables",
    provoke="requests in tables of four descriptors, with nothing but WRITE in their flags",
    passes="they are done",
    needs=(PACKED, VirtioFeature.INDIRECT_DESC),
)
async def indirect(peer: Peer) -> None:
    """In a packed table entries follow one another: there is no link, and NEXT means nothing."""
    async with peer.device(virtio=PACKED | VirtioFeature.INDIRECT_DESC) as device:
        for number in range(4):
            await device.ring.do(cut(device.memory, device.request(number), 4))


@packed(
    "B-PKD-07",
    section="V 2.8.10",
    title="The driver's event suppression switches calls on and off",
    provoke="requests with flags ENABLE, and with DISABLE",
    passes="a call for each; no calls",
)
async def suppression(peer: Peer) -> Verdict | None:
    """ENABLE is a promise to a driver that sleeps; DISABLE is a wish of one that is awake anyway."""
    async with peer.device(virtio=PACKED, without=EVENT_IDX) as device:
        words = driver_words(device.ring)

        def flags(value: EventFlags) -> None:
            words[FLAGS] = value

        await owed_a_call(device, lambda: flags(EventFlags.ENABLE), "the driver's flags say ENABLE")
        return await spared_calls(peer, device, lambda: flags(EventFlags.DISABLE), "the driver's flags say DISABLE")


@packed(
    "B-PKD-08",
    section="V 2.8.10",
    title="A call at the descriptor that the driver names",
    provoke="off_wrap at the next entry to be used; at one far ahead",
    passes="a call for each; no calls",
    needs=(PACKED, EVENT_IDX),
)
async def at_a_descriptor(peer: Peer) -> Verdict | None:
    """Bit 15 is the wrap counter of the entry that is meant; without a look at it, every other lap is wrong."""
    async with peer.device(virtio=PACKED | EVENT_IDX, size=8) as device:  # small: this goes round the ring
        words, step = driver_words(device.ring), segments(device.request())
        size, done = device.ring.size, 0

        def event(distance: int) -> None:
            # One request was made for each time we are asked, and one more before the second half begins.
            nonlocal done
            lap, offset = divmod(done * step + distance, size)
            words[OFF_WRAP] = offset | (0 if lap % 2 else WRAP_BIT)
            words[FLAGS] = EventFlags.DESC
            done += 1

        await owed_a_call(device, lambda: event(0), "off_wrap is the entry that was used")
        done += 1
        return await spared_calls(peer, device, lambda: event(size - step), "off_wrap is far ahead")


@packed(
    "B-PKD-09",
    section="Payload (ring state)",
    title="SET_VRING_BASE carries both positions and both wrap counters",
    provoke="rings that begin at entry 3 with wrap counter 1, at entry 5 with 0, and at the last with either",
    passes="requests are done from there on, over the end of the ring",
)
async def base(peer: Peer) -> None:
    """32 bits: available entry, its wrap counter, used entry, its wrap counter.  Half of it is not enough."""
    for place in (Position(3, True), Position(5, False), Position(63, True), Position(63, False)):
        device = await start(await prepared(peer, virtio=PACKED, base=int(PackedBase(place, place))))
        await many(device, batch_of(device), 2 * device.ring.size // segments(device.request()))
        peer.hang_up()


def _position(ring: TestRing, entries: int) -> Position:
    """Where a new ring stands after so many entries."""
    lap, offset = divmod(entries, ring.size)
    return Position(offset, not lap % 2)


@packed(
    "B-PKD-10",
    section="Payload (ring state)",
    title="GET_VRING_BASE tells all 32 bits of a packed ring's position",
    provoke="stop after 1 request, after 5, and in the second lap",
    passes="both positions and both wrap counters are where the requests ended",
)
async def base_reply(peer: Peer) -> None:
    """A front-end hands the number back as it is; bits that are missing make the ring go on elsewhere."""
    for count in (1, 5, 64 + 3):
        async with peer.device(virtio=PACKED) as device:
            request = device.request()
            await many(device, [request], count)
            place = _position(device.ring, count * segments(request))
            expected = int(PackedBase(place, place))
            equal(f"position after {count} requests", hex(await device.ring.stop(device.session)), hex(expected))
        peer.hang_up()


@packed(
    "B-PKD-11",
    section="Payload (ring state)",
    title="While requests are suspended the used position lies behind the available one",
    provoke="long requests with GET_VRING_BASE_INFLIGHT negotiated; stop",
    passes="the difference is what was taken and not used",
    needs=(PACKED, ProtocolFeature.GET_VRING_BASE_INFLIGHT, ProtocolFeature.INFLIGHT_SHMFD),
)
async def suspended(peer: Peer) -> None:
    """Only then do the two differ in this message, and only both together say where to go on."""
    device = await prepared(peer, virtio=PACKED, protocol=SUSPENDING)
    with await InflightArea.got(device.session, len(device.rings), device.ring.size, packed=True) as area:
        await area.share(device.session)
        await start(device)
        requests = batch_of(device, long=True)
        for request in requests:
            device.ring.add(request)
        device.ring.publish(kick=True)
        both = PackedBase.of(await device.ring.stop(device.session))
        used = device.ring.reap()
        entries = sum(segments(request) for request, _ in used)
        equal("used position", both.next_used, _position(device.ring, entries))
        if both.next_avail == both.next_used and area.in_flight(device.model.queue):
            raise Failure("requests are recorded as in flight, and the two positions are the same")
        peer.note(f"{len(requests) - len(used)} of {len(requests)} requests were not used when the ring stopped")


@packed(
    "B-PKD-12",
    section="GET_VRING_BASE",
    title="Stop under load and go on with the returned base: nothing is lost, nothing repeated",
    provoke="a full ring, stopped while the device works on it, started again, twelve times",
    passes="every request is completed once",
)
async def stop_and_restart(peer: Peer) -> None:
    """This is what a guest's pause and a migration are made of."""
    async with peer.device(virtio=PACKED) as device:
        await stop_under_load(peer, device)


@packed(
    "B-PKD-13",
    level=Level.ROBUSTNESS,
    section="Payload (ring state)",
    title="The bits of a packed position in a split ring's base",
    provoke="SET_VRING_BASE 0x80058005 where RING_PACKED was not negotiated",
    passes="ignored, refused or closed; the back-end lives",
    needs=(),
)
async def packed_base_of_split(peer: Peer) -> Verdict | None:
    """The upper half has no meaning there; taken for an index, it leads out of every ring."""
    return await survives_each(peer, *(Raw.of(SetVringBase(0, value)) for value in (0x8005_8005, 0xFFFF_0000)))


@packed(
    "B-PKD-14",
    section="V 2.8.1; Payload (ring state)",
    title="A new packed ring begins at 0x80008000: entry 0, wrap counters 1",
    provoke="a new ring with that base",
    passes="requests are done",
)
async def initial_base(peer: Peer) -> None:
    """Both wrap counters begin at 1, so that memory full of zeros has nothing available in it."""
    device = await prepared(peer, virtio=PACKED, base=0x8000_8000)
    device.ring.descriptor.view[:] = bytes(len(device.ring.descriptor))
    await start(device)
    await device.works(3)
