"""Hostile chains: buffers that are not there, or are not what they should be (B-HOR-16 to 25, 29, 30)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.datapath import cut
from frontend.conformance.endure import endures, endures_each, endures_spoiled
from frontend.conformance.memory import PAGE
from frontend.conformance.oracle import resident_growth
from frontend.conformance.raw_ring import NEXT, WRITE, Desc, RawRing, chained, descs_of
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Device, Peer
    from frontend.guest.memory import Buffer

hostile = partial(
    case,
    level=Level.ROBUSTNESS,
    tags=("hostile", "ring"),
    passes="it survives, and writes nowhere else",
    variants=("split", "packed"),
)
NOWHERE = 0xDEAD_0000
LEAST = 256 << 20
"""Bytes of growth that no chain in 4 MiB of guest memory excuses."""


@hostile(
    "B-HOR-16",
    section="V 2.7.5",
    title="A buffer that is not in guest memory",
    provoke="each buffer of a request in turn at 0xdead0000",
)
async def outside(peer: Peer) -> Verdict | None:
    """Whatever was set up for the chain's other buffers has to be undone when one of them cannot be found."""
    return await endures_spoiled(peer, lambda desc: replace(desc, addr=NOWHERE))


@hostile(
    "B-HOR-17",
    section="V 2.7.5",
    title="A buffer that begins in guest memory and ends outside",
    provoke="each buffer in turn 16 bytes before the region's end, one page long",
)
async def across_the_end(peer: Peer) -> Verdict | None:
    """Its first byte is fine; behind its last one lies what the region's file holds besides, or somebody else's memory.

    The file goes on behind the region here, with a pattern in it that must stay.
    """
    region = peer.memory().regions[0]
    return await endures_spoiled(
        peer, lambda desc: replace(desc, addr=region.guest_addr + region.size - 16, length=PAGE)
    )


@hostile(
    "B-HOR-18",
    section="V 2.7.5",
    title="Address and length add up to more than 64 bits",
    provoke="each buffer in turn at 2^64 - 8",
)
async def overflow(peer: Peer) -> Verdict | None:
    """The sum is a small number: a check of the end alone finds nothing wrong with it."""
    return await endures_spoiled(peer, lambda desc: replace(desc, addr=(1 << 64) - 8, length=max(desc.length, 16)))


@hostile(
    "B-HOR-19",
    section="V 2.7.5",
    title="A buffer of no bytes",
    provoke="each buffer in turn with length 0, at its address, at 0 and at 2^64 - 1",
)
async def empty(peer: Peer) -> Verdict | None:
    """Nothing is read or written there, so nobody looks whether the address is one, until somebody does arithmetic."""
    return await endures_spoiled(
        peer,
        lambda desc: replace(desc, length=0),
        lambda desc: replace(desc, addr=0, length=0),
        lambda desc: replace(desc, addr=(1 << 64) - 1, length=0),
    )


@hostile(
    "B-HOR-20",
    section="V 2.7.5",
    title="A buffer of 4 GiB",
    provoke="each buffer in turn with length 0xffffffff",
)
async def huge(peer: Peer) -> Verdict | None:
    """A device that makes room for as much as a descriptor says lets the driver decide how much memory it takes."""
    growth = resident_growth(peer)
    verdict = await endures_spoiled(peer, lambda desc: replace(desc, length=0xFFFF_FFFF))
    if (grown := growth()) is not None and grown > LEAST:
        raise Failure(f"the back-end grew by {grown >> 20} MiB over chains in 4 MiB of guest memory")
    return verdict


@hostile(
    "B-HOR-21",
    section="V 2.7.4.2",
    title="A readable buffer behind a writable one",
    provoke="a writable buffer, then the request's readable ones",
)
async def wrong_order(peer: Peer) -> Verdict | None:
    """The driver has to put all readable buffers first; one who counts on that mixes up which is which."""

    def provoke(device: Device, raw: RawRing) -> None:
        extra = device.memory.buffer(16)
        descs = [Desc(extra.addr, 16, WRITE), *descs_of(device.request()), Desc(device.memory.buffer(16).addr, 16)]
        raw.push(*chained(descs))

    return await endures(peer, provoke)


@hostile(
    "B-HOR-22",
    section="device types",
    title="Nothing to read where a request's header should be",
    provoke="a chain of writable buffers only",
)
async def no_header(peer: Peer) -> Verdict | None:
    """A device that needs a header has to look whether it is there."""
    return await endures(peer, lambda device, raw: _push(raw, (64, WRITE), (64, WRITE)))


@hostile(
    "B-HOR-23",
    section="device types",
    title="A request that is shorter than its header",
    provoke="1 byte to read, or 1 byte in all",
)
async def short_header(peer: Peer) -> Verdict | None:
    """Lengths that the device works out by subtraction become very large."""
    return await endures_each(
        peer,
        lambda device, raw: _push(raw, (1, 0)),
        lambda device, raw: _push(raw, (1, 0), (64, WRITE)),
        lambda device, raw: _push(raw, (1, 0), (1, WRITE)),
        lambda device, raw: _push(raw, (1, WRITE)),
    )


def _push(raw: RawRing, *buffers: tuple[int, int]) -> None:
    """A good chain of new buffers: length and flags of each."""
    memory = raw.ring.memory
    raw.push(*chained([Desc(memory.buffer(length).addr, length, flags) for length, flags in buffers]))


@hostile(
    "B-HOR-24",
    section="V 2.7.4.1",
    title="A request in buffers of one byte each",
    provoke="its bytes in 64 descriptors, or in one each if it has fewer",
)
async def bytewise(peer: Peer) -> None:
    """The device must not assume how a request is cut into descriptors: these say where bytes are, nothing else."""
    async with peer.device(size=128) as device:
        for _ in range(2):
            await device.ring.do(cut(device.memory, device.request(), 64))


@hostile(
    "B-HOR-25",
    section="V 2.7.5",
    title="Flags that no descriptor has",
    provoke="each descriptor in turn with every undefined bit",
)
async def unknown_flags(peer: Peer) -> Verdict | None:
    """A later version may give them a meaning; until then a device ignores them, or says that it cannot."""
    undefined = 0x7F78 if peer.variant == "packed" else 0xFFF8
    return await endures_spoiled(peer, lambda desc: replace(desc, flags=desc.flags | undefined))


@hostile(
    "B-HOR-29",
    section="V 2.7.8",
    title="A buffer in the part of the ring that the device writes",
    provoke="each writable buffer, or a new one, over the used ring",
)
async def over_used_ring(peer: Peer) -> Verdict | None:
    """The device overwrites its own index; what it reads back from there is not what it wrote."""
    return await endures_each(peer, *_overlaps(peer, lambda raw: raw.ring.device), truthful=False)


@hostile(
    "B-HOR-30",
    section="V 2.7.5",
    title="A buffer over the descriptors",
    provoke="each writable buffer, or a new one, over the table that it stands in",
)
async def over_descriptors(peer: Peer) -> Verdict | None:
    """Carrying out the request changes the request: what was checked before is not what is there afterwards."""
    return await endures_each(peer, *_overlaps(peer, lambda raw: raw.ring.descriptor), truthful=False)


def _overlaps(peer: Peer, where: Callable[[RawRing], Buffer]) -> list[Callable[[Device, RawRing], None]]:
    count = len(peer.model.request(peer.memory()).writable)
    return [_overlap(number, where) for number in range(max(count, 1))]


def _overlap(number: int, where: Callable[[RawRing], Buffer]) -> Callable[[Device, RawRing], None]:
    def provoke(device: Device, raw: RawRing) -> None:
        descs, part = descs_of(device.request()), where(raw)
        places = [at for at, desc in enumerate(descs) if desc.flags & WRITE]
        if places:
            desc = descs[places[number]]
            descs[places[number]] = replace(desc, addr=part.addr, length=min(desc.length, len(part)))
        else:
            descs[-1] = replace(descs[-1], flags=descs[-1].flags | NEXT)
            descs.append(Desc(part.addr, min(16, len(part)), WRITE))
        raw.push(*descs)

    return provoke
