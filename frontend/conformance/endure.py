"""What a back-end has to endure from a driver: `endures` gives it a broken ring and looks whether it keeps its head.

It may signal the err descriptor, stop serving the ring, complete the chain with an error, or hang up in order.  It may
not write where the driver did not let it, stop answering messages, die, or burn processor time over it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from frontend.conformance.raw_ring import RawRing, descs_of
from frontend.conformance.session import Closed
from frontend.conformance.watch import Footprint, written_by_device
from vhostuser.conformance import Failure, Verdict
from vhostuser.conformance.oracle import spins

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.raw_ring import Desc

REACTION = 0.1
"""Seconds in which something may be seen of a broken ring; that nothing is seen is fine."""


async def endures(
    peer: Peer,
    provoke: Callable[[Device, RawRing], None],
    *,
    virtio: int = 0,
    without: int = 0,
    size: int = 64,
    memory: SharedMemory | None = None,
    watched: bool = True,
    works: bool = False,
    truthful: bool = True,
) -> Verdict | None:
    """Give a device that is up a broken ring, kick, and look at all that must not come of it.

    Args:
        peer: the back-end.
        provoke: writes into the ring.
        virtio: feature bits besides the basic ones, see `Peer.device`.
        without: feature bits not to use.
        size: of the ring.
        memory: the guest's; by default a fresh one.
        watched: look at every byte of guest memory; not possible where a thread goes on writing.
        works: the ring is odd but good: what was pushed has to be completed.
        truthful: look at used lengths; not where the chain lets the device write into the ring itself.

    Returns:
        REJECT when the back-end hung up, else None.
    """
    verdict = None
    async with peer.device(virtio=virtio, without=without, size=size, memory=memory) as device:
        raw = RawRing(device.ring)
        try:
            provoke(device, raw)
            before = Footprint(device.memory) if watched else None
            device.ring.notify()
            await _reaction(peer, device, raw, works=works)
            if truthful:
                check_lengths(raw)
            await device.session.in_sync()
            await keeps_quiet(peer)
        except Closed:
            if works:
                raise Failure("the back-end hung up over a chain that is good") from None
            peer.note("closed the connection")
            verdict = Verdict.REJECT
        if before is not None:
            before.check(raw.allowed + written_by_device(*device.rings))
    await peer.alive()
    return verdict


async def endures_each(
    peer: Peer,
    *provoke: Callable[[Device, RawRing], None],
    virtio: int = 0,
    size: int = 64,
    truthful: bool = True,
) -> Verdict | None:
    """`endures` for one broken ring after the other; REJECT when the back-end hung up every time."""
    verdicts = {await endures(peer, each, virtio=virtio, size=size, truthful=truthful) for each in provoke}
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


async def endures_spoiled(peer: Peer, *spoil: Callable[[Desc], Desc], truthful: bool = True) -> Verdict | None:
    """Good requests in which one descriptor is replaced, each of them in turn, by what each ``spoil`` makes of it."""
    count = len(descs_of(peer.model.request(peer.memory())))
    provocations = [_spoiled(number, change) for change in spoil for number in range(count)]
    return await endures_each(peer, *provocations, truthful=truthful)


def _spoiled(number: int, spoil: Callable[[Desc], Desc]) -> Callable[[Device, RawRing], None]:
    def provoke(device: Device, raw: RawRing) -> None:
        descs = descs_of(device.request())
        descs[number] = spoil(descs[number])
        raw.push(*descs)

    return provoke


async def _reaction(peer: Peer, device: Device, raw: RawRing, *, works: bool) -> None:
    """Wait for anything to be seen, and note what."""
    expected = len(raw.room) if works else 1
    patience = device.ring.patience if works else REACTION
    end = trio.current_time() + patience
    while trio.current_time() < end:
        if len(raw.used()) >= expected or await device.ring.errored(0.001):
            break
    used = raw.used()
    if works and len(used) < expected:
        raise Failure(f"{len(used)} of {expected} chains were completed within {patience:g} s; the chains are good")
    if not works:
        peer.note(f"completed {len(used)} chains" if used else "completed nothing")


def check_lengths(raw: RawRing) -> None:
    """No used length is longer than what its chain allowed.

    Raises:
        Failure: one is.
    """
    for head, length in raw.used():
        if head in raw.room and length > raw.room[head]:
            raise Failure(f"used length of chain {head}: found {length}, it has room for {raw.room[head]}")


async def keeps_quiet(peer: Peer) -> None:
    """The back-end, which has nothing to do, uses next to no processor time.

    One that polls its rings all the time uses as much over a good ring, and is let be.

    Raises:
        Failure: it is busy with nothing, and was not before.
    """
    if not await spins(peer.target):
        return
    peer.hang_up()
    with suppress(Closed):
        async with peer.device():
            if await spins(peer.target):
                peer.note("it uses a whole processor even when nothing is wrong")
                return
    raise Failure("the back-end goes on using processor time although there is nothing to do")
