"""Postcopy migration (B-PC)."""

from __future__ import annotations

import os
import resource
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from frontend.conformance.bring_up import bring_up
from frontend.conformance.expect import equal, recorded
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.memory import PAGE
from frontend.conformance.postcopy import (
    NAME,
    PAGEFAULT,
    PROTOCOL,
    acknowledge,
    advise,
    check_same,
    end,
    listening,
    punch,
    serve,
    table_reply,
    with_postcopy,
)
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Unsupported, Verdict, vitals
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import AddMemReg, PostcopyAdvise, PostcopyEnd, PostcopyListen
from vhostuser.wire.records import U64, SingleRegion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

SLOTS = ProtocolFeature.CONFIGURE_MEM_SLOTS
REPLY_ACK = ProtocolFeature.REPLY_ACK
LOOK_AGAIN = 0.005

postcopy_case = partial(case, level=Level.MUST, needs=(PAGEFAULT,), tags=("migration", "postcopy"))


@postcopy_case(
    "B-PC-01",
    section="msg POSTCOPY_ADVISE",
    title="POSTCOPY_ADVISE is answered with a userfaultfd",
    provoke="POSTCOPY_ADVISE",
    passes="a reply without payload and with one descriptor, which is a userfaultfd",
)
async def advised(peer: Peer) -> None:
    """By it the front-end learns which pages the back-end misses, and brings them."""
    session = await with_postcopy(peer)
    with await advise(session) as fd:
        if sys.platform == "linux":
            equal("descriptor with the reply to POSTCOPY_ADVISE", os.readlink(f"/proc/self/fd/{fd.fileno()}"), NAME)
    await end(session)
    await session.in_sync()


@contextmanager
def no_more_fds(pid: int) -> Iterator[None]:
    """The process can open nothing more, until the end of the block."""
    taken = {int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    free = next(number for number in range(len(taken) + 1) if number not in taken)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@postcopy_case(
    "B-PC-02",
    level=Level.ROBUSTNESS,
    section="msg POSTCOPY_ADVISE",
    title="A back-end that gets no userfaultfd says so",
    provoke="POSTCOPY_ADVISE while the back-end's process may open no more descriptors",
    passes="a reply without a descriptor, or closed; the program lives",
    needs=(PAGEFAULT, Need.OUR_PROCESS),
)
async def no_userfaultfd(peer: Peer) -> Verdict | None:
    """Most systems do not let everybody have one."""
    session = await with_postcopy(peer)
    pid = peer.target.pid
    if pid is None or sys.platform != "linux":
        raise Unsupported("the back-end's process cannot be limited")
    try:
        with no_more_fds(pid):
            await session.send(PostcopyAdvise())
            answer = await session.receive(what="the reply to POSTCOPY_ADVISE")
            with answer.fds:
                peer.note(f"a reply of {len(answer.payload)} bytes with {len(answer.fds)} descriptors")
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    await peer.alive()
    return None


@postcopy_case(
    "B-PC-03",
    section="msg POSTCOPY_LISTEN",
    title="POSTCOPY_LISTEN is acknowledged",
    provoke="POSTCOPY_ADVISE, then POSTCOPY_LISTEN with need_reply",
    passes="acknowledged with 0",
    needs=(PAGEFAULT, REPLY_ACK),
)
async def listens(peer: Peer) -> None:
    """From then on a memory table is to be treated with care, and the front-end has to know that it is."""
    async with listening(peer) as (session, _):
        await session.in_sync()


@postcopy_case(
    "B-PC-04",
    section="msg SET_MEM_TABLE",
    title="SET_MEM_TABLE is answered with a table after POSTCOPY_LISTEN",
    provoke="POSTCOPY_ADVISE, POSTCOPY_LISTEN, SET_MEM_TABLE without need_reply",
    passes="a reply of the same size with the same guest addresses",
)
async def table_answered(peer: Peer) -> None:
    """The front-end goes through both tables side by side."""
    async with listening(peer) as (session, _):
        await table_reply(session, peer.memory())
        await acknowledge(session)
        await session.in_sync()


@postcopy_case(
    "B-PC-05",
    section="msg SET_MEM_TABLE",
    title="The user addresses in that reply are the back-end's own",
    provoke="POSTCOPY_ADVISE, POSTCOPY_LISTEN, SET_MEM_TABLE",
    passes="they are other ones than the front-end told, and of the same offset in a page as the region in its file",
)
async def own_addresses(peer: Peer) -> None:
    """Faults are told by these addresses: without them nobody knows which page of the guest is missing."""
    async with listening(peer) as (session, _):
        memory = peer.memory()
        for told, found in zip(memory.regions, await table_reply(session, memory), strict=True):
            if found.user_addr == told.user_addr:
                raise Failure(
                    f"user address in the reply: found {found.user_addr:#x} as in the request, expected where the "
                    "back-end has mapped the region"
                )
            equal("offset in a page of the user address in the reply", found.user_addr % PAGE, told.mmap_offset % PAGE)
        await acknowledge(session)


@postcopy_case(
    "B-PC-06",
    section="msg SET_MEM_TABLE",
    title="No page is missed before the front-end has acknowledged the table",
    provoke="POSTCOPY_ADVISE, POSTCOPY_LISTEN, SET_MEM_TABLE with memory that nobody has touched",
    passes="the userfaultfd stays silent",
)
async def silent(peer: Peer) -> None:
    """Until then the front-end does not know whose address that would be."""
    async with listening(peer) as (session, faults):
        await table_reply(session, peer.memory())
        if not await faults.none():
            raise Failure("the back-end has touched memory before its table was acknowledged")
        await acknowledge(session)
        await session.in_sync()


@postcopy_case(
    "B-PC-07",
    level=Level.ROBUSTNESS,
    section="msg SET_MEM_TABLE",
    title="The table is acknowledged with eight bytes or with none",
    provoke="SET_MEM_TABLE from the front-end in answer to the table: as QEMU has it, a u64 of 0; as the text has it, "
    "nothing",
    passes="both are taken; what is not is told, since the text and QEMU disagree",
)
async def acknowledgements(peer: Peer) -> Verdict | None:
    """A back-end for QEMU waits for eight bytes, one by the book for none."""
    verdicts = set()
    for what, payload in (("eight bytes", U64(0).build()), ("no bytes", b"")):
        async with listening(peer) as (session, _):
            await table_reply(session, peer.memory())
            await acknowledge(session, payload)
            verdicts.add(await recorded(peer, f"acknowledged with {what}", session.in_sync()))
        await peer.alive()
    return Verdict.WARN if verdicts != {None} else None


@postcopy_case(
    "B-PC-08",
    section="Migration",
    title="A missing page is asked for by its address, and the device goes on when it is there",
    provoke="a request whose buffers are in pages that are missing; each page is brought when a fault tells of it",
    passes="faults are in the regions that the back-end reported, and the request is done",
)
async def faults_are_served(peer: Peer) -> None:
    """That is postcopy: the guest runs, and its memory comes when it is needed."""
    async with listening(peer) as (session, faults):
        memory = peer.memory()
        regions = await table_reply(session, memory)
        await acknowledge(session)
        device = await bring_up(peer, session, memory, share=False)
        start = memory.buffer(1, align=PAGE).addr
        memory.skip_to(start + PAGE)
        request = device.request()
        end = memory.buffer(1, align=PAGE).addr
        hole = punch(memory, start + PAGE, end)
        served: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, faults, regions, hole, served)
            device.ring.add(request)
            device.ring.publish(kick=True)
            ((_, used),) = await device.ring.finish(1)
            nursery.cancel_scope.cancel()
        request.check(used)
        peer.note(f"{len(served)} pages were asked for")
        if not served and device.model.knows:
            raise Failure("no page was asked for: found a request done in pages that are missing, expected a fault")


@postcopy_case(
    "B-PC-09",
    section="msg ADD_MEM_REG",
    title="ADD_MEM_REG is answered with the region after POSTCOPY_LISTEN",
    provoke="POSTCOPY_ADVISE, POSTCOPY_LISTEN, ADD_MEM_REG without need_reply",
    passes="a reply of 40 bytes with the same guest address and size",
    needs=(PAGEFAULT, SLOTS),
)
async def region_answered(peer: Peer) -> None:
    """With memory slots there is no table to answer."""
    async with listening(peer, SLOTS) as (session, _):
        memory = peer.memory()
        found = await _added(session, memory)
        check_same([found.region], memory.regions[:1])


async def _added(session: Session, memory: SharedMemory) -> SingleRegion:
    message = AddMemReg(memory.regions[0])
    await session.send(message, Fds.of(memory.fd()))
    answer = await session.receive(what="the reply to ADD_MEM_REG after POSTCOPY_LISTEN")
    answer.fds.close()
    equal("request code of the reply to ADD_MEM_REG", answer.request, int(AddMemReg.spec.request))
    equal("size of the reply to ADD_MEM_REG", len(answer.payload), len(message.build()))
    return answer.parse(SingleRegion)


@postcopy_case(
    "B-PC-10",
    section="msg POSTCOPY_END",
    title="POSTCOPY_END is answered, and the userfaultfd is closed",
    provoke="POSTCOPY_ADVISE, POSTCOPY_LISTEN, SET_MEM_TABLE and its acknowledgement, POSTCOPY_END",
    passes="a reply with 0; the back-end's process, where it can be looked at, has no userfaultfd any more",
)
async def ended(peer: Peer) -> None:
    """All pages are there now; a fault that would still come nobody would see."""
    async with listening(peer) as (session, _):
        await table_reply(session, peer.memory())
        await acknowledge(session)
        equal("reply to POSTCOPY_END", (await session.ask(PostcopyEnd(), U64)).value, 0)
        await session.in_sync()
        if (pid := peer.target.pid) is None:
            return
        with trio.move_on_after(session.patience):
            while f"fd of {NAME}" in vitals.held(pid):  # noqa: ASYNC110 - no event tells of it
                await trio.sleep(LOOK_AGAIN)
            return
        raise Failure(f"the back-end still has a userfaultfd {session.patience:g} s after POSTCOPY_END")


@postcopy_case(
    "B-PC-11",
    level=Level.ROBUSTNESS,
    section="msg POSTCOPY_LISTEN",
    title="Postcopy in the wrong order is survived",
    provoke="POSTCOPY_LISTEN without POSTCOPY_ADVISE; POSTCOPY_END without both",
    passes="refused, ignored, answered or closed; the program lives",
    tags=("migration", "postcopy", "hostile"),
)
async def wrong_order(peer: Peer) -> Verdict | None:
    """There is no userfaultfd then to register memory with, or to close."""
    return await survives_each(peer, Raw.of(PostcopyListen()), Raw.of(PostcopyEnd()), protocol=PROTOCOL)


@postcopy_case(
    "B-PC-12",
    level=Level.ROBUSTNESS,
    section="msg POSTCOPY_ADVISE",
    title="Messages about postcopy without their feature are survived",
    provoke="POSTCOPY_ADVISE, POSTCOPY_LISTEN and POSTCOPY_END where PAGEFAULT was not negotiated",
    passes="refused, ignored, answered or closed; the program lives",
    needs=(),
    absent=(PAGEFAULT,),
    tags=("migration", "postcopy", "hostile"),
)
async def not_negotiated(peer: Peer) -> Verdict | None:
    """A back-end that has no code for it must not wait for pages that nobody brings."""
    return await survives_each(peer, *(Raw.of(each()) for each in (PostcopyAdvise, PostcopyListen, PostcopyEnd)))


@postcopy_case(
    "B-PC-13",
    level=Level.ROBUSTNESS,
    section="msg SET_MEM_TABLE",
    title="A front-end that leaves in the middle of postcopy is survived",
    provoke="POSTCOPY_ADVISE, POSTCOPY_LISTEN, SET_MEM_TABLE; the connection is closed instead of an acknowledgement",
    passes="the next connection is served, and the device works there",
    tags=("migration", "postcopy", "hostile"),
)
async def never_acknowledged(peer: Peer) -> None:
    """Who waits there for an acknowledgement has to notice that nobody is left to send it."""
    async with listening(peer) as (session, _):
        await table_reply(session, peer.memory())
        await peer.alive()
        async with peer.device() as device:
            await device.works()
