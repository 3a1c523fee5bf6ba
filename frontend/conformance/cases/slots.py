"""Memory slots: regions that are added and removed (B-SLOT-01 to 08, 11, 12, 14)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.expect import equal
from frontend.conformance.memory import PAGE, Span
from frontend.conformance.placing import moved, unreachable
from frontend.conformance.session import Outcome
from frontend.conformance.slots import add, max_slots, remove, with_slots
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import AddMemReg, GetMaxMemSlots, RemMemReg
from vhostuser.wire.records import MemoryRegion

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.session import Session

NEEDS = (ProtocolFeature.CONFIGURE_MEM_SLOTS,)
TAGS = ("memory", "slots")
MIB = 1 << 20
GUEST = 0x10_0000
LEAST = 8
MOST = 509
"""What libvhost-user and rust-vmm can hold; one is not asked for more."""
AGAIN = 100


def apart(*sizes: int) -> list[Span]:
    """Regions with gaps between them."""
    return [Span(GUEST + 16 * MIB * number, size) for number, size in enumerate(sizes)]


async def running(peer: Peer, memory: SharedMemory, *added: int) -> Device:
    """A device that is up in regions that were added one by one."""
    session = await with_slots(peer)
    await add(session, memory, *added)
    return await bring_up(peer, session, memory, share=False)


@case(
    "B-SLOT-01",
    level=Level.MUST,
    section="msg GET_MAX_MEM_SLOTS",
    title="GET_MAX_MEM_SLOTS is answered with a number above 0",
    provoke="GET_MAX_MEM_SLOTS",
    passes="8 bytes, and not 0",
    needs=NEEDS,
    tags=TAGS,
)
async def number_of_slots(peer: Peer) -> None:
    """The front-end tells from it whether a guest's memory will fit, and refuses to plug more."""
    session = await with_slots(peer)
    await session.send(GetMaxMemSlots())
    answer = await session.receive()
    equal("size of the reply to GET_MAX_MEM_SLOTS", len(answer.payload), 8)
    if not answer.value:
        raise Failure("GET_MAX_MEM_SLOTS: found 0 slots, expected at least one")


@case(
    "B-SLOT-02",
    level=Level.ROBUSTNESS,
    section="msg GET_MAX_MEM_SLOTS",
    title="There are at least as many slots as a memory table has places",
    provoke="GET_MAX_MEM_SLOTS",
    passes="8 or more; the text has no least number, so fewer are recorded",
    needs=NEEDS,
    tags=TAGS,
)
async def enough_slots(peer: Peer) -> Verdict | None:
    """With fewer, the feature would be a step back from SET_MEM_TABLE."""
    found = await max_slots(await with_slots(peer))
    peer.note(f"{found} slots")
    return Verdict.WARN if found < LEAST else None


@case(
    "B-SLOT-03",
    level=Level.MUST,
    section="msg ADD_MEM_REG",
    title="A region that was added is mapped and used",
    provoke="ADD_MEM_REG with one descriptor; a ring and buffers there",
    passes="requests are done",
    needs=NEEDS,
    variants=["split", "packed"],
    tags=TAGS,
)
async def added(peer: Peer) -> None:
    """QEMU sends no memory table any more where it can do this."""
    await (await running(peer, peer.memory())).works(2)


@case(
    "B-SLOT-04",
    level=Level.MUST,
    section="msg ADD_MEM_REG",
    title="Regions that are added do not replace each other",
    provoke="three times ADD_MEM_REG; a ring in the first region, buffers in each of them",
    passes="requests are done in all three",
    needs=NEEDS,
    tags=TAGS,
)
async def accumulated(peer: Peer) -> None:
    """That is the difference to SET_MEM_TABLE."""
    memory = peer.memory(*apart(MIB, MIB, MIB))
    device = await running(peer, memory)
    for memory.home in range(3):
        await device.works()


@case(
    "B-SLOT-05",
    level=Level.MUST,
    section="msg ADD_MEM_REG",
    title="A region that is added while rings run can be used at once",
    provoke="ADD_MEM_REG on a device at work; then a request with its buffers there",
    passes="it is done",
    needs=NEEDS,
    variants=["split", "packed"],
    tags=TAGS,
)
async def added_at_run_time(peer: Peer) -> None:
    """Memory is plugged into guests that run."""
    memory = peer.memory(*apart(MIB, MIB))
    device = await running(peer, memory, 0)
    await device.works()
    await add(device.session, memory, 1)
    memory.home = 1
    await device.works()


@case(
    "B-SLOT-06",
    level=Level.MUST,
    section="msg REM_MEM_REG",
    title="A region that was removed is not used any more",
    provoke="REM_MEM_REG of one of two regions; then a request with a buffer there",
    passes="the buffer is not written to, and the request is completed with an error, left or closed over",
    needs=NEEDS,
    tags=TAGS,
)
async def removed(peer: Peer) -> Verdict | None:
    """The front-end may give the memory to somebody else as soon as its removal is acknowledged."""
    memory = peer.memory(*apart(MIB, MIB))
    device = await running(peer, memory)
    memory.home = 1
    await device.works()
    memory.home = 0
    await remove(device.session, memory, 1)
    gone = memory.buffer(64, region=1)
    before = memory.snapshot()[1]
    verdict = await unreachable(peer, device, moved(device.request(), gone.addr))
    if memory.snapshot()[1] != before:
        raise Failure(f"the buffer at {gone.addr:#x} was written to; its region had been removed")
    return verdict


@case(
    "B-SLOT-07",
    level=Level.MUST,
    section="msg REM_MEM_REG",
    title="A removal does not look at the offset in the file",
    provoke="regions added with an offset, and removed with offset 0 and with one that makes no sense",
    passes="both removals are accepted, and the ranges can be added again",
    needs=NEEDS,
    tags=TAGS,
)
async def removal_ignores_the_offset(peer: Peer) -> None:
    """The text names what a region is known by: its two addresses and its size."""
    session = await with_slots(peer)
    memory = peer.memory(Span(GUEST, MIB, offset=PAGE))
    for offset in (0, 0xDEAD_BEEF_0000):
        await add(session, memory)
        await session.tell(RemMemReg(replace(memory.regions[0], mmap_offset=offset)))
    await add(session, memory)
    await session.in_sync()


@case(
    "B-SLOT-08",
    level=Level.MUST,
    section="msg REM_MEM_REG",
    title="A removal has to name the region's addresses and size",
    provoke="REM_MEM_REG with another size, another user address, another guest address",
    passes="refused or closed; and the region still works where the connection stands",
    needs=NEEDS,
    tags=TAGS,
)
async def removal_has_to_match(peer: Peer) -> Verdict | None:
    """A removal that takes the next best region pulls memory from under a running guest."""
    verdicts = set()
    for wrong in ({"size": MIB // 2}, {"user_addr": 1 << 20}, {"guest_addr": 1 << 40}):
        memory = peer.memory(Span(GUEST, MIB))
        device = await running(peer, memory)
        verdicts.add(await _not_removed(peer, device, replace(memory.regions[0], **wrong), *wrong))
        await peer.alive()
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


async def _not_removed(peer: Peer, device: Device, region: MemoryRegion, name: str) -> Verdict | None:
    session = device.session
    await session.send(RemMemReg(region), need_reply=session.acks)
    outcome = await session.outcome(RemMemReg.spec.request)
    peer.note(f"REM_MEM_REG with another {name}: {outcome.value}")
    if outcome is Outcome.ACK:
        raise Failure(f"REM_MEM_REG with another {name} was acknowledged with 0, expected a refusal")
    if outcome is Outcome.CLOSED:
        return Verdict.REJECT
    await device.works()
    return None


@case(
    "B-SLOT-11",
    level=Level.MUST,
    section="msg REM_MEM_REG",
    title="A range can be added, removed and added again",
    provoke=f"ADD_MEM_REG and REM_MEM_REG of one region, {AGAIN} times; then it is added, and used",
    passes="each of them is accepted, and requests are done",
    needs=NEEDS,
    tags=TAGS,
)
async def again_and_again(peer: Peer) -> None:
    """A balloon of hot-plugged memory comes and goes at the same place."""
    session = await with_slots(peer)
    memory = peer.memory()
    for _ in range(AGAIN):
        await add(session, memory)
        await remove(session, memory, 0)
    await add(session, memory)
    await (await bring_up(peer, session, memory, share=False)).works()


@case(
    "B-SLOT-12",
    level=Level.MUST,
    section="msg GET_MAX_MEM_SLOTS",
    title="As many regions can be added as there are slots",
    provoke=f"ADD_MEM_REG as often as GET_MAX_MEM_SLOTS allows, at most {MOST} times",
    passes="all of them are accepted, and the last one works",
    needs=NEEDS,
    tags=TAGS,
    seconds=20,
)
async def all_slots(peer: Peer) -> None:
    """The number is a promise: a front-end does not plug memory by trial and error."""
    session = await with_slots(peer)
    count = min(await max_slots(session), MOST)
    memory = peer.memory(Span(GUEST, 2 * MIB))
    await add(session, memory)
    await fill(session, memory, count - 1)
    await session.in_sync()
    await (await bring_up(peer, session, memory, share=False)).works()


async def fill(session: Session, memory: SharedMemory, count: int) -> None:
    """Add the first page of ``memory`` as ``count`` regions far away from all others."""
    for number in range(count):
        at = (1 << 40) + 16 * MIB * number
        region = MemoryRegion(at, PAGE, memory.regions[0].user_addr + at, 0)
        await session.tell(AddMemReg(region), Fds.of(memory.fd()))


@case(
    "B-SLOT-14",
    level=Level.ROBUSTNESS,
    section="Single memory region description",
    title="ADD_MEM_REG has a payload of 40 bytes",
    provoke="ADD_MEM_REG with 8 bytes of padding and the 32 of a region",
    passes="accepted",
    needs=NEEDS,
    tags=TAGS,
)
async def payload_of_forty(peer: Peer) -> None:
    """The text does not count bytes; this is what the structure has in C, and what everybody sends."""
    memory = peer.memory(Span(GUEST, MIB))
    equal("bytes in our ADD_MEM_REG", len(AddMemReg(memory.regions[0]).build()), 40)
    session = await with_slots(peer)
    await add(session, memory)
    await session.in_sync()
