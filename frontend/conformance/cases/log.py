"""What a dirty log has to tell (B-LOG-02 to 06, 10 to 12, 16 to 18)."""

from __future__ import annotations

import mmap
from functools import partial
from typing import TYPE_CHECKING

import trio

from frontend.conformance.datapath import cut
from frontend.conformance.dirty import LOG_PAGE, DirtyLog
from frontend.conformance.expect import equal
from frontend.conformance.load import batch_of
from frontend.conformance.logged import (
    LOG_ALL,
    LOGGING,
    Dirtied,
    at_home,
    dirtied_by,
    hexadecimal,
    logged,
    marks_request,
    rings_apart,
    unmarked,
)
from frontend.conformance.memory import PAGE, Span
from frontend.conformance.placing import across, largest
from frontend.conformance.queues import all_queues, request_rings
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.ring import TestRing

logs = partial(
    case,
    level=Level.SHOULD,
    section="Migration",
    tags=("ring", "log"),
    needs=(LOG_ALL, ProtocolFeature.LOG_SHMFD),
)
BOTH = ("split", "packed")
ROUNDS = 20
LATER = 0.05
"""Seconds in which a mark that comes too late would show."""


@logs(
    "B-LOG-02",
    title="What is written to buffers is marked",
    provoke="LOG_ALL and a log; requests into buffers full of a pattern",
    passes="every page in which a byte has changed is marked",
    variants=BOTH,
)
async def buffers(peer: Peer) -> None:
    """A page that was written and not marked is old on the other host, and nobody learns of it."""
    async with logged(peer) as (device, log):
        for number in range(3):
            await marks_request(device, log, number)


@logs(
    "B-LOG-03",
    level=Level.ROBUSTNESS,
    title="Nothing else is marked",
    provoke="the same, without a logged used ring",
    passes="only pages of these buffers are marked; more is told with a warning",
    variants=BOTH,
)
async def nothing_else(peer: Peer) -> Verdict | None:
    """A mark too many is a page sent in vain; a log that is all ones makes a migration that never ends."""
    async with logged(peer) as (device, log):
        dirtied = await dirtied_by(device, device.request())
        return _too_many(peer, log, dirtied.allowed())


def _too_many(peer: Peer, log: DirtyLog, allowed: set[int]) -> Verdict | None:
    """WARN when pages beside ``allowed`` are marked."""
    if extra := log.pages() - allowed:
        peer.note(f"pages {hexadecimal(extra)} are marked, to which no buffer belongs")
        return Verdict.WARN
    return None


def at(request: Request, memory: SharedMemory, addr: int) -> Request:
    """The request with its largest buffer at a guest address."""
    return across(request, memory, addr + len(largest(request)) // 2)


async def _marks(peer: Peer, pages: tuple[int, ...]) -> None:
    """Write to one page after the other, from address 0 on: each is marked with its own bit."""
    top = max(pages) + 1
    memory = peer.memory(Span(0, 4 << 20, offset=PAGE, behind=PAGE))
    memory.skip_to(top * LOG_PAGE)
    async with logged(peer, memory) as (device, log):
        for page in pages:
            log.clear()
            await dirtied_by(device, at(device.request(page), memory, page * LOG_PAGE))
            found = {each for each in log.pages() if each < top}
            if page not in found:
                raise Failure(
                    f"page {page:#x} was written to: bit {page % 8} of byte {page // 8} is not set; "
                    f"set are the bits of pages {hexadecimal(log.pages())}"
                )
            if found != {page}:
                peer.note(f"for page {page:#x}, pages {hexadecimal(found)} are marked")


@logs(
    "B-LOG-04",
    level=Level.MUST,
    title="A page is bit page % 8 of byte page / 8",
    provoke="requests that write to pages 0, 7, 8 and 9, one by one",
    passes="bits 0 and 7 of byte 0, bits 0 and 1 of byte 1",
    variants=BOTH,
)
async def layout(peer: Peer) -> None:
    """Counted from the other end of a byte, or in words of the wrong byte order, other pages are sent than changed."""
    await _marks(peer, (0, 7, 8, 9))


@logs(
    "B-LOG-05",
    level=Level.MUST,
    title="A page of the log is 4096 bytes, whatever the host's is",
    provoke="requests that write 64 KiB, 160 KiB and 2 MiB behind the beginning",
    passes="pages 0x10, 0x28 and 0x200 are marked",
)
async def page_size(peer: Peer) -> None:
    """Hosts have pages of 4, 16 or 64 KiB, and huge ones; the log is about neither, or the two ends would differ."""
    peer.note(f"a page of this host has {mmap.PAGESIZE} bytes")
    await _marks(peer, (0x10, 0x28, 0x200))


@logs(
    "B-LOG-06",
    level=Level.MUST,
    section="Payload (log)",
    title="A log that begins inside its file",
    provoke="SET_LOG_BASE with offset 4096",
    passes="marks are found from there on, and nothing before",
)
async def offset(peer: Peer) -> None:
    """Mapped from the beginning of the file, a log marks other pages, and the front-end's data besides."""
    memory = peer.memory()
    async with logged(peer, memory, DirtyLog(memory, offset=4096)) as (device, log):
        await marks_request(device, log)


@logs(
    "B-LOG-10",
    title="Without LOG_ALL nothing is logged any more",
    provoke="requests with LOG_ALL; SET_FEATURES without it, SET_VRING_ADDR without F_LOG; requests",
    passes="the log stays as it was",
    variants=BOTH,
)
async def switched_off(peer: Peer) -> None:
    """Logging costs time at each request; and when it ends, the log's memory is somebody else's soon."""
    async with logged(peer, used_at=at_home) as (device, log):
        await device.works()
        await device.session.set_features(device.session.features & ~LOG_ALL)
        device.ring.log_addr = None
        await device.session.tell(device.ring.addresses())
        log.clear()
        await device.works(3)
        equal("pages marked after logging was switched off", hexadecimal(log.pages()), "none")


@logs(
    "B-LOG-11",
    title="Logging begins on rings that run",
    provoke="a ring full of requests; SET_LOG_BASE, SET_FEATURES with LOG_ALL, SET_VRING_ADDR with F_LOG; requests",
    passes="all are done, and what the later ones wrote is marked, the used ring too",
    variants=BOTH,
)
async def switched_on(peer: Peer) -> None:
    """A migration begins under a guest that does not stop for it: this is QEMU's order of messages."""
    async with peer.device(protocol=LOGGING) as device:
        session, ring = device.session, device.ring
        rings_apart(device)
        with DirtyLog(device.memory) as log:
            load = batch_of(device, long=True, most=16)
            for request in load:
                ring.add(request)
            ring.publish(kick=True)
            await log.share(session)
            await session.set_features(session.features | LOG_ALL)
            ring.log_addr = at_home(ring)
            await session.tell(ring.addresses())
            for request, used in await ring.finish(len(load)):
                request.check(used)
            await marks_request(device, log, 99)
            log.check()


@logs(
    "B-LOG-12",
    level=Level.MUST,
    title="No mark is lost",
    provoke="one page, its mark cleared each time; two queues that write to pages of the same bytes of the log",
    passes="each page written is marked each time",
)
async def no_mark_lost(peer: Peer) -> None:
    """The front-end clears marks as it sends pages, and several queues set them: one byte, changed by all at once.

    A mark that is set without an atomic OR takes others away with it.  That is a matter of luck: many tries are made,
    and what is found is true, but to find nothing proves nothing.
    """
    device = await all_queues(peer, virtio=LOG_ALL, protocol=LOGGING)
    rings = request_rings(peer, device)[:4]
    with DirtyLog(device.memory) as log:
        await log.share(device.session)
        first = device.request()
        for _ in range(ROUNDS):
            log.clear()
            unmarked(log, (await dirtied_by(device, first)).pages(), "written to again after its mark was cleared")
        for _ in range(ROUNDS):
            await _together(device, rings, log)
        log.check()
    device.memory.check()


async def _together(device: Device, rings: list[TestRing], log: DirtyLog) -> None:
    """All rings at once, each with pages of its own, next to those of the others."""
    base = device.memory.regions[0].guest_addr + (2 << 20)
    requests = {
        ring: [
            at(
                device.model.request(device.memory, number),
                device.memory,
                base + (number * len(rings) + turn) * LOG_PAGE,
            )
            for number in range(8)
        ]
        for turn, ring in enumerate(rings)
    }
    dirtied = Dirtied(device.memory, [request for each in requests.values() for request in each])
    log.clear()
    for ring, each in requests.items():
        for request in each:
            ring.add(request)
    for ring in requests:
        ring.publish(kick=True)
    for ring in requests:
        for request, used in await ring.finish():
            request.check(used)
    unmarked(log, dirtied.pages(), f"written to by {len(rings)} queues at once")


@logs(
    "B-LOG-16",
    title="Every buffer of a chain is logged, in tables too",
    provoke="requests in indirect tables of four descriptors, which cross a page",
    passes="each page in which a byte has changed is marked",
    needs=(LOG_ALL, ProtocolFeature.LOG_SHMFD, VirtioFeature.INDIRECT_DESC),
    variants=BOTH,
)
async def indirect(peer: Peer) -> None:
    """What the ring holds of such a chain is the table, which the device only reads."""
    async with logged(peer, virtio=VirtioFeature.INDIRECT_DESC) as (device, log):
        for number in range(3):
            request = across(device.request(number), device.memory, _boundary(device, number))
            unmarked(log, (await dirtied_by(device, cut(device.memory, request, 4))).pages())


def _boundary(device: Device, number: int = 0) -> int:
    """The end of a page in which nothing is."""
    return device.memory.regions[0].guest_addr + (2 << 20) + 2 * number * LOG_PAGE


@logs(
    "B-LOG-17",
    title="A buffer that crosses a page marks both",
    provoke="a request whose largest buffer lies half before, half behind the end of a page",
    passes="both pages are marked",
    variants=BOTH,
)
async def crossing(peer: Peer) -> None:
    """Marks by the first address alone, or by length / 4096, miss the second page."""
    async with logged(peer) as (device, log):
        boundary = _boundary(device)
        written = (await dirtied_by(device, across(device.request(), device.memory, boundary))).pages()
        if not {boundary // LOG_PAGE - 1, boundary // LOG_PAGE} <= written:
            peer.note("the device did not write to both pages")
        unmarked(log, written)


@logs(
    "B-LOG-18",
    level=Level.ROBUSTNESS,
    title="All marks are there when a ring has stopped",
    provoke="a ring full of requests; GET_VRING_BASE; the log as it is when that is answered, and a little later",
    passes="what has been written is marked by then, and no mark comes later",
    variants=BOTH,
)
async def complete_at_stop(peer: Peer) -> None:
    """The last look at the log comes after the last stop: what is marked later, or written later, is lost."""
    async with logged(peer) as (device, log):
        requests = batch_of(device, most=16)
        dirtied = Dirtied(device.memory, requests)
        if not dirtied.allowed():
            raise Skip(f"a request to a {device.model.name} device that writes to guest memory is not known")
        for request in requests:
            device.ring.add(request)
        device.ring.publish(kick=True)
        await device.ring.stop(device.session)
        marked = log.pages()
        unmarked(log, dirtied.pages(), "written to by the time of the reply to GET_VRING_BASE")
        await trio.sleep(LATER)
        equal("pages marked after the ring had stopped", hexadecimal(log.pages() - marked), "none")
