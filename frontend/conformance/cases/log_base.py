"""Where the log is, and what is odd about it (B-LOG-01, 13 to 15, 19 to 22)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.dirty import LOG_PAGE, DirtyLog
from frontend.conformance.endure import keeps_quiet
from frontend.conformance.hostile import Raw, survives_each, watched
from frontend.conformance.load import batch_of, prepared, start
from frontend.conformance.logged import LOG_ALL, LOGGING, at_home, hexadecimal, logged, marks_request, rings_apart
from frontend.conformance.memory import PAGE, Span
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import CaseError, Failure, Level, Verdict
from vhostuser.fd import NO_FDS, Fds
from vhostuser.transport.notifier import event_pair
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetLogBase, SetLogFd

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Device, Peer

SHMFD = ProtocolFeature.LOG_SHMFD
log_base = partial(case, section="msg SET_LOG_BASE", tags=("log",), needs=(LOG_ALL, SHMFD))
hostile = partial(
    case,
    level=Level.ROBUSTNESS,
    section="Migration",
    tags=("log", "hostile"),
    needs=(LOG_ALL, SHMFD),
    passes="refused, ignored or closed; nothing is written beside the log, and the back-end lives",
)
HIGH = 1 << 32
"""A guest address whose place in a log is 128 KiB behind the log's beginning."""
SMALL = 4096
"""Bytes of a log for the first 128 MiB."""


@log_base(
    "B-LOG-01",
    level=Level.MUST,
    section="Communication",
    title="SET_LOG_BASE is answered once LOG_SHMFD is negotiated",
    provoke="SET_LOG_BASE with a descriptor, without need_reply; GET_FEATURES behind it",
    passes="one reply, of 0, 8 or 16 bytes, and right behind it the one to GET_FEATURES",
    needs=(SHMFD,),
)
async def answered(peer: Peer) -> None:
    """The front-end keeps the old log until it knows that the new one is in use.

    The document says that there is a reply, and not what is in it: peers send nothing, a number, or what they got.
    """
    device = await prepared(peer, protocol=LOGGING)
    session = device.session
    with DirtyLog(device.memory) as log:
        await session.send(log.message, log.fds())
        answer = await session.receive(what="the reply to SET_LOG_BASE")
        answer.fds.close()
        if answer.request != SetLogBase.spec.request:
            raise Failure(f"SET_LOG_BASE: found an answer to request {answer.request}, expected one to 6")
        peer.note(f"reply of {len(answer.payload)} bytes, {answer.payload.hex() or 'nothing'}")
        await session.in_sync()


@log_base(
    "B-LOG-13",
    level=Level.ROBUSTNESS,
    title="A new log takes the place of the old one",
    provoke="SET_LOG_BASE with another file between requests, and with a third under a ring full of them",
    passes="after the reply the new one is marked, and the old one stays as it is",
    tags=("log", "ring"),
)
async def replaced(peer: Peer) -> Verdict | None:
    """The reply lets the front-end unmap the old log: marks that come later are lost, or hit something else.

    What requests that were under way at that moment mark in the old one is told, not failed: the text does not say.
    """
    async with logged(peer, used_at=at_home) as (device, first):
        await device.works()
        with DirtyLog(device.memory) as second, DirtyLog(device.memory) as third:
            await _replace(device, first, second)
            await marks_request(device, second)
            if extra := first.pages():
                raise Failure(f"pages {hexadecimal(extra)} were marked in the old log after the reply to SET_LOG_BASE")
            requests = batch_of(device, most=16)
            for request in requests:
                device.ring.add(request)
            device.ring.publish(kick=True)
            await _replace(device, second, third)
            await device.ring.finish(len(requests))
            await marks_request(device, third)
            if late := second.pages():
                peer.note(f"pages {hexadecimal(late)} of requests under way were marked in the old log after the reply")
                return Verdict.WARN
    return None


async def _replace(device: Device, old: DirtyLog, new: DirtyLog) -> None:
    """Hand ``new`` over, and forget what is marked in ``old``: the same pages are written to again."""
    await new.share(device.session)
    old.clear()


@log_base(
    "B-LOG-14",
    level=Level.ROBUSTNESS,
    section="Migration",
    title="LOG_ALL before there is a log",
    provoke="SET_FEATURES with LOG_ALL, memory, rings and requests; only then SET_LOG_BASE; requests",
    passes="the back-end lives, all requests are done once there is a log, and the last ones are marked",
    tags=("log", "ring"),
)
async def log_comes_later(peer: Peer) -> None:
    """So does QEMU begin with a device that is started while a migration runs.  Requests may be held until then."""
    device = await prepared(peer, virtio=LOG_ALL, protocol=LOGGING)
    device.ring.log_addr = at_home(device.ring)
    rings_apart(device)
    await start(device)
    requests = batch_of(device, most=4)
    for request in requests:
        device.ring.add(request)
    device.ring.publish(kick=True)
    await device.session.in_sync()
    with DirtyLog(device.memory) as log:
        await log.share(device.session)
        await device.ring.finish(len(requests))
        await marks_request(device, log)
        log.check()


@log_base(
    "B-LOG-15",
    level=Level.MAY,
    section="msg SET_LOG_FD",
    title="A descriptor that tells of changes in the log",
    provoke="SET_LOG_FD; requests",
    passes="it is signalled or not; all goes on",
    tags=("log", "ring"),
)
async def log_fd(peer: Peer) -> None:
    """An offer to the back-end, which it may leave."""
    theirs, ours = event_pair()
    try:
        async with logged(peer, used_at=at_home) as (device, log):
            session = device.session
            await session.send(SetLogFd(), Fds.of(theirs.duplicate()), need_reply=session.acks)
            peer.note(f"SET_LOG_FD: {(await session.outcome(SetLogFd.spec.request)).value}")
            await marks_request(device, log)
            peer.note(f"the descriptor was {'signalled' if ours.drain() else 'not signalled'}")
            await session.in_sync()
    finally:
        ours.close()
        theirs.close()


async def _endures(peer: Peer, memory: SharedMemory, log: DirtyLog) -> Verdict | None:
    """Hand over a log that cannot be right, log, and write: whatever comes of it, the back-end lives on."""
    verdict = None
    with log:
        try:
            device = await prepared(peer, virtio=LOG_ALL, protocol=LOGGING, memory=memory)
            session = device.session
            await session.send(log.message, log.fds())
            peer.note(f"SET_LOG_BASE: {(await session.outcome(SetLogBase.spec.request)).value}")
            await _some_requests(peer, device)
            await session.in_sync()
            await keeps_quiet(peer)
        except Closed:
            peer.note("closed the connection")
            verdict = Verdict.REJECT
        await peer.alive()
        log.check()
    memory.check()
    return verdict


async def _some_requests(peer: Peer, device: Device) -> None:
    """Requests on a logged used ring, if the back-end goes so far; they may be left undone."""
    device.ring.log_addr = at_home(device.ring)
    try:
        await start(device)
        for number in range(3):
            device.ring.add(device.request(number))
        device.ring.publish(kick=True)
        await device.ring.finish(within=0.1)
    except CaseError as error:
        peer.note(str(error))


@hostile(
    "B-LOG-19",
    title="A log that is too small for the memory",
    provoke=f"a log that ends where the memory begins; one of {SMALL} bytes for memory at 4 GiB; requests with each",
)
async def too_small(peer: Peer) -> Verdict | None:
    """Where a mark belongs follows from a guest address, which a driver chooses: unchecked, it is a write anywhere.

    The first such write would be behind the log and in the same page, where it is seen for certain.
    """
    near, far = peer.memory(), peer.memory(Span(HIGH, 4 << 20, offset=PAGE, behind=PAGE))
    verdicts = {
        await _endures(peer, near, DirtyLog(near, size=near.regions[0].guest_addr // (8 * LOG_PAGE))),
        await _endures(peer, far, DirtyLog(far, size=SMALL, file_size=1 << 20)),
    }
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


@hostile(
    "B-LOG-20",
    section="msg SET_LOG_BASE",
    title="A log that is larger than its file",
    provoke="a size that covers memory at 4 GiB, in a file of one page; requests",
)
async def short_file(peer: Peer) -> Verdict | None:
    """Mapping it succeeds; the first mark behind the file's end is a SIGBUS."""
    memory = peer.memory(Span(HIGH, 4 << 20, offset=PAGE, behind=PAGE))
    return await _endures(peer, memory, DirtyLog(memory, file_size=PAGE))


@hostile(
    "B-LOG-21",
    section="msg SET_LOG_BASE",
    title="SET_LOG_BASE without a descriptor, and with two",
    provoke="each",
    passes="refused, ignored or closed; descriptors are closed",
)
async def wrong_fds(peer: Peer) -> Verdict | None:
    """One is needed.  What is left of a second is nobody's, and stays open as long as the back-end runs."""
    message = SetLogBase(SMALL, 0)
    with watched(peer) as fds:
        verdict = await survives_each(
            peer,
            Raw.of(message, fds=lambda: NO_FDS),
            Raw.of(message, fds=lambda: fds.fds(2)),
            protocol=LOGGING,
        )
        await fds.check(keep_open="with SET_LOG_BASE, two at once")
    return verdict


@hostile(
    "B-LOG-22",
    section="msg SET_LOG_BASE",
    title="A log of no bytes, and one that ends behind the end of all numbers",
    provoke="size 0; offset + size = 2^64 + 4096; an offset far behind the file; requests after each",
)
async def no_such_place(peer: Peer) -> Verdict | None:
    """The sum wraps around to a small number, which looks fine; nothing maps to nothing."""
    verdicts = set()
    for size, offset in ((0, 0), (2 * SMALL, (1 << 64) - SMALL), (SMALL, 1 << 40)):
        memory = peer.memory()
        log = DirtyLog(memory)
        log.message = SetLogBase(size, offset)
        verdicts.add(await _endures(peer, memory, log))
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None
