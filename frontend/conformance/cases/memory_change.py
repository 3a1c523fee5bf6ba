"""SET_MEM_TABLE once more: what becomes of the old table, and of rings that run (B-MEM-08, 09, 16, 17)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic, bring_up
from frontend.conformance.expect import recorded
from frontend.conformance.held import lets_go
from frontend.conformance.memory import Span
from frontend.conformance.placing import moved, unreachable
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Verdict, Wedged
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetMemTable

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.session import Session

MIB = 1 << 20
GUEST = 0x10_0000
MANY = 1000
BATCH = 50
"""Messages between two looks whether the back-end keeps up."""
AWAY = 1 << 40
SOME = 10
"""Messages, after which even a late table is in place."""


@case(
    "B-MEM-08",
    level=Level.MUST,
    section="msg SET_MEM_TABLE",
    title="A new table replaces the old one",
    provoke="a table of two regions, then one of the first only; a ring in that, and a request with a buffer in the "
    "other",
    passes="the buffer is not written to, and the request is completed with an error, left or closed over",
    tags=["memory"],
)
async def replaced(peer: Peer) -> Verdict | None:
    """Memory that was taken back is not the back-end's any more, and may be anybody's."""
    memory = peer.memory(Span(GUEST, MIB), Span(GUEST + 16 * MIB, MIB))
    session = await peer.negotiated(basic(peer))
    await memory.share(session)
    await session.tell(SetMemTable(memory.regions[:1]), Fds.of(memory.fd(0)))
    device = await bring_up(peer, session, memory, share=False)
    await device.works()
    taken_back = memory.buffer(64, region=1)
    before = memory.snapshot()[1]
    verdict = await unreachable(peer, device, moved(device.request(), taken_back.addr))
    if memory.snapshot()[1] != before:
        raise Failure(f"the buffer at {taken_back.addr:#x} was written to; that region is in the old table only")
    return verdict


@case(
    "B-MEM-09",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="A ring goes on when the memory under it is described anew",
    provoke="on a running ring: a table with one region more; then the same memory at new user addresses, and "
    "SET_VRING_ADDR to match",
    passes="requests are done each time; the text only hints at it, so what happens is recorded",
    variants=["split", "packed"],
    tags=["memory", "ring"],
)
async def live_change(peer: Peer) -> Verdict | None:
    """Hot-plugged memory is told to a back-end that is at work."""
    memory = _two_regions(peer)
    session = await peer.negotiated(basic(peer))
    await session.tell(SetMemTable(memory.regions[:1]), Fds.of(memory.fd(0)))
    device = await bring_up(peer, session, memory, share=False)
    await device.works()
    verdict = await recorded(peer, "a running ring, and a region more", _more(device))
    if verdict is None:
        verdict = await recorded(peer, "a running ring, and new user addresses", _elsewhere(device))
    await peer.alive()
    return verdict


async def _more(device: Device) -> None:
    memory = device.memory
    await memory.share(device.session)
    await device.works()
    memory.home = 1
    await device.works()
    memory.home = 0


async def _elsewhere(device: Device) -> None:
    memory = device.memory
    memory.regions = tuple(replace(region, user_addr=region.user_addr + AWAY) for region in memory.regions)
    await memory.share(device.session)
    for ring in device.rings:
        old = ring.addresses()
        new = replace(old, descriptor=old.descriptor + AWAY, used=old.used + AWAY, available=old.available + AWAY)
        await device.session.tell(new)
    await device.works(2)
    await device.session.in_sync()


@case(
    "B-MEM-16",
    level=Level.ROBUSTNESS,
    section="msg SET_MEM_TABLE",
    title="What an old table mapped and held is let go",
    provoke=f"{MANY} tables one after the other",
    passes="no more descriptors and mappings than before, and a request is done",
    needs=[Need.OUR_PROCESS],
    tags=["memory", "leak"],
    seconds=20,
)
async def replaced_often(peer: Peer) -> None:
    """A guest that plugs memory for a year must not find its back-end out of descriptors."""
    memory = peer.memory(Span(GUEST, MIB))
    session = await peer.negotiated(basic(peer))
    await memory.share(session)

    async def repeat() -> None:
        for _ in range(MANY // BATCH):
            await _share_without_asking(session, memory)

    await lets_go(peer, f"{MANY} memory tables", repeat)
    await (await bring_up(peer, session, memory)).works()


async def _share_without_asking(session: Session, memory: SharedMemory) -> None:
    for _ in range(BATCH):
        await session.send(SetMemTable(memory.regions), memory.fds())
    await session.in_sync()


@case(
    "B-MEM-17",
    level=Level.ROBUSTNESS,
    section="REPLY_ACK",
    title="Memory is usable once its table is acknowledged",
    provoke="on a device that is up: a table with a second region and need_reply, and at once a request with its "
    "buffers there",
    passes="it is done; where it is not, and not later either, the ring is started after the table",
    needs=[ProtocolFeature.REPLY_ACK],
    variants=["split", "packed"],
    tags=["memory"],
    seconds=20,
)
async def usable_when_acknowledged(peer: Peer) -> None:
    """That is what the acknowledgement is for: the guest may use the memory as soon as the front-end has it.

    Whether rings that run follow a table at all is another question (B-MEM-09).
    """
    try:
        await (await _told_while_up(peer)).works()
    except (Wedged, Failure, Closed) as error:
        peer.hang_up()
        if await recorded(peer, "a request that waits until messages have been answered", _later(peer)) is None:
            raise Failure(f"a request at once after the acknowledgement: {error}; it is done a little later") from None
    peer.hang_up()
    memory = _two_regions(peer)
    session = await peer.negotiated(basic(peer))
    await memory.share(session)
    device = await bring_up(peer, session, memory, share=False)
    memory.home = 1
    await device.works()


def _two_regions(peer: Peer) -> SharedMemory:
    return peer.memory(Span(GUEST, 4 * MIB), Span(GUEST + 16 * MIB, MIB))


async def _told_while_up(peer: Peer) -> Device:
    """A device that has done a request, with a region more since, where its next requests are."""
    memory = _two_regions(peer)
    session = await peer.negotiated(basic(peer))
    await session.tell(SetMemTable(memory.regions[:1]), Fds.of(memory.fd(0)))
    device = await bring_up(peer, session, memory, share=False)
    await device.works()
    await memory.share(session)
    memory.home = 1
    return device


async def _later(peer: Peer) -> None:
    device = await _told_while_up(peer)
    for _ in range(SOME):
        await device.session.in_sync()
    await device.works()
