"""Hostile rings: indices, links and flags that cannot be true (B-HOR-01 to 06, 26, 31 to 36)."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.endure import endures, endures_each
from frontend.conformance.raw_ring import NEXT, RING_WORD, Desc, RawRing, descs_of
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Level, Need, Verdict
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Device, Peer

SIZE = 64
PACKED = VirtioFeature.RING_PACKED
hostile = partial(case, level=Level.ROBUSTNESS, tags=("hostile", "ring"), passes="it survives, and harms nothing else")


@hostile(
    "B-HOR-01",
    section="V 2.7.6",
    title="An entry of the available ring names no descriptor",
    provoke="heads 64, 9999 and 65535 in a ring of 64",
)
async def head_out_of_range(peer: Peer) -> Verdict | None:
    """The head is an index into the descriptor table; unchecked, it reads descriptors from whatever lies behind it."""
    return await endures_each(peer, *(_offering(head) for head in (SIZE, 9999, 65535)))


def _offering(head: int) -> Callable[[Device, RawRing], None]:
    return lambda device, raw: raw.offer(head)


@hostile(
    "B-HOR-02",
    section="V 2.7.6",
    title="The available index jumps by more than the ring holds",
    provoke="avail.idx + 1000 in a ring of 64",
)
async def index_jumps(peer: Peer) -> Verdict | None:
    """No more chains can be available than there are descriptors: a device that believes it goes round and round."""
    return await endures(peer, lambda device, raw: raw.set_idx(raw.idx + 1000))


@hostile(
    "B-HOR-03",
    section="V 2.7.6",
    title="The available index goes backwards",
    provoke="avail.idx - 1",
)
async def index_goes_back(peer: Peer) -> Verdict | None:
    """Modulo 65536 one step back is 65535 steps ahead, more than any ring holds."""
    return await endures(peer, lambda device, raw: raw.set_idx(raw.idx - 1))


@hostile(
    "B-HOR-04",
    section="V 2.7.5",
    title="A descriptor's next names no descriptor",
    provoke="next 64, 9999 and 65535 in a ring of 64",
)
async def next_out_of_range(peer: Peer) -> Verdict | None:
    """Like the head, next is an index from the driver, and has to be checked each time it is followed."""
    return await endures_each(peer, *(_linking(following) for following in (SIZE, 9999, 65535)))


def _linking(*following: int) -> Callable[[Device, RawRing], None]:
    """A chain whose descriptors all go on, to where they are told."""

    def provoke(device: Device, raw: RawRing) -> None:
        desc = replace(descs_of(device.request())[0], flags=NEXT)
        raw.push(*(replace(desc, next=each) for each in following))

    return provoke


@hostile("B-HOR-05", section="V 2.7.5", title="A chain that points to itself", provoke="next = its own index")
async def loop_of_one(peer: Peer) -> Verdict | None:
    """A chain has no more descriptors than the ring; whoever does not count follows this one for ever."""
    return await endures(peer, _linking(0))


@hostile("B-HOR-06", section="V 2.7.5", title="A chain that is a loop of two", provoke="0 leads to 1, 1 leads to 0")
async def loop_of_two(peer: Peer) -> Verdict | None:
    """A check for "next is not myself" does not see this one."""
    return await endures(peer, _linking(1, 0))


@hostile(
    "B-HOR-26",
    section="V 2.7.6",
    title="The same chain is made available twice",
    provoke="one head, or one buffer id, twice before it is used",
    variants=("split", "packed"),
)
async def twice(peer: Peer) -> Verdict | None:
    """The device has two requests that share buffers and a name; freeing something per name would free it twice."""

    def provoke(device: Device, raw: RawRing) -> None:
        descs = descs_of(device.request())
        head = raw.push(*descs)
        if device.ring.packed:
            raw.push(*descs, name=head)
        else:
            raw.offer(head)

    return await endures(peer, provoke)


@hostile(
    "B-HOR-31",
    section="V 2.7.7",
    title="Garbage in the available ring's flags and used_event",
    provoke="random words there, with good chains",
)
async def garbage_flags(peer: Peer) -> Verdict | None:
    """They only decide about notifications: whatever stands there, nothing else may depend on it."""
    numbers = random.Random(31)
    return await endures_each(
        peer, *(_event_words(numbers, 0, RING_WORD + SIZE) for _ in range(3)), virtio=VirtioFeature.EVENT_IDX
    )


def _event_words(numbers: random.Random, *words: int) -> Callable[[Device, RawRing], None]:
    """Good chains, and random numbers in words of the driver's part of the ring."""

    def provoke(device: Device, raw: RawRing) -> None:
        for word in words:
            raw.words[word] = numbers.getrandbits(16)
        for number in range(3):
            raw.push(*descs_of(device.request(number)))

    return provoke


@hostile(
    "B-HOR-32",
    section="V 2.8.6",
    title="A packed chain that never ends",
    provoke="every descriptor of the ring available and with NEXT",
    needs=(PACKED,),
)
async def endless_chain(peer: Peer) -> Verdict | None:
    """The device comes to its own first descriptor again, one lap later, and has to know it."""

    def provoke(device: Device, raw: RawRing) -> None:
        raw.push(*[replace(descs_of(device.request())[0], flags=NEXT)] * SIZE)

    return await endures(peer, provoke, virtio=PACKED)


@hostile(
    "B-HOR-33",
    section="V 2.8",
    title="A buffer id beyond the ring's size",
    provoke="id 0xffff in a ring of 64",
    needs=(PACKED,),
)
async def id_out_of_range(peer: Peer) -> Verdict | None:
    """The driver may choose ids; a device that keeps state by id in an array of the ring's size writes behind it."""
    return await endures(
        peer, lambda device, raw: _ignore(raw.push(*descs_of(device.request()), name=0xFFFF)), virtio=PACKED
    )


def _ignore(_: object) -> None:
    pass


@hostile(
    "B-HOR-34",
    section="V 2.8.10",
    title="Garbage in the driver's event suppression",
    provoke="random off_wrap and flags, with good chains",
    needs=(PACKED,),
)
async def garbage_events(peer: Peer) -> Verdict | None:
    """It only decides about notifications; an offset beyond the ring must not be an index into anything."""
    numbers = random.Random(34)
    return await endures_each(
        peer, *(_event_words(numbers, 0, 1) for _ in range(3)), virtio=PACKED | VirtioFeature.EVENT_IDX
    )


def _break(raw: RawRing) -> None:
    """Make available what no device can make sense of."""
    if raw.ring.packed:
        buffer = raw.ring.memory.buffer(16)
        raw.push(*[Desc(buffer.addr, len(buffer), NEXT)] * raw.ring.size)
    else:
        raw.offer(raw.ring.size + 1)


@hostile(
    "B-HOR-35",
    section="Ring states",
    title="A broken ring does not stop the others",
    provoke="a ring that cannot be, then requests on another",
    needs=(Need.TWO_QUEUES,),
    variants=("split", "packed"),
)
async def others_go_on(peer: Peer) -> Verdict | None:
    """One queue's driver may be broken, or hostile; the others belong to somebody else."""
    async with peer.device(rings=max(2, peer.model.queues)) as device:
        raw = RawRing(device.other)
        try:
            _break(raw)
            raw.ring.notify()
            await device.session.in_sync()
            if await raw.ring.errored(0.02):
                peer.note("signalled the err descriptor")
            await device.works(3)
        except Closed:
            peer.note("closed the connection")
            return Verdict.REJECT
    return None


@hostile(
    "B-HOR-36",
    section="Ring states",
    title="A broken ring can be stopped and used again",
    provoke="a ring that cannot be; GET_VRING_BASE; a new ring",
    variants=("split", "packed"),
)
async def usable_again(peer: Peer) -> Verdict | None:
    """A guest that resets its device comes back with a new ring, and expects it to work."""
    async with peer.device() as device:
        raw = RawRing(device.ring)
        try:
            _break(raw)
            raw.ring.notify()
            await device.session.in_sync()
            await device.ring.stop(device.session)
            fresh = peer.ring(device.session, device.memory, device.ring.index)
            await fresh.start(device.session)
            await fresh.do(*(device.request(number) for number in range(3)))
        except Closed:
            peer.note("closed the connection")
            return Verdict.REJECT
    return None
