"""What a dirty log has to tell of used rings (B-LOG-07 to 09, 23)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.dirty import LOG_PAGE, DirtyLog
from frontend.conformance.load import prepared
from frontend.conformance.logged import (
    LOG_ALL,
    LOGGING,
    at_home,
    hexadecimal,
    logged,
    rings_apart,
)
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

logs = partial(
    case,
    level=Level.SHOULD,
    section="Migration",
    tags=("ring", "log"),
    needs=(LOG_ALL, ProtocolFeature.LOG_SHMFD),
)
FAR = 0x100_0000
"""A guest address behind all of the memory."""


async def _used_ring_at(peer: Peer, addr: int | None) -> None:
    """The used ring is logged at ``addr``; None for where it is."""
    memory = peer.memory()
    log = DirtyLog(memory, size=2 * FAR // (8 * LOG_PAGE))
    async with logged(peer, memory, log, used_at=at_home if addr is None else lambda _: addr) as (
        device,
        _,
    ):
        await device.works(2)
        told = device.ring.log_addr or 0
        if told // LOG_PAGE not in log.pages():
            raise Failure(
                f"two elements of the used ring were written, and page {told // LOG_PAGE:#x} is not marked, as its log "
                f"address {told:#x} wants it; marked are {hexadecimal(log.pages())}"
            )


@logs(
    "B-LOG-07",
    title="The used ring is marked if its address says so",
    provoke="SET_VRING_ADDR with F_LOG and the used ring's guest address; requests",
    passes="its page is marked",
)
async def used_ring(peer: Peer) -> None:
    """A used ring that was not sent again makes the guest wait for requests that were done on the other host."""
    await _used_ring_at(peer, None)


@logs(
    "B-LOG-08",
    level=Level.ROBUSTNESS,
    title="The used ring is not marked otherwise",
    provoke="SET_VRING_ADDR without F_LOG, with a log address behind all memory",
    passes="neither the used ring's page nor that address is marked; a mark is told with a warning",
)
async def used_ring_not_logged(peer: Peer) -> Verdict | None:
    """Without the flag the log address means nothing, and may be any number, or 0."""
    memory = peer.memory()
    with DirtyLog(memory, size=2 * FAR // (8 * LOG_PAGE)) as log:
        device = await prepared(peer, virtio=LOG_ALL, protocol=LOGGING, memory=memory)
        rings_apart(device)
        await log.share(device.session)
        for ring in device.rings:
            await ring.configure(device.session)
            await device.session.tell(ring.addresses(log=FAR))
            await ring.send_kick(device.session)
            await ring.enable(device.session)
            ring.notify()
        await device.works(2)
        used = device.ring.device.addr // LOG_PAGE
        if wrong := log.pages() & {FAR // LOG_PAGE, used}:
            peer.note(f"pages {hexadecimal(wrong)} are marked; the used ring is page {used:#x}, and not to be logged")
        log.check()
        return Verdict.WARN if wrong else None


@logs(
    "B-LOG-09",
    level=Level.MUST,
    title="The used ring may be logged where no memory is",
    provoke=f"a log address of {FAR:#x}, which is behind all regions and inside the log; requests",
    passes="the page of that address is marked",
)
async def used_ring_elsewhere(peer: Peer) -> None:
    """A front-end may keep the used ring in memory of its own: the address is only for the log, not one of a region."""
    await _used_ring_at(peer, FAR)


@logs(
    "B-LOG-23",
    level=Level.ROBUSTNESS,
    title="What is written to a packed ring is marked",
    provoke="a packed ring, logged; requests",
    passes="told is which of its pages are marked: those of the descriptors, and of the device's event suppression",
    variants=("packed",),
)
async def packed_ring(peer: Peer) -> None:
    """Used descriptors are written where the driver's stood, in guest memory that no message calls a used ring.

    The text does not say who has to mark them.  Where nobody does, the last completions are lost with the page.
    """
    async with logged(peer, used_at=at_home) as (device, log):
        await device.works(3)
        for name, part in (("descriptors", device.ring.descriptor), ("event suppression", device.ring.device)):
            peer.note(f"{name}: {'marked' if log.marked(part.addr) else 'not marked'}")
