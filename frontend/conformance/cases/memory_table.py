"""SET_MEM_TABLE: what each number of a region means (B-MEM-01 to 07, 10 to 15)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic, bring_up
from frontend.conformance.expect import equal
from frontend.conformance.memory import PAGE, Span
from frontend.conformance.placing import across, moved, unreachable
from frontend.conformance.session import DEFAULT_PROTOCOL, Closed, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict, Wedged
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetMemTable
from vhostuser.wire.records import MAX_REGIONS, MemoryRegion

if TYPE_CHECKING:
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Peer

SECTION = "msg SET_MEM_TABLE"
PAYLOAD = "Multiple memory regions description"
MIB = 1 << 20
GUEST = 0x10_0000
BOTH = ("split", "packed")
REGION_BYTES = 32


@case(
    "B-MEM-01",
    level=Level.MUST,
    section=SECTION,
    title="A region of one file is mapped and used",
    provoke="one region with one descriptor; a ring and buffers in it",
    passes="requests are done",
    variants=BOTH,
    tags=["memory"],
)
async def one_region(peer: Peer) -> None:
    """Without the guest's memory there is nothing that a back-end could do."""
    async with peer.device() as device:
        await device.works(2)


@case(
    "B-MEM-02",
    level=Level.MUST,
    section=PAYLOAD,
    title="Eight regions are mapped and used",
    provoke="eight regions with eight descriptors; requests with their buffers in each of them in turn",
    passes="requests are done in all of them",
    tags=["memory"],
)
async def eight_regions(peer: Peer) -> None:
    """The text allows eight regions, and a guest with hot-plugged memory soon has as many."""
    memory = peer.memory(*(Span(GUEST + 4 * MIB * number, MIB) for number in range(MAX_REGIONS)))
    async with peer.device(memory=memory) as device:
        for memory.home in range(MAX_REGIONS):
            await device.works()


@case(
    "B-MEM-03",
    level=Level.MUST,
    section=SECTION,
    title="Descriptors belong to regions in their order",
    provoke="two regions of one size, each with a file of its own: rings in the first, buffers in the second",
    passes="requests are done",
    tags=["memory"],
)
async def order_of_descriptors(peer: Peer) -> None:
    """Nothing else tells which file is meant, and two files of one size cannot be told apart by a mistake."""
    memory = peer.memory(Span(GUEST, MIB), Span(GUEST + 16 * MIB, MIB))
    async with peer.device(memory=memory) as device:
        memory.home = 1
        await device.works(2)


@case(
    "B-MEM-04",
    level=Level.MUST,
    section=PAYLOAD,
    title="A region begins at its offset in the file",
    provoke="a region that begins four pages into its file; a ring and buffers in it",
    passes="requests are done, and the pages before and behind are left alone",
    tags=["memory"],
)
async def offset(peer: Peer) -> None:
    """Guests have holes below 4 GiB, so one file is often two regions."""
    memory = peer.memory(Span(GUEST, MIB, offset=4 * PAGE, behind=PAGE))
    async with peer.device(memory=memory) as device:
        await device.works(2)


@case(
    "B-MEM-05",
    level=Level.ROBUSTNESS,
    section=PAYLOAD,
    title="Two regions may lie in one file",
    provoke="one file as two regions with different offsets, its descriptor sent twice: rings in the first half, "
    "buffers in the second",
    passes="requests are done",
    tags=["memory"],
)
async def one_file_twice(peer: Peer) -> None:
    """That is how QEMU tells a guest whose memory has a hole."""
    memory = peer.memory(Span(GUEST, 2 * MIB))
    session = await peer.negotiated(basic(peer))
    whole = memory.regions[0]
    halves = [
        MemoryRegion(GUEST, MIB, whole.user_addr, whole.mmap_offset),
        MemoryRegion(GUEST + MIB, MIB, whole.user_addr + MIB, whole.mmap_offset + MIB),
    ]
    await session.tell(SetMemTable(tuple(halves)), Fds.of(memory.fd(), memory.fd()))
    device = await bring_up(peer, session, memory, share=False)
    memory.skip_to(GUEST + MIB)
    await device.works(2)


@case(
    "B-MEM-06",
    level=Level.MUST,
    section="Memory access",
    title="Ring addresses are user addresses",
    provoke="two regions, each at the user address that is the other's guest address; a ring in one of them",
    passes="requests are done, so the ring was found by its user address",
    variants=BOTH,
    tags=["memory"],
)
async def rings_by_user_address(peer: Peer) -> None:
    """Taken for a guest address, each of these numbers leads to memory that is there, and is the wrong one."""
    async with peer.device(memory=peer.memory(*_crossed())) as device:
        await device.works(2)


@case(
    "B-MEM-07",
    level=Level.MUST,
    section="Memory access",
    title="Addresses in descriptors are guest addresses",
    provoke="two regions, each at the user address that is the other's guest address; buffers in each of them",
    passes="requests are done, and what lies at the same user addresses is left alone",
    variants=BOTH,
    tags=["memory"],
)
async def buffers_by_guest_address(peer: Peer) -> None:
    """A back-end that takes one for the other works with QEMU only as long as the two are far apart."""
    memory = peer.memory(*_crossed())
    async with peer.device(memory=memory) as device:
        for memory.home in (1, 0):
            await device.works()


def _crossed() -> tuple[Span, Span]:
    return Span(GUEST, MIB, user_addr=16 * MIB), Span(16 * MIB, MIB, user_addr=GUEST)


@case(
    "B-MEM-10",
    level=Level.ROBUSTNESS,
    section=PAYLOAD,
    title="A table has as many bytes as it has regions",
    provoke="one region in a payload of 40 bytes",
    passes="it is accepted, and requests are done",
    tags=["memory"],
)
async def trimmed_table(peer: Peer) -> None:
    """The text draws eight places; QEMU and most others send only those that are in use."""
    async with peer.device() as device:
        equal("bytes in our SET_MEM_TABLE", len(SetMemTable(device.memory.regions).build()), 8 + REGION_BYTES)
        await device.works()


@case(
    "B-MEM-11",
    level=Level.ROBUSTNESS,
    section=PAYLOAD,
    title="A table with all eight places is survived when one is in use",
    provoke="one region in a payload of 264 bytes, zeros behind it",
    passes="accepted, and then requests are done; or refused or closed, and the program lives",
    tags=["memory", "hostile"],
)
async def full_table(peer: Peer) -> Verdict | None:
    """That is the structure as it is drawn, and what a plain C program would send."""
    memory = peer.memory()
    session = await peer.negotiated(basic(peer))
    full = SetMemTable(memory.regions, bytes((MAX_REGIONS - 1) * REGION_BYTES))
    await session.send(full, memory.fds(), need_reply=session.acks)
    outcome = await session.outcome(SetMemTable.spec.request)
    peer.note(f"a table of 264 bytes: {outcome.value}")
    if not outcome.refused:
        await (await bring_up(peer, session, memory, share=False)).works()
    await peer.alive()
    return Verdict.REJECT if outcome is Outcome.CLOSED else None


@case(
    "B-MEM-12",
    level=Level.ROBUSTNESS,
    section="Memory access",
    title="What lies between two regions is nowhere",
    provoke="two regions with a gap between; requests in both, then one with a buffer in the gap",
    passes="those in the regions are done; the one in the gap is completed with an error, left or closed over, and "
    "nothing is written elsewhere instead",
    tags=["memory", "hostile"],
)
async def gap(peer: Peer) -> Verdict | None:
    """A lookup that only compares with the nearest region's start maps the gap to whatever lies behind that region."""
    memory = peer.memory(Span(GUEST, MIB, behind=MIB), Span(GUEST + 4 * MIB, MIB))
    async with peer.device(memory=memory) as device:
        for memory.home in (0, 1):
            await device.works()
        verdict = await unreachable(peer, device, moved(device.request(), GUEST + MIB + PAGE))
    return verdict


@case(
    "B-MEM-13",
    level=Level.ROBUSTNESS,
    section="Memory access",
    title="A buffer across two adjacent regions is handled or refused",
    provoke="two regions next to each other for the guest, in different files; a request with a buffer across both",
    passes="done and right, or completed with an error, left or closed over; nothing beside the buffer is written",
    tags=["memory", "hostile"],
)
async def across_regions(peer: Peer) -> Verdict | None:
    """The guest sees no boundary there.  Whoever does not look writes behind the end of the first mapping."""
    boundary = GUEST + MIB
    memory = peer.memory(Span(GUEST, MIB, behind=PAGE), Span(boundary, MIB, offset=PAGE))
    memory.skip_to(boundary + 2 * PAGE, region=1)
    async with peer.device(memory=memory) as device:
        await device.works()
        request = across(device.request(), memory, boundary)
        device.ring.add(request)
        device.ring.publish(kick=True)
        try:
            for done, used in await device.ring.finish(1, within=0.2):
                _tell_whether_right(peer, done, used)
            await device.session.in_sync()
        except Wedged:
            peer.note("a buffer across two regions: the request never came back")
            await device.session.in_sync()
        except Closed:
            peer.note("a buffer across two regions: closed the connection")
            return Verdict.REJECT
        finally:
            memory.check()
            await peer.alive()
    return None


def _tell_whether_right(peer: Peer, done: Request, used: int) -> None:
    try:
        done.check(used)
        peer.note("a buffer across two regions: done")
    except Failure as error:
        peer.note(f"a buffer across two regions: completed as a failed request ({error})")


@case(
    "B-MEM-14",
    level=Level.ROBUSTNESS,
    section=PAYLOAD,
    title="Of a file only the region is used",
    provoke="a region that is the first half of its file; requests, then one with a buffer behind the region's end",
    passes="the other half is untouched",
    tags=["memory", "hostile"],
)
async def half_a_file(peer: Peer) -> Verdict | None:
    """The rest may be another guest's, or memory that the front-end keeps to itself."""
    async with peer.device(memory=peer.memory(Span(GUEST, MIB, behind=MIB))) as device:
        await device.works(2)
        return await unreachable(peer, device, moved(device.request(), GUEST + MIB + PAGE))


@case(
    "B-MEM-15",
    level=Level.MUST,
    section="A vring address description",
    title="With GPA_ADDRESSES ring addresses are guest addresses",
    provoke="GPA_ADDRESSES, a region whose user address repeats its guest address, and a ring by guest addresses",
    passes="requests are done",
    needs=[ProtocolFeature.GPA_ADDRESSES],
    variants=BOTH,
    tags=["memory"],
)
async def guest_physical(peer: Peer) -> None:
    """It is for front-ends that have no addresses of their own to tell."""
    memory = peer.memory(Span(GUEST, MIB, user_addr=GUEST))
    protocol = DEFAULT_PROTOCOL | ProtocolFeature.GPA_ADDRESSES
    async with peer.device(memory=memory, protocol=protocol) as device:
        await device.works(2)
