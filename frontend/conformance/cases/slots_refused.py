"""Memory slots: what is odd, too much, or not allowed (B-SLOT-09, 10, 13, 15 to 19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.cases.slots import MOST, fill
from frontend.conformance.expect import recorded
from frontend.conformance.hostile import Raw, survives_each, watched
from frontend.conformance.memory import Span
from frontend.conformance.session import Outcome, Session
from frontend.conformance.slots import SLOTS, add, max_slots, remove, with_slots
from frontend.conformance.suite import case
from vhostuser.conformance import Level, Skip, Verdict
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import AddMemReg, RemMemReg

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer

NEEDS = (ProtocolFeature.CONFIGURE_MEM_SLOTS,)
TAGS = ("memory", "slots", "hostile")
MIB = 1 << 20
GUEST = 0x10_0000


@case(
    "B-SLOT-09",
    level=Level.MAY,
    section="msg REM_MEM_REG",
    title="A removal may bring a descriptor",
    provoke="ADD_MEM_REG, then REM_MEM_REG with one descriptor",
    passes="accepted; or refused or closed, and the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def removal_with_descriptor(peer: Peer) -> Verdict | None:
    """Front-ends of an earlier reading of the text send one."""
    memory = peer.memory(Span(GUEST, MIB))

    async def prepare(session: Session) -> None:
        await add(session, memory)

    async def provoke(session: Session) -> None:
        await session.send(RemMemReg(memory.regions[0]), memory.fds(), need_reply=peer.asking)

    return await peer.survives(provoke, RemMemReg.spec.request, prepare=prepare, protocol=SLOTS)


@case(
    "B-SLOT-10",
    level=Level.MUST,
    section="msg REM_MEM_REG",
    title="The descriptor of a removal is closed, and nothing is done with it",
    provoke="REM_MEM_REG with the write end of a pipe, whose read end is watched",
    passes="the read end sees its end",
    needs=NEEDS,
    tags=TAGS,
)
async def descriptor_of_a_removal(peer: Peer) -> None:
    """Each one that is kept is lost until the back-end ends."""
    memory = peer.memory(Span(GUEST, MIB))
    session = await with_slots(peer)
    await add(session, memory)
    with watched(peer) as watch:
        await session.send(RemMemReg(memory.regions[0]), watch.fds(), need_reply=session.acks)
        outcome = await session.outcome(RemMemReg.spec.request)
        peer.note(f"REM_MEM_REG with a descriptor: {outcome.value}")
        await watch.check(keep_open="with REM_MEM_REG")


@case(
    "B-SLOT-13",
    level=Level.ROBUSTNESS,
    section="msg GET_MAX_MEM_SLOTS",
    title="One region more than there are slots is survived",
    provoke="ADD_MEM_REG once more often than GET_MAX_MEM_SLOTS allows",
    passes="refused, closed or accepted; the program lives",
    needs=NEEDS,
    tags=TAGS,
    seconds=20,
)
async def one_too_many(peer: Peer) -> Verdict | None:
    """The table in which regions are kept often has as many places as are told."""
    session = await with_slots(peer)
    count = await max_slots(session)
    if count > MOST + 3:
        raise Skip(f"there are {count} slots: too many to fill them")
    memory = peer.memory(Span(GUEST, MIB))
    await fill(session, memory, count)
    await session.send(AddMemReg(memory.regions[0]), memory.fds(), need_reply=session.acks)
    outcome = await session.outcome(AddMemReg.spec.request)
    peer.note(f"region {count + 1} of {count}: {outcome.value}")
    await peer.alive()
    return Verdict.REJECT if outcome is Outcome.CLOSED else None


@case(
    "B-SLOT-15",
    level=Level.ROBUSTNESS,
    section="msg ADD_MEM_REG",
    title="ADD_MEM_REG without a descriptor is survived",
    provoke="a good region and no descriptor",
    passes="refused or closed; the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def without_descriptor(peer: Peer) -> Verdict | None:
    """There is nothing to map, and -1 or 0 are somebody's descriptors."""
    message = Raw.of(AddMemReg(peer.memory(Span(GUEST, MIB)).regions[0]))
    return await survives_each(peer, message, may_accept=False, protocol=SLOTS)


@case(
    "B-SLOT-16",
    level=Level.ROBUSTNESS,
    section="msg ADD_MEM_REG",
    title="ADD_MEM_REG with two descriptors is survived, and keeps neither too many",
    provoke="a good region, its descriptor and a pipe that is watched",
    passes="refused, closed or accepted; the pipe is closed, and the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def two_descriptors(peer: Peer) -> Verdict | None:
    """What is not asked for has to be closed all the same."""
    memory = peer.memory(Span(GUEST, MIB))
    with watched(peer) as watch:
        message = Raw.of(AddMemReg(memory.regions[0]), fds=lambda: Fds.of(memory.fd(), watch.fds()[0].move()))
        verdict = await survives_each(peer, message, protocol=SLOTS)
        await watch.check(keep_open="as the second one with ADD_MEM_REG")
    return verdict


@case(
    "B-SLOT-17",
    level=Level.ROBUSTNESS,
    section="msg REM_MEM_REG",
    title="The removal of a region that was never added is survived",
    provoke="REM_MEM_REG on a connection that has no region",
    passes="refused or closed; the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def unknown_region(peer: Peer) -> Verdict | None:
    """A search that ends at the last entry must not take it for the one that was meant."""
    message = Raw.of(RemMemReg(peer.memory(Span(GUEST, MIB)).regions[0]))
    return await survives_each(peer, message, may_accept=False, protocol=SLOTS)


@case(
    "B-SLOT-18",
    level=Level.ROBUSTNESS,
    section="msg REM_MEM_REG",
    title="The region under a running ring may go and come back",
    provoke="REM_MEM_REG of the region that holds a ring at work, ADD_MEM_REG of the same; a request, and if it is "
    "not done the ring is set up anew",
    passes="refused or closed, or requests are done in the end; how is recorded",
    needs=NEEDS,
    variants=["split", "packed"],
    tags=[*TAGS, "ring"],
)
async def under_a_ring(peer: Peer) -> Verdict | None:
    """A front-end that re-sorts its regions does that, and the guest has its rings wherever it likes."""
    session = await with_slots(peer)
    memory = peer.memory()
    await add(session, memory)
    device = await bring_up(peer, session, memory, share=False)
    await device.works()
    verdict = await recorded(peer, "a region taken from under a running ring", _out_and_in(device))
    await peer.alive()
    return verdict


async def _out_and_in(device: Device) -> None:
    await remove(device.session, device.memory, 0)
    await add(device.session, device.memory)
    await device.session.in_sync()
    await device.works()


@case(
    "B-SLOT-19",
    level=Level.ROBUSTNESS,
    section="msg ADD_MEM_REG",
    title="ADD_MEM_REG without its feature is survived",
    provoke="ADD_MEM_REG with a descriptor, CONFIGURE_MEM_SLOTS not being negotiated",
    passes="refused, closed or ignored; the program lives",
    absent=NEEDS,
    tags=TAGS,
)
async def not_negotiated(peer: Peer) -> Verdict | None:
    """A back-end may well have code for it, which has never been run in this state."""
    memory = peer.memory(Span(GUEST, MIB))
    return await survives_each(peer, Raw.of(AddMemReg(memory.regions[0]), fds=memory.fds))
