"""Which queues of a device take requests, when all of them are running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic, bring_up
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetQueueNum
from vhostuser.wire.records import U64
from vhostuser.wire.virtio.blk import BlkFeature
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.ring import TestRing
    from frontend.conformance.session import Session

MOST = 64
"""Rings that a case sets up at most."""
REQUEST_QUEUES: dict[int, int] = {DeviceType.BLOCK: 0, DeviceType.FS: 1}
"""By device type, the first queue from which on all take requests; of other types only `Model.queue` is known to."""
FEATURES: dict[int, int] = {DeviceType.BLOCK: BlkFeature.MQ}
"""By device type, the virtio feature without which only the first of them is used."""


async def number_of_queues(session: Session) -> int:
    """GET_QUEUE_NUM."""
    return (await session.ask(GetQueueNum(), U64)).value


async def all_queues(
    peer: Peer, *, backwards: bool = False, virtio: int = 0, protocol: ProtocolFeature | None = None
) -> Device:
    """A device with all the queues running that GET_QUEUE_NUM tells of, `MOST` of them at most.

    Args:
        peer: the back-end, which offers MQ.
        backwards: start the last one first.
        virtio: feature bits besides the basic ones.
        protocol: protocol features, see `Session.negotiate`.
    """
    many = FEATURES.get(peer.profile.device_type or 0, 0)
    session = await peer.negotiated(basic(peer) | many | virtio, protocol)
    count = await number_of_queues(session) if session.protocol & ProtocolFeature.MQ else 1
    if count > MOST:
        peer.note(f"{count} queues: {MOST} of them are set up")
    rings = max(min(count, MOST), peer.model.queues)
    return await bring_up(peer, session, peer.memory(), rings=rings, backwards=backwards)


def request_rings(peer: Peer, device: Device) -> list[TestRing]:
    """Those of the device's rings that take requests."""
    kind = peer.profile.device_type
    if kind not in REQUEST_QUEUES:
        peer.note(f"only queue {device.ring.index} of this device is known to take requests")
        return [device.ring]
    return list(device.rings[REQUEST_QUEUES[kind] :])


def batch(device: Device, ring: TestRing, count: int) -> list[Request]:
    """Put ``count`` requests into a ring and show them to the device."""
    requests = [device.request(100 * ring.index + number) for number in range(count)]
    for request in requests:
        ring.add(request)
    ring.publish()
    return requests
