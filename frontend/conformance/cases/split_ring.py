"""The data path of split rings (B-SPL)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.datapath import (
    CALL_WITHIN,
    all_kinds,
    cut,
    driver_words,
    halved,
    owed_a_call,
    spared_calls,
    used_length_is_true,
)
from frontend.conformance.expect import equal
from frontend.conformance.load import batch_of, many, prepared, start, used_idx
from frontend.conformance.raw_ring import FLAGS_WORD, RawRing, descs_of
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from frontend.conformance.watch import Footprint, written_by_device
from vhostuser.conformance import Failure, Level, Skip, Verdict
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.split import AvailFlags

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

split = partial(case, level=Level.MUST, tags=("ring",))
EVENT_IDX = VirtioFeature.EVENT_IDX
MANY = 70_000
SMALL = 32
"""Entries of a ring that one chain fills, and no more than any request has bytes."""


@split(
    "B-SPL-01",
    section="V 2.7.8",
    title="A chain is used once",
    provoke="one request",
    passes="the used index grows by one, and the element names the chain",
)
async def once(peer: Peer) -> None:
    """The used ring is how buffers come back; one that comes back twice belongs to somebody else by then."""
    async with peer.device() as device:
        await device.works(1)
        await device.session.in_sync()
        equal("used index after one request", used_idx(device.ring), 1)


@split(
    "B-SPL-02",
    section="V 2.7.8",
    title="The used element names the head of the chain",
    provoke="a chain that begins at descriptor 3 and goes on at 1, then 2",
    passes="id 3",
)
async def head_is_named(peer: Peer) -> None:
    """The driver knows chains by their first descriptor, wherever in the table that stands."""
    async with peer.device() as device:
        raw = RawRing(device.ring)
        request = device.request()
        descs = descs_of(request)
        places = (3, 1, 2, 5, 4)[: len(descs)]
        for place, following, desc in zip(places, (*places[1:], 0), descs, strict=True):
            raw.write(place, type(desc)(desc.addr, desc.length, desc.flags, following))
        raw.offer(3)
        device.ring.notify()
        await device.ring.until(raw.used, "nothing was done")
        head, used = raw.used()[0]
        equal("id in the used element", head, 3)
        request.check(used)


@split(
    "B-SPL-03",
    section="V 2.7.8",
    title="The used length is true",
    provoke="requests into buffers full of a pattern",
    passes="as many bytes have been written, from the first one on",
)
async def used_length(peer: Peer) -> None:
    """A driver takes that many bytes for the device's answer: what was not written is old memory, perhaps a secret."""
    async with peer.device() as device:
        await used_length_is_true(device)


@split(
    "B-SPL-04",
    section="V 2.7.4",
    title="Several readable buffers, then several writable ones",
    provoke="a request with two of each, where it has both",
    passes="it is done",
)
async def two_of_each(peer: Peer) -> None:
    """How a request is cut into buffers says nothing about what it means."""
    async with peer.device() as device:
        await device.ring.do(halved(device.memory, device.request()))


@split(
    "B-SPL-05",
    section="V 2.7.5",
    title="A chain as long as the ring",
    provoke=f"one request in {SMALL} buffers, in a ring of {SMALL}",
    passes="it comes back, done or with an error of the device's",
)
async def full_length(peer: Peer) -> None:
    """The longest chain there can be; counting one too few, a device takes it for a loop."""
    async with peer.device(size=SMALL) as device:
        request = cut(device.memory, device.request(), SMALL)
        device.ring.add(request)
        device.ring.publish()
        ((_, used),) = await device.ring.finish(1)
        try:
            request.check(used)
        except Failure as error:
            peer.note(f"completed with an error: {error}")


@split(
    "B-SPL-06",
    section="V 2.7",
    title="Many chains before one kick",
    provoke="a ring full of requests, one kick",
    passes="all are done",
)
async def burst(peer: Peer) -> None:
    """One notification stands for whatever is in the ring by then."""
    async with peer.device() as device:
        await device.ring.do(*batch_of(device), kick=True)


@split(
    "B-SPL-07",
    section="V 2.7",
    title="Indices wrap at 65536",
    provoke=f"{MANY} requests in a ring of 256",
    passes="all are done, and the position is 4464 at the end",
    tags=("ring", "slow"),
    seconds=60,
)
async def long_run(peer: Peer) -> None:
    """What goes wrong once in 65536 requests goes wrong every second on a busy disk."""
    async with peer.device(size=256) as device:
        await many(device, batch_of(device), MANY)
        equal("position", await device.ring.stop(device.session), MANY % 65536)


@split(
    "B-SPL-08",
    section="V 2.7.5.3",
    title="Indirect tables",
    provoke="requests in tables of four descriptors",
    passes="they are done",
    needs=(VirtioFeature.INDIRECT_DESC,),
)
async def indirect(peer: Peer) -> None:
    """A chain in a table takes one entry of the ring; drivers use them for all that is not tiny."""
    async with peer.device(virtio=VirtioFeature.INDIRECT_DESC) as device:
        for number in range(4):
            await device.ring.do(cut(device.memory, device.request(number), 4))


@split(
    "B-SPL-09",
    section="V 2.7.7",
    title="used_event decides about calls",
    provoke="used_event at the next entry; far ahead",
    passes="a call for each; no calls",
    needs=(EVENT_IDX,),
)
async def used_event(peer: Peer) -> Verdict | None:
    """With EVENT_IDX the driver names the entry that is to wake it: too few calls hang a guest, too many slow it."""
    async with peer.device(virtio=EVENT_IDX) as device:
        words, ring = driver_words(device.ring), device.ring

        def event(distance: int) -> None:
            words[-1] = (used_idx(ring) + distance) & 0xFFFF

        await owed_a_call(device, lambda: event(0), "used_event is the entry that was used")
        return await spared_calls(peer, device, lambda: event(0x4000), "used_event is far ahead")


@split(
    "B-SPL-10",
    section="V 2.7.10",
    title="avail_event says when to kick",
    provoke="requests one by one, kicked only when avail_event asks for it",
    passes="none is left lying",
    needs=(EVENT_IDX,),
)
async def avail_event(peer: Peer) -> None:
    """A device that sleeps without having said so, or before looking once more, is never woken again."""
    async with peer.device(virtio=EVENT_IDX) as device:
        await many(device, [device.request()], 300)


@split(
    "B-SPL-11",
    section="V 2.7.7",
    title="NO_INTERRUPT spares the driver calls",
    provoke="requests without the flag, and with it",
    passes="a call for each; no calls",
)
async def no_interrupt(peer: Peer) -> Verdict | None:
    """A hint, but each call that is not wanted costs the guest an interrupt."""
    async with peer.device(without=EVENT_IDX) as device:
        words = driver_words(device.ring)

        def flags(value: int) -> None:
            words[FLAGS_WORD] = value

        await owed_a_call(device, lambda: flags(0), "NO_INTERRUPT is not set")
        return await spared_calls(peer, device, lambda: flags(AvailFlags.NO_INTERRUPT), "NO_INTERRUPT is set")


@split(
    "B-SPL-12",
    section="V 2.7.10",
    title="NO_NOTIFY is cleared before the device waits",
    provoke="requests one by one, kicked only when the flag is not set",
    passes="none is left lying",
)
async def no_notify(peer: Peer) -> None:
    """A driver that sees the flag does not kick: left set by a device that sleeps, it stops the ring for good."""
    async with peer.device(without=EVENT_IDX) as device:
        await many(device, [device.request()], 300)


@split(
    "B-SPL-13",
    section="V 2.7.8",
    title="Chains may come back in any order, each once",
    provoke="long and short requests at once",
    passes="all come back, none twice",
)
async def any_order(peer: Peer) -> None:
    """Disks finish short reads before long ones; the id says which is which."""
    async with peer.device() as device:
        await all_kinds(peer, device)


@split(
    "B-SPL-14",
    section="V 2.7",
    title="The device does not write to the descriptors and the available ring",
    provoke="requests, with all of guest memory watched",
    passes="both are as they were",
)
async def drivers_parts(peer: Peer) -> None:
    """They are the driver's, which may keep them write-protected, or reuse descriptors without writing them again."""
    async with peer.device() as device:
        ring = device.ring
        for request in batch_of(device, most=4):
            ring.add(request)
        ring.publish(kick=False)
        before = bytes(ring.descriptor.view), bytes(ring.driver.view)
        ring.notify()
        await ring.finish()
        if bytes(ring.descriptor.view) != before[0]:
            raise Failure("the descriptor table was written to")
        if bytes(ring.driver.view) != before[1]:
            raise Failure("the available ring was written to")


@split(
    "B-SPL-15",
    section="V 2.7.5",
    title="Readable buffers are not written to",
    provoke="a request, with what it reads watched",
    passes="it is as it was",
)
async def readable(peer: Peer) -> None:
    """The driver may show the same buffer to somebody else meanwhile."""
    async with peer.device() as device:
        for number in range(3):
            request = device.request(number)
            before = [bytes(each.view) for each in request.readable]
            await device.ring.do(request)
            if before != [bytes(each.view) for each in request.readable]:
                raise Failure("a readable buffer was written to")


@split(
    "B-SPL-16",
    section="V 2.7.5",
    title="Nothing is written beyond a writable buffer",
    provoke="requests, with every other byte of guest memory watched",
    passes="not one has changed",
)
async def nothing_beyond(peer: Peer) -> None:
    """What lies behind a buffer is somebody else's."""
    async with peer.device() as device:
        requests = batch_of(device, most=8)
        for request in requests:
            device.ring.add(request)
        device.ring.publish(kick=False)
        before = Footprint(device.memory)
        device.ring.notify()
        await device.ring.finish()
        room = [(each.addr, len(each)) for request in requests for each in request.writable]
        before.check([*room, *written_by_device(*device.rings)])


@split(
    "B-SPL-17",
    section="V 2.7.9",
    title="With IN_ORDER buffers are used in the order they came in",
    provoke="long and short requests at once",
    passes="used elements keep the order, alone or in batches",
    needs=(VirtioFeature.IN_ORDER,),
)
async def in_order(peer: Peer) -> None:
    """The driver frees what lies before the one that is named: out of order, it frees buffers that are still in use."""
    async with peer.device(virtio=VirtioFeature.IN_ORDER) as device:
        for _ in range(4):
            await all_kinds(peer, device)


@split(
    "B-SPL-18",
    section="V 6.3",
    title="With NOTIFY_ON_EMPTY the last chain brings a call, whatever the flags say",
    provoke="requests with NO_INTERRUPT set, until the ring is empty",
    passes="a call each time it is",
    needs=(VirtioFeature.NOTIFY_ON_EMPTY,),
)
async def notify_on_empty(peer: Peer) -> None:
    """A legacy feature: the driver hears of an idle device although it asked for silence."""
    legacy = VirtioFeature.VERSION_1 | EVENT_IDX
    try:
        device = await start(await prepared(peer, virtio=VirtioFeature.NOTIFY_ON_EMPTY, without=legacy))
    except Closed:
        raise Skip("it serves no driver without VERSION_1, for whom the feature is") from None
    ring, words = device.ring, driver_words(device.ring)
    words[FLAGS_WORD] = AvailFlags.NO_INTERRUPT
    for number in range(4):
        ring.drain_call()
        await ring.do(device.request(number))
        if not await ring.called(CALL_WITHIN):
            raise Failure("no call when the last chain was used, although NOTIFY_ON_EMPTY is negotiated")
