"""Inflight areas that cannot be (B-INF-20 to 25)."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.endure import keeps_quiet
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.inflight import InflightArea
from frontend.conformance.load import prepared, start
from frontend.conformance.resume import TRACKING
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict, Wedged
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetInflightFd, SetInflightFd
from vhostuser.wire.inflight import VERSION, DescStateSplit, QueueRegionSplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Device, Peer

hostile = partial(
    case,
    level=Level.ROBUSTNESS,
    section="Inflight I/O tracking",
    tags=("hostile", "inflight"),
    passes="refused, ignored or closed; the back-end lives",
    needs=(ProtocolFeature.INFLIGHT_SHMFD,),
)
SIZE = 128


async def _endures_area(
    peer: Peer, craft: Callable[[InflightArea], None], *, ring_size: int = SIZE, message: SetInflightFd | None = None
) -> Verdict | None:
    """Hand over an area, start the rings, and put a request in: whatever comes of it, the back-end lives on."""
    device = await prepared(peer, size=ring_size, protocol=TRACKING)
    with InflightArea.made(len(device.rings), SIZE) as area:
        craft(area)
        session = device.session
        try:
            await session.send(message or area.message, Fds.of(area.fd.duplicate()), need_reply=session.acks)
            outcome = await session.outcome(SetInflightFd.spec.request)
            peer.note(f"SET_INFLIGHT_FD: {outcome.value}")
            if not outcome.refused:
                await _some_request(peer, device)
            await session.in_sync()
            await keeps_quiet(peer)
        except Closed:
            peer.note("closed the connection")
            await peer.alive()
            return Verdict.REJECT
    device.memory.check()
    await peer.alive()
    return None


async def _some_request(peer: Peer, device: Device) -> None:
    """Start the rings and put a request in, if the back-end lets us; it may refuse at any step, or leave it there."""
    try:
        await start(device)
        device.ring.add(device.request())
        device.ring.publish(kick=True)
        await device.ring.finish(within=0.1)
    except (Wedged, Failure) as error:
        peer.note(str(error))


@hostile(
    "B-INF-20",
    title="The file is shorter than the area",
    provoke="SET_INFLIGHT_FD with 1 MiB of a file of one page, and with a file of no bytes; then requests",
)
async def short_file(peer: Peer) -> Verdict | None:
    """Mapping it succeeds; the first look beyond the file's end is a SIGBUS."""
    verdicts = set()
    for length in (4096, 0):
        verdicts.add(
            await _endures_area(
                peer,
                lambda area, length=length: os.ftruncate(area.fd.fileno(), length),  # type: ignore[misc]
                message=SetInflightFd(1 << 20, 0, 1, SIZE),
            )
        )
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


@hostile(
    "B-INF-21",
    section="GET_INFLIGHT_FD",
    title="More queues than there are",
    provoke="GET_INFLIGHT_FD and SET_INFLIGHT_FD for 1000 and for 65535 queues",
)
async def many_queues(peer: Peer) -> Verdict | None:
    """The number decides how much memory is made, and how far the back-end walks."""
    with InflightArea.made(1, SIZE) as area:
        return await survives_each(
            peer,
            *(Raw.of(GetInflightFd(0, 0, count, SIZE)) for count in (1000, 65535)),
            *(
                Raw.of(SetInflightFd(area.mmap_size, 0, count, SIZE), lambda: Fds.of(area.fd.duplicate()))
                for count in (1000, 65535)
            ),
            protocol=TRACKING,
        )


def _garbage(*, behind: int, last: int, inflight: int, following: int) -> Callable[[InflightArea], None]:
    """Areas whose used index is so far behind that of the ring, which is 0."""

    def craft(area: InflightArea) -> None:
        for queue in range(area.queues):
            used = -behind & 0xFFFF
            area.put_header(
                QueueRegionSplit(version=VERSION, desc_num=SIZE, last_batch_head=last, used_idx=used), queue
            )
            for number in range(SIZE):
                area.put_entry(number, DescStateSplit(inflight=inflight, next=following, counter=number), queue)

    return craft


@hostile(
    "B-INF-22",
    title="Rubbish in the area",
    provoke="a last batch that begins behind the area, one that goes there, one that is a loop, one that is too long; "
    "every entry in flight, with 1 and with 255",
    passes="it comes to an end, and the back-end lives",
)
async def rubbish(peer: Peer) -> Verdict | None:
    """The area is shared memory: a front-end, or a back-end before this one, can have written anything there."""
    verdicts = {
        await _endures_area(peer, _garbage(behind=3, last=9999, inflight=0, following=0)),
        await _endures_area(peer, _garbage(behind=3, last=0, inflight=0, following=65535)),
        await _endures_area(peer, _garbage(behind=3, last=1, inflight=1, following=1)),
        await _endures_area(peer, _garbage(behind=65472, last=0, inflight=0, following=0)),
        await _endures_area(peer, _garbage(behind=0, last=1, inflight=1, following=2)),
        await _endures_area(peer, _garbage(behind=0, last=1, inflight=255, following=1)),
    }
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


@hostile(
    "B-INF-23",
    title="A ring of another size than the area is for",
    provoke="an area for 128 entries, a ring of 256, and one of 64",
)
async def other_size(peer: Peer) -> Verdict | None:
    """Heads are indices into the area's entries: with the ring larger, they lead behind its end."""
    verdicts = {
        await _endures_area(peer, lambda area: None, ring_size=256),
        await _endures_area(peer, lambda area: None, ring_size=64),
    }
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


@hostile(
    "B-INF-24",
    section="GET_INFLIGHT_FD",
    title="An area for no queues, or for queues of no entries",
    provoke="GET_INFLIGHT_FD with 0 queues, with size 0, and with both",
    passes="a size of 0, or refused or closed; the back-end lives",
)
async def nothing(peer: Peer) -> Verdict | None:
    """Sizes that come out as 0 are where allocation and mapping fail in their own ways."""
    return await survives_each(
        peer,
        *(Raw.of(GetInflightFd(0, 0, queues, size)) for queues, size in ((0, SIZE), (1, 0), (0, 0))),
        protocol=TRACKING,
    )


@hostile(
    "B-INF-25",
    section="SET_INFLIGHT_FD",
    title="SET_INFLIGHT_FD without a descriptor, and with 20 bytes",
    provoke="the message without a descriptor; the same with the fields alone, and no padding",
)
async def incomplete(peer: Peer) -> Verdict | None:
    """There is nothing to map without the one, and the other is what the document's table says."""
    with InflightArea.made(1, SIZE) as area:
        return await survives_each(
            peer,
            Raw.of(area.message),
            Raw(SetInflightFd.spec.request, area.message.build()[:20], fds=lambda: Fds.of(area.fd.duplicate())),
            protocol=TRACKING,
        )
