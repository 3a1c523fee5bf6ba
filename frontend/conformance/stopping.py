"""A ring that is stopped while the device works on it, and goes on where it stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.load import batch_of

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer

ROUNDS = 12


async def stop_under_load(peer: Peer, device: Device) -> None:
    """Fill the ring, stop it at once, start it again with the base that was returned, and wait for the rest.

    Raises:
        Failure: a request came back twice, or its answer is wrong.
        Wedged: one did not come back.
    """
    ring, requests, early = device.ring, batch_of(device), 0
    for _ in range(ROUNDS):
        for request in requests:
            ring.add(request)
        ring.publish(kick=True)
        ring.base = await ring.stop(device.session)
        done = ring.reap()
        early += len(done)
        await ring.start(device.session)
        done += await ring.finish(len(requests) - len(done))
        equal("requests completed", len({id(request) for request, _ in done}), len(requests))
        for request, used in done:
            request.check(used)
    peer.note(f"{early} of {ROUNDS * len(requests)} requests were done when the ring stopped")
    await device.works(1)
