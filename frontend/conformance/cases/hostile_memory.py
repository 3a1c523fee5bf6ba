"""Hostile memory tables (B-HOS-17 to 33, and 53)."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import trio

from frontend.conformance.hostile import Raw, survives_each, watched
from frontend.conformance.memory import PAGE, SharedMemory, Span
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict, Wedged
from vhostuser.fd import Fd, Fds
from vhostuser.transport.unix import socket_pair
from vhostuser.wire.frontend_messages import SetMemTable
from vhostuser.wire.records import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

TAGS = ("hostile", "memory")
MIB = 1 << 20
GUEST, USER = 0x10_0000, 0x7F00_0010_0000
ONE = MemoryRegion(GUEST, MIB, USER, 0)
TOP = (1 << 64) - PAGE
SECTION = "Memory regions description"
FDS_SECTION = "msg SET_MEM_TABLE"


def table(*regions: MemoryRegion, count: int | None = None) -> bytes:
    """A payload of SET_MEM_TABLE, with a count that need not be true."""
    payload = SetMemTable(regions).build()
    return payload if count is None else count.to_bytes(4, "little") + payload[4:]


def files(memory: SharedMemory, count: int) -> Callable[[], Fds]:
    """Makes ``count`` descriptors of one memory file."""
    return lambda: Fds(memory.fd() for _ in range(count))


def tables(memory: SharedMemory, *regions: MemoryRegion) -> Raw:
    """SET_MEM_TABLE with these regions, each with a descriptor of ``memory``."""
    return Raw(SetMemTable.spec.request, table(*regions), fds=files(memory, len(regions)))


def hostile_table(number: int, title: str, provoke: str, rationale: str, *regions: MemoryRegion) -> None:
    """Declare a case that sends one table of well-known numbers and has to be survived."""

    async def check(peer: Peer) -> Verdict | None:
        return await survives_each(peer, tables(peer.memory(Span(GUEST, MIB)), *regions))

    check.__doc__ = rationale
    case(
        f"B-HOS-{number}",
        level=Level.ROBUSTNESS,
        section=SECTION,
        title=title,
        provoke=provoke,
        passes="refused, closed or ignored, and the back-end lives",
        tags=TAGS,
    )(check)


@case(
    "B-HOS-17",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="More regions than the table has room for",
    provoke="SET_MEM_TABLE with a count of 9 and of 0x7fffffff",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def too_many_regions(peer: Peer) -> Verdict | None:
    """The count drives a loop over an array of eight; it is the classic of this protocol."""
    memory, request = peer.memory(Span(GUEST, MIB)), SetMemTable.spec.request
    nine = [MemoryRegion(GUEST + i * MIB, MIB, USER + i * MIB, 0) for i in range(9)]
    return await survives_each(
        peer,
        Raw(request, table(*nine), fds=files(memory, 9)),
        Raw(request, table(*nine[:8], count=0x7FFFFFFF), fds=files(memory, 8)),
    )


@case(
    "B-HOS-18",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="A table without regions",
    provoke="SET_MEM_TABLE with a count of 0",
    passes="refused, closed, ignored or accepted, and the back-end lives",
    tags=TAGS,
)
async def no_regions(peer: Peer) -> Verdict | None:
    """A guest without memory makes no sense, and an empty list has no first element."""
    return await survives_each(peer, Raw(SetMemTable.spec.request, table()))


@case(
    "B-HOS-19",
    level=Level.ROBUSTNESS,
    section=SECTION,
    title="A count that promises more regions than the payload has",
    provoke="SET_MEM_TABLE with a count of 8 in 40 bytes",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def count_beyond_payload(peer: Peer) -> Verdict | None:
    """Seven regions would be read from whatever lies behind the message."""
    memory = peer.memory(Span(GUEST, MIB))
    return await survives_each(
        peer, Raw(SetMemTable.spec.request, table(ONE, count=8), fds=files(memory, 1)), may_accept=False
    )


@case(
    "B-HOS-20",
    level=Level.ROBUSTNESS,
    section=FDS_SECTION,
    title="Fewer descriptors than regions",
    provoke="SET_MEM_TABLE with two regions and one descriptor",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def fewer_fds(peer: Peer) -> Verdict | None:
    """For the second region something would be mapped that happens to stand in the array: descriptor 0, or an old
    one."""
    memory = peer.memory(Span(GUEST, MIB))
    two = (ONE, MemoryRegion(GUEST + MIB, MIB, USER + MIB, 0))
    return await survives_each(peer, Raw(SetMemTable.spec.request, table(*two), fds=files(memory, 1)), may_accept=False)


@case(
    "B-HOS-21",
    level=Level.ROBUSTNESS,
    section=FDS_SECTION,
    title="More descriptors than regions",
    provoke="SET_MEM_TABLE with one region and three descriptors, two of them of a pipe",
    passes="refused, closed, ignored or accepted; those too many are closed",
    tags=TAGS,
)
async def more_fds(peer: Peer) -> Verdict | None:
    """The loop over regions ends before the array of descriptors does; what is left over leaks."""
    memory = peer.memory(Span(GUEST, MIB))
    with watched(peer) as pipes:

        def one_and_two() -> Fds:
            return Fds((memory.fd(), *pipes.fds(2)))

        verdict = await survives_each(peer, Raw(SetMemTable.spec.request, table(ONE), fds=one_and_two))
        await pipes.check(keep_open="beyond the number of regions")
    return verdict


@case(
    "B-HOS-22",
    level=Level.ROBUSTNESS,
    section=FDS_SECTION,
    title="A file that is smaller than its region",
    provoke="a region of 1 MiB over a file of 4096 bytes, a ring beyond its end",
    passes="the back-end lives: no SIGBUS",
    tags=TAGS,
)
async def file_too_small(peer: Peer) -> None:
    """Such a mapping succeeds.  The first access behind the end of the file is what kills, long after the message."""
    session = await peer.negotiated()
    memory = peer.memory(Span(GUEST, 4 * MIB))
    region = MemoryRegion(GUEST, 4 * MIB, memory.regions[0].user_addr, 0)
    with tempfile.TemporaryFile() as small:
        small.truncate(PAGE)
        try:
            await session.send(SetMemTable((region,)), Fds.of(Fd(os.dup(small.fileno()))), need_reply=session.acks)
            if session.acks:
                peer.note(f"SET_MEM_TABLE was acknowledged with {(await session.receive()).value}")
            for ring in peer.rings(session, memory):  # its parts lie behind the first page
                await ring.start(session)
            await is_left_alone(session)
        except (Closed, Failure) as error:
            peer.note(str(error))
    await peer.alive()


@case(
    "B-HOS-23",
    level=Level.ROBUSTNESS,
    section=FDS_SECTION,
    title="A file that becomes smaller while rings run in it",
    provoke="a running device; the memory file is cut to nothing; a kick",
    passes="the back-end lives: no death by SIGBUS; it may hang up, or demand sealed files",
    tags=TAGS,
)
async def file_shrinks(peer: Peer) -> None:
    """A front-end can do this at any moment unless the file is sealed against it, and a load from such a page is fatal
    to whoever has not thought of it."""
    session = await peer.negotiated()
    memory = peer.memory(Span(GUEST, 4 * MIB))
    await memory.share(session)
    rings = peer.rings(session, memory)
    for ring in rings:
        await ring.start(session)
    await rings[peer.model.queue].do(peer.model.request(memory))
    with memory.fd() as file:
        os.ftruncate(file.fileno(), 0)
    # From here on our own view of this memory is as dead as theirs: nothing in this process may look at it.
    try:
        for ring in rings:
            ring.notify()
        await is_left_alone(session)
    except Closed:
        peer.note("closed the connection")
    await peer.alive()


@case(
    "B-HOS-24",
    level=Level.ROBUSTNESS,
    section=FDS_SECTION,
    title="A descriptor that is only open for reading",
    provoke="SET_MEM_TABLE with a file opened O_RDONLY",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def read_only_fd(peer: Peer) -> Verdict | None:
    """A device has to write to the used ring: the mapping cannot be made, and that has to be noticed."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(MIB)
        return await survives_each(
            peer,
            Raw(
                SetMemTable.spec.request,
                table(ONE),
                fds=lambda: Fds.of(Fd(os.open(file.name, os.O_RDONLY | os.O_CLOEXEC))),
            ),
        )


@case(
    "B-HOS-25",
    level=Level.ROBUSTNESS,
    section=FDS_SECTION,
    title="Descriptors that cannot be mapped",
    provoke="SET_MEM_TABLE with a socket, and with a pipe",
    passes="refused, closed or ignored; the descriptor is closed",
    tags=TAGS,
)
async def unmappable_fd(peer: Peer) -> Verdict | None:
    """mmap fails, and MAP_FAILED is not NULL."""

    def a_socket() -> Fds:
        channel, other = socket_pair()
        channel.close()
        return Fds.of(other)

    with watched(peer) as pipes:
        verdict = await survives_each(
            peer,
            Raw(SetMemTable.spec.request, table(ONE), fds=a_socket),
            Raw(SetMemTable.spec.request, table(ONE), fds=pipes.fds),
        )
        await pipes.check(keep_open="instead of memory")
    return verdict


hostile_table(
    26,
    "A region of size 0",
    "SET_MEM_TABLE with one region of 0 bytes",
    "mmap refuses a length of 0; and a search for the region of an address may divide, or never end.",
    MemoryRegion(GUEST, 0, USER, 0),
)
hostile_table(
    27,
    "A guest address whose end lies beyond 2^64",
    "guest address 2^64-4096, size 8192",
    "The end of the region is a small number then, and every address seems to lie behind it, or within it.",
    MemoryRegion(TOP, 2 * PAGE, USER, 0),
)
hostile_table(
    28,
    "A user address whose end lies beyond 2^64",
    "user address 2^64-4096, size 8192",
    "As with guest addresses; but it is the ring addresses that are looked up in these.",
    MemoryRegion(GUEST, 2 * PAGE, TOP, 0),
)
hostile_table(
    29,
    "An offset whose sum with the size lies beyond 2^64",
    "mmap offset 2^64-4096, size 8192",
    "Many map offset and size together, in one sum: it would be a mapping of 4096 bytes for a region of 8192.",
    MemoryRegion(GUEST, 2 * PAGE, USER, TOP),
)
hostile_table(
    30,
    "A region of 2^60 bytes",
    "SET_MEM_TABLE with size 2^60",
    "No machine has it, and no address space either; tables that grow with the memory must not be made first.",
    MemoryRegion(GUEST, 1 << 60, USER, 0),
)
hostile_table(
    31,
    "Regions that overlap in guest addresses",
    "two regions of 1 MiB, the second half a MiB behind the first in guest addresses",
    "A bug of the front-end.  Which of the two an address means is for nobody to say; but it is no reason to die.",
    ONE,
    MemoryRegion(GUEST + MIB // 2, MIB, USER + 4 * MIB, 0),
)
hostile_table(
    32,
    "Regions that overlap in user addresses",
    "two regions of 1 MiB, the second half a MiB behind the first in user addresses",
    "As with guest addresses: a bug of the front-end that costs at most the connection.",
    ONE,
    MemoryRegion(GUEST + 4 * MIB, MIB, USER + MIB // 2, 0),
)
hostile_table(
    33,
    "An offset that is no multiple of the page size",
    "mmap offset 123",
    "mmap refuses it unless the offset is rounded down first; then the region begins inside the mapping.",
    MemoryRegion(GUEST, 2 * PAGE, USER, 123),
)


@case(
    "B-HOS-53",
    level=Level.ROBUSTNESS,
    section=FDS_SECTION,
    title="A new memory table without the memory that a running ring lies in",
    provoke="a running device; SET_MEM_TABLE with other memory; a request in the old ring",
    passes="refused, closed or ignored; the old memory is not touched any more, and the back-end lives",
    tags=TAGS,
    variants=("split", "packed"),
)
async def ring_loses_its_memory(peer: Peer) -> None:
    """The ring's addresses lead nowhere now.  Pointers into the old mapping, kept from before, are what this finds."""
    async with peer.device() as device:
        await device.works()
        other = peer.memory(Span(0x4000_0000, MIB, user_addr=0x7E00_0000_0000))
        try:
            await device.session.send(SetMemTable(other.regions), other.fds(), need_reply=device.session.acks)
            value = (await device.session.receive()).value if device.session.acks else None
            if value:
                peer.note(f"refused with {value}: the old table stays in force")
                return
            device.ring.add(device.request(1))
            device.ring.publish(kick=True)
            await device.session.in_sync()
            await device.ring.stays_idle(0.05)
        except Closed:
            peer.note("closed the connection")
    await peer.alive()


async def is_left_alone(session: Session) -> None:
    """Give the back-end a chance to touch what it should not: ask it something, and once more a little later."""
    try:
        await session.in_sync()
        await trio.sleep(0.05)
        await session.in_sync()
    except Closed:
        return
    except Wedged as error:
        raise Failure(f"the control channel is dead: {error}") from None
