"""Hostile indirect tables (B-HOR-07 to 15)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.endure import endures, endures_each
from frontend.conformance.memory import SharedMemory, Span
from frontend.conformance.oracle import resident_growth
from frontend.conformance.raw_ring import INDIRECT, NEXT, WRITE, Desc, RawRing, descs_of
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.split import DESC_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Device, Peer

TABLES = VirtioFeature.INDIRECT_DESC
hostile = partial(
    case,
    level=Level.ROBUSTNESS,
    section="V 2.7.5.3",
    tags=("hostile", "ring"),
    passes="it survives, and harms nothing else",
    needs=(TABLES,),
    variants=("split", "packed"),
)
MUCH = 256 << 20
MEBIBYTE = 1 << 20


@hostile("B-HOR-07", title="A loop inside a table", provoke="entries 0 and 1 that lead to each other", variants=())
async def loop(peer: Peer) -> Verdict | None:
    """A table is a chain like any other, with links that the driver chose."""

    def provoke(device: Device, raw: RawRing) -> None:
        first = replace(descs_of(device.request())[0], flags=NEXT)
        _point(raw, raw.table(replace(first, next=1), replace(first, next=0)).addr, 2 * DESC_SIZE)

    return await endures(peer, provoke, virtio=TABLES)


def _point(raw: RawRing, addr: int, length: int, flags: int = 0) -> None:
    """Push one descriptor that refers to a table."""
    raw.push(Desc(addr, length, INDIRECT | flags))


@hostile("B-HOR-08", title="A table inside a table", provoke="a table whose entry refers to a good table")
async def nested(peer: Peer) -> Verdict | None:
    """The driver must not; a device that follows has no end to it, and perhaps no stack left."""

    def provoke(device: Device, raw: RawRing) -> None:
        inner = raw.of_table(device.request())
        outer = raw.table(Desc(inner.addr, len(inner), INDIRECT))
        _point(raw, outer.addr, len(outer))

    return await endures(peer, provoke, virtio=TABLES)


@hostile("B-HOR-09", title="A descriptor with both INDIRECT and NEXT", provoke="a good table, and one buffer more")
async def with_next(peer: Peer) -> Verdict | None:
    """The driver must not set both; the device has to decide what it means, and stay with it."""

    def provoke(device: Device, raw: RawRing) -> None:
        table = raw.of_table(device.request())
        extra = device.memory.buffer(16)
        raw.push(Desc(table.addr, len(table), INDIRECT | NEXT), Desc(extra.addr, 16, WRITE))

    return await endures(peer, provoke, virtio=TABLES)


@hostile("B-HOR-10", title="A table of no bytes", provoke="length 0")
async def no_table(peer: Peer) -> Verdict | None:
    """A chain without any descriptor; and its first one is looked at before anybody asks how many there are."""
    return await endures(peer, _of_length(0), virtio=TABLES)


def _of_length(length: int) -> Callable[[Device, RawRing], None]:
    """A good table, of which the descriptor tells another length."""
    return lambda device, raw: _point(raw, raw.of_table(device.request()).addr, length)


@hostile("B-HOR-11", title="A table that ends inside a descriptor", provoke="lengths 1, 15 and 17")
async def odd_length(peer: Peer) -> Verdict | None:
    """Rounded up, the device reads an entry that is not there; rounded down, perhaps none."""
    return await endures_each(peer, *map(_of_length, (1, 15, 17)), virtio=TABLES)


@hostile(
    "B-HOR-12",
    title="A table larger than any",
    provoke="65536 entries that all go on, and a length of 0xfffffff0",
    passes="it survives, in bounded time and memory",
)
async def huge_table(peer: Peer) -> Verdict | None:
    """A chain is no longer than the ring; making room for what the length says costs more than any chain is worth."""

    def many(device: Device, raw: RawRing) -> None:
        buffer = device.memory.buffer(16)
        flags = WRITE if raw.ring.packed else WRITE | NEXT
        table = device.memory.buffer(MEBIBYTE)
        for at in range(65536):
            raw.write_to(table.view, at, Desc(buffer.addr, 1, flags, at + 1 & 0xFFFF))
        raw.allowed.append((buffer.addr, 1))
        _point(raw, table.addr, MEBIBYTE)
        raw.room.clear()  # 65536 times one byte, if anybody counts

    growth = resident_growth(peer)
    verdict = await endures_each(peer, many, _of_length(0xFFFF_FFF0), virtio=TABLES)
    if (grown := growth()) is not None and grown > MUCH:
        raise Failure(f"the back-end grew by {grown >> 20} MiB over a table in 4 MiB of guest memory")
    return verdict


@hostile("B-HOR-13", title="A table outside guest memory", provoke="tables at 0xdead0000 and at 2^64 - 16")
async def table_outside(peer: Peer) -> Verdict | None:
    """The table's address is a guest address like any other."""
    return await endures_each(
        peer,
        lambda device, raw: _point(raw, 0xDEAD_0000, 2 * DESC_SIZE),
        lambda device, raw: _point(raw, (1 << 64) - DESC_SIZE, 2 * DESC_SIZE),
        virtio=TABLES,
    )


@hostile(
    "B-HOR-14",
    title="A table that lies in two regions",
    provoke="regions that meet in guest memory, and not in ours, in the middle of a good table",
    passes="it works, or the chain is refused",
)
async def across_regions(peer: Peer) -> Verdict | None:
    """For the guest it is one stretch of memory; for the back-end two mappings that lie anywhere."""
    seam, half = 0x30_0000, 1 << 21
    spans = (Span(seam - half, half, behind=4096), Span(seam, half, user_addr=0x6000_0000_0000, offset=4096))

    def provoke(device: Device, raw: RawRing) -> None:
        table = bytes(raw.of_table(device.request()).view)
        first = min(DESC_SIZE, len(table) // 2)  # of a request of one descriptor, the half
        device.memory.view(seam - first, first)[:] = table[:first]
        device.memory.view(seam, len(table) - first)[:] = table[first:]
        _point(raw, seam - first, len(table))

    return await endures(peer, provoke, virtio=TABLES, memory=SharedMemory(*spans))


@hostile(
    "B-HOR-15",
    title="INDIRECT without having negotiated it",
    provoke="a good table where INDIRECT_DESC was not acknowledged",
    needs=(),
    passes="it refuses the chain, or carries it out; it survives",
)
async def not_negotiated(peer: Peer) -> Verdict | None:
    """The driver must not; devices that do not look at what was negotiated carry it out."""

    def provoke(device: Device, raw: RawRing) -> None:
        table = raw.of_table(device.request())
        _point(raw, table.addr, len(table))

    return await endures(peer, provoke, without=TABLES)
