"""Requests in numbers: many, long ones, and rings that are stopped while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.model import Request, no_more_than
from frontend.conformance.peer import Device
from vhostuser.conformance import Failure
from vhostuser.wire.packed import PackedBase
from vhostuser.wire.split import IDX_OFFSET
from vhostuser.wire.virtio.blk import BlkHeader, BlkType

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.ring import TestRing
    from frontend.guest.memory import Buffer
    from vhostuser.wire.features import ProtocolFeature

LONG = 64 << 10
"""Bytes of a long request, where a device has such."""


async def prepared(
    peer: Peer,
    *,
    virtio: int = 0,
    without: int = 0,
    protocol: ProtocolFeature | None = None,
    rings: int | None = None,
    size: int = 64,
    base: int | None = None,
    memory: SharedMemory | None = None,
) -> Device:
    """A device whose rings are laid out, and of which the back-end has been told nothing: see `Peer.device`."""
    session = await peer.negotiated(basic(peer) | virtio, protocol, without=without)
    memory = peer.memory() if memory is None else memory
    await memory.share(session)
    count = peer.model.queues if rings is None else rings
    made = [peer.ring(session, memory, index, size=size, base=base) for index in range(count)]
    return Device(session, memory, made, peer.model)


async def start(device: Device) -> Device:
    """Start all its rings."""
    for ring in device.rings:
        await ring.start(device.session)
    return device


def segments(request: Request) -> int:
    """Descriptors that it takes without a table."""
    return len(request.readable) + len(request.writable)


def batch_of(device: Device, *, long: bool = False, most: int | None = None) -> list[Request]:
    """As many requests as its ring holds at once, at most ``most``; long ones where the device has such."""
    make = long_request if long else Device.request
    first = make(device, 0)
    count = max(1, device.ring.size // segments(first))
    return [first, *(make(device, number) for number in range(1, count if most is None else min(count, most)))]


def long_request(device: Device, number: int = 0) -> Request:
    """A request that takes a while: a long read of a disk, much entropy; what there is for other devices."""
    memory = device.memory
    match device.model.name:
        case "blk":
            header = memory.buffer(BlkHeader(BlkType.IN, 0, 0).build())
            data, status = _shared_room(device), memory.buffer(b"\xff")
            return Request([header], [data, status], lambda used: no_more_than(LONG + 1, used))
        case "rng":
            return Request([], [_shared_room(device)], lambda used: no_more_than(LONG, used))
    return device.request(number)


def _shared_room(device: Device) -> Buffer:
    """One place for the data of all long requests, which nobody looks at."""
    if device.room is None:
        device.room = device.memory.buffer(LONG)
    return device.room


async def many(device: Device, requests: list[Request], count: int) -> None:
    """Have ``requests`` done again and again, ``count`` in all, and check each answer."""
    ring = device.ring
    while count > 0:
        batch = requests[:count]
        for request in batch:
            ring.add(request)
        ring.publish()
        for request, used in await ring.finish(len(batch)):
            request.check(used)
        count -= len(batch)
    device.memory.check()


def used_position(ring: TestRing, base: int) -> int:
    """Where the device's side stands: the used index of a split ring, the used half of a packed ring's ``base``."""
    if ring.packed:
        return int(PackedBase.of(base).next_used)
    return used_idx(ring)


def used_idx(ring: TestRing) -> int:
    """``used.idx`` of a split ring."""
    idx: int = ring.device.view.cast("H")[IDX_OFFSET // 2]
    return idx


def drained(ring: TestRing, base: int) -> None:
    """All that was taken up to ``base`` has been given back.

    Raises:
        Failure: something is in flight.
    """
    if (used := used_position(ring, base)) != base & 0xFFFF:
        raise Failure(
            f"GET_VRING_BASE said {base:#x}, with the device's side at {used:#x}: requests are still in flight"
        )
