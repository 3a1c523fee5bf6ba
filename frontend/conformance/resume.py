"""Going on with rings and an inflight area on another connection, as after a crash of the back-end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.inflight import InflightArea
from frontend.conformance.load import prepared, segments, start, used_idx
from frontend.conformance.peer import Device
from frontend.conformance.raw_ring import RING_WORD, descs_of
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.inflight import VERSION, DescStatePacked, QueueRegionPacked
from vhostuser.wire.packed import DESC_SIZE, PackedBase, PackedDesc, PackedDescFlags, Position, used_flags
from vhostuser.wire.schema import codec
from vhostuser.wire.split import IDX_OFFSET, RING_OFFSET, USED_ELEM_SIZE, VirtqUsedElem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from frontend.conformance.model import Request
    from frontend.conformance.peer import Peer
    from frontend.conformance.ring import TestRing

TRACKING = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.INFLIGHT_SHMFD
_used = codec(VirtqUsedElem)
NAME = PackedDesc.wire_offset("id") // 2
"""Where a descriptor's buffer id is, in 16-bit words; its flags are behind it."""


@asynccontextmanager
async def tracked(
    peer: Peer, *, size: int = 64, virtio: int = 0, protocol: ProtocolFeature = TRACKING
) -> AsyncIterator[tuple[Device, InflightArea]]:
    """A device with rings laid out and not started, and the area that its back-end has made and been handed."""
    device = await prepared(peer, size=size, virtio=virtio, protocol=protocol)
    area = await InflightArea.got(device.session, len(device.rings), size, packed=device.ring.packed)
    with area:
        await area.share(device.session)
        yield device, area


@asynccontextmanager
async def crafted(peer: Peer, *, size: int = 64, virtio: int = 0) -> AsyncIterator[tuple[Device, InflightArea]]:
    """The same with an area of our own making, which `hand_over` hands over."""
    device = await prepared(peer, size=size, virtio=virtio, protocol=TRACKING)
    with InflightArea.made(len(device.rings), size, packed=device.ring.packed) as area:
        yield device, area


async def hand_over(device: Device, area: InflightArea) -> None:
    """Hand the area over, and start all rings."""
    await area.share(device.session)
    await start(device)


async def resumed(
    peer: Peer, device: Device, area: InflightArea, *, virtio: int = 0, protocol: ProtocolFeature = TRACKING
) -> Device:
    """The same memory and rings on a new connection, begun in QEMU's order: features, area, memory, rings.

    A ring goes on where its ``base`` says; a split ring that was not stopped, at its used index.
    """
    peer.hang_up()
    session = await peer.negotiated(basic(peer) | virtio, protocol)
    await area.share(session)
    await device.memory.share(session)
    return await start(Device(session, device.memory, device.rings, device.model, device.room))


def behind_used(device: Device, done: Iterable[Request]) -> None:
    """Nobody told where the rings stood: they go on behind what was used, which is ``done``.

    A split ring says so itself; in a packed ring, which has to be in its first lap, it is counted.
    """
    for ring in device.rings:
        if not ring.packed:
            ring.base = used_idx(ring)
    if device.ring.packed:
        place = Position(sum(map(segments, done)), True)
        device.ring.base = int(PackedBase(place, place))


def heads(ring: TestRing, count: int) -> list[int]:
    """The chains in the first entries of a split ring's available ring."""
    words = ring.driver.view.cast("H")
    return [words[RING_WORD + entry] for entry in range(count)]


def use_by_hand(ring: TestRing, *chains: int) -> None:
    """Put used elements into a new split ring, as a back-end did that is no more."""
    view = ring.device.view
    for slot, head in enumerate(chains):
        at = RING_OFFSET + slot * USED_ELEM_SIZE
        view[at : at + USED_ELEM_SIZE] = _used.pack(head, 0)
    view.cast("H")[IDX_OFFSET // 2] = len(chains)


def used_heads(ring: TestRing, count: int) -> list[int]:
    """The chains in the first slots of a split ring's used ring, in the order of completion."""
    view = ring.device.view
    slots = range(RING_OFFSET, RING_OFFSET + count * USED_ELEM_SIZE, USED_ELEM_SIZE)
    return [_used.unpack(view[at : at + USED_ELEM_SIZE])[0] for at in slots]


def packed_area(device: Device, area: InflightArea, *, used: bool) -> tuple[Request, Request, int]:
    """Two requests that were taken, of which the second was completed in the area and not yet settled there.

    Its used descriptor goes where the first begins, of which nothing is left then but what stands in the area.

    Args:
        device: nobody runs its rings.
        area: gets the descriptors in its first entries, one request after the other; free are those behind them, the
            last of which names one that there is not.
        used: the used descriptor has been written.

    Returns:
        Both, and how many descriptors each of them has.
    """
    ring, queue = device.ring, device.model.queue
    requests = [device.request(number) for number in range(2)]
    count = segments(requests[0])
    for request in requests:
        ring.add(request)
    ring.publish(kick=False)
    words = ring.descriptor.view.cast("H")
    names = [words[start * DESC_SIZE // 2 + NAME] for start in (0, count)]
    if used:
        words[NAME] = names[1]
        words[NAME + 1] = int(used_flags(True)) | PackedDescFlags.WRITE
    for number in range(ring.size):
        area.put_entry(number, DescStatePacked(next=number + 1), queue)
    for nth, (request, name) in enumerate(zip(requests, names, strict=True)):
        _put_taken(area, queue, request, name, nth)
    area.put_header(
        QueueRegionPacked(
            version=VERSION,
            desc_num=ring.size,
            free_head=count,
            old_free_head=2 * count,
            used_idx=count,
            old_used_idx=0,
            used_wrap_counter=1,
            old_used_wrap_counter=1,
        ),
        queue,
    )
    return requests[0], requests[1], count


def _put_taken(area: InflightArea, queue: int, request: Request, name: int, nth: int) -> None:
    """The entries of the ``nth`` request that was taken, all of which are of one size."""
    descs = descs_of(request)
    start = nth * len(descs)
    for number, desc in enumerate(descs, start):
        head = number == start
        area.put_entry(
            number,
            DescStatePacked(
                inflight=int(head),
                next=number + 1,
                last=start + len(descs) - 1 if head else 0,
                num=len(descs) if head else 0,
                counter=1 + nth if head else 0,
                id=name,
                flags=desc.flags | PackedDescFlags.AVAIL,
                len=desc.length,
                addr=desc.addr,
            ),
            queue,
        )
