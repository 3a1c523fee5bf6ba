"""A device behind an IOMMU (B-IOM, B-LOG-24)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.dirty import LOG_PAGE, DirtyLog
from frontend.conformance.expect import equal
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.iommu import (
    ACCESS_PLATFORM,
    INVALIDATE,
    SHIFT,
    TRANSLATING,
    WINDOW,
    Translated,
    through_window,
    translated,
)
from frontend.conformance.logged import LOG_ALL, POISON, Dirtied, hexadecimal, unmarked
from frontend.conformance.memory import PAGE, USER_BASE
from frontend.conformance.placing import largest
from frontend.conformance.session import Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Skip, Verdict, Wedged
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import IotlbMsg
from vhostuser.wire.records import IotlbPermission, IotlbType

if TYPE_CHECKING:
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

NEEDS = (ACCESS_PLATFORM, ProtocolFeature.BACKEND_REQ, Need.CHANNEL)
iommu = partial(case, level=Level.MUST, section="IOMMU", tags=("iommu",), needs=NEEDS)
SHMFD = ProtocolFeature.LOG_SHMFD
READ, WRITE = IotlbPermission.READ, IotlbPermission.WRITE


async def _reply_to(session: Session, message: IotlbMsg, *, need_reply: bool) -> int | None:
    """The u64 that answers IOTLB_MSG; None when none came before the answer to GET_FEATURES."""
    await session.send(message, need_reply=need_reply)
    outcome = await session.outcome(message.spec.request)
    return {Outcome.ACK: 0, Outcome.NACK: 1}.get(outcome)


@iommu(
    "B-IOM-01",
    section="msg IOTLB_MSG",
    title="An update is answered with 0",
    provoke="IOTLB_MSG of type 2 for a range inside a region, with need_reply",
    passes="a u64 of 0",
)
async def update(peer: Peer) -> None:
    """The guest goes on once its IOMMU says that the mapping is there: until the answer, it is not."""
    async with translated(peer) as behind:
        await behind.tell(behind.memory.entry())
        await behind.device.session.in_sync()


@iommu(
    "B-IOM-02",
    section="msg IOTLB_MSG",
    title="It is answered without need_reply too",
    provoke="the same with flags 1",
    passes="a u64 of 0, and nothing else before the answer to GET_FEATURES",
)
async def update_unasked(peer: Peer) -> None:
    """IOTLB_MSG has a reply of its own, as a question has; DPDK is known to answer only with the flag."""
    async with translated(peer) as behind:
        found = await _reply_to(behind.device.session, behind.memory.entry(), need_reply=False)
        equal("reply to IOTLB_MSG without need_reply", found, 0)


@iommu(
    "B-IOM-03",
    section="msg IOTLB_MSG",
    title="An invalidation is answered with 0",
    provoke="an update, IOTLB_MSG of type 3 for the same range; the same once more, where nothing is any more",
    passes="a u64 of 0; what comes the second time is told",
)
async def invalidation(peer: Peer) -> None:
    """After the answer the guest may use the memory for something else."""
    async with translated(peer) as behind:
        for message in (behind.memory.window(0), INVALIDATE):
            await behind.tell(message)
        again = await _reply_to(behind.device.session, INVALIDATE, need_reply=behind.device.session.acks)
        peer.note(f"a range without entry: {'no reply' if again is None else 'refused' if again else 'taken'}")


@iommu(
    "B-IOM-04",
    section="IOMMU; Memory access",
    title="Rings and buffers are found through the IOTLB",
    provoke="I/O virtual, guest and user addresses that differ; requests",
    passes="they are done",
    variants=("split", "packed"),
)
async def translation(peer: Peer) -> None:
    """Where the three kinds of addresses are equal, as in most set-ups, nobody notices which of them is used."""
    async with translated(peer) as behind:
        await behind.start()
        await behind.do(*(behind.device.request(number) for number in range(4)))


def _wanted(behind: Translated, request: Request) -> IotlbPermission:
    return WRITE if largest(request) in request.writable else READ


async def _touch(behind: Translated, page: int = 0) -> Request:
    """Put a request with a buffer at `WINDOW` into the ring, and kick."""
    request = through_window(behind.device.request(), behind.memory.page(page))
    behind.device.ring.add(request)
    behind.device.ring.publish(kick=True)
    return request


@iommu(
    "B-IOM-05",
    title="A miss is sent for an address that is not known",
    provoke="a request with a buffer at an I/O virtual address without entry",
    passes="BACKEND_IOTLB_MSG with type 1, an address inside the buffer, and the access that is wanted",
)
async def miss(peer: Peer) -> None:
    """Entries come on demand: who treats an unknown address as an error never gets any."""
    async with translated(peer) as behind:
        await behind.start()
        await behind.do(behind.device.request())
        request = await _touch(behind)
        message, asked = await behind.miss()
        size = len(largest(request))
        if not WINDOW // PAGE * PAGE <= message.iova < WINDOW + size:
            raise Failure(f"miss: found address {message.iova:#x}, expected {WINDOW:#x} to {WINDOW + size - 1:#x}")
        if not message.permission & _wanted(behind, request):
            raise Failure(f"miss: found permission {int(message.permission)}, expected {int(_wanted(behind, request))}")
        await behind.channel.reply(asked, 0)
        await behind.device.session.in_sync()


@iommu(
    "B-IOM-06",
    title="The request goes on after the update",
    provoke="the same; the entry is sent on the main channel, and then the miss is answered",
    passes="the request is done, in the page that the entry leads to",
)
async def goes_on(peer: Peer) -> None:
    """The update comes first and wants its answer: who waits for that of the miss alone waits for ever."""
    async with translated(peer) as behind:
        await behind.start()
        behind.add(behind.memory.window(1))
        await behind.do(through_window(behind.device.request(), behind.memory.page(1)))
        peer.note(f"{len(behind.misses)} misses")


def _poisoned(page: memoryview) -> bytes:
    page[:] = bytes([POISON]) * len(page)
    return bytes(page)


@iommu(
    "B-IOM-07",
    title="After an invalidation the old entry is not used",
    provoke="a request through an entry; IOTLB_MSG of type 3; the same request, its entry now leading to another page",
    passes="the other page is written to, or read from, and the first is not touched",
)
async def remapped(peer: Peer) -> None:
    """By then the first page may belong to another program in the guest, or to nobody."""
    async with translated(peer) as behind:
        await behind.start()
        await behind.tell(behind.memory.window(1))
        first = through_window(behind.device.request(), behind.memory.page(1))
        await behind.do(first)
        await behind.tell(INVALIDATE)
        before = _poisoned(behind.memory.page(1))
        behind.add(behind.memory.window(2))
        await behind.do(through_window(behind.device.request(1), behind.memory.page(2)))
        if bytes(behind.memory.page(1)) != before:
            raise Failure("the page of the old entry was written to after its invalidation was answered")
        if not behind.misses:
            raise Failure("no miss came for an address whose entry was invalidated")


@iommu(
    "B-IOM-08",
    level=Level.ROBUSTNESS,
    title="An entry for reading is not written through",
    provoke="an entry with permission 1; a request that writes there",
    passes="the page stays as it is; the access is told as failed, asked for again, or the request fails",
)
async def read_only(peer: Peer) -> None:
    """The guest protects itself from its devices with this bit."""
    async with translated(peer) as behind:
        if not behind.device.request().room:
            raise Skip(f"a request to a {peer.model.name} device that writes to guest memory is not known")
        await behind.start()
        await behind.tell(behind.memory.window(0, READ))
        request = through_window(behind.device.request(), behind.memory.page(0))
        before = _poisoned(behind.memory.page(0))
        ring = behind.device.ring
        ring.add(request)
        ring.publish(kick=True)
        done: list[object] = []

        def reacted() -> bool:
            done.extend(ring.reap())
            return bool(done or behind.others or behind.misses)

        try:
            await behind.until(reacted, "a write through an entry for reading")
        except Wedged:
            peer.note("nothing came of the request")
        if bytes(behind.memory.page(0)) != before:
            raise Failure("a page was written to through an entry with permission 1, for reading")
        peer.note(
            f"{len(behind.others)} accesses told as failed, {len(behind.misses)} misses, {len(done)} requests done"
        )
        await behind.device.session.in_sync()


@iommu(
    "B-IOM-09",
    title="An entry that leads to no memory is refused",
    provoke="an update with a user address outside all regions",
    passes="a non-zero reply; or the connection is closed",
)
async def outside(peer: Peer) -> Verdict | None:
    """Taken as it is, it turns the next request into an access to whatever the back-end has there."""
    async with translated(peer) as behind:
        session = behind.device.session
        bad = IotlbMsg(WINDOW, PAGE, USER_BASE + (1 << 40), READ | WRITE, IotlbType.UPDATE)
        await session.send(bad, need_reply=session.acks)
        outcome = await session.outcome(bad.spec.request)
        peer.note(outcome.value)
        if outcome is Outcome.CLOSED:
            return Verdict.REJECT
        if outcome is not Outcome.NACK:
            raise Failure(
                f"an entry for user address {bad.user_addr:#x}, in no region: found {outcome.value}, expected a refusal"
            )
        await session.in_sync()
    return None


@iommu(
    "B-IOM-10",
    level=Level.ROBUSTNESS,
    title="A miss that is never answered",
    provoke="a request at an unknown address; no entry, no answer; questions, and GET_VRING_BASE",
    passes="messages are answered, and the ring stops",
)
async def unanswered(peer: Peer) -> None:
    """A guest that is stopped answers nothing, and is saved: the device has to stop with the request undone."""
    async with translated(peer) as behind:
        await behind.start()
        await behind.do(behind.device.request())
        await _touch(behind)
        await behind.miss()
        await behind.device.session.in_sync()
        peer.note(f"the ring stopped at {await behind.device.ring.stop(behind.device.session):#x}")
        await behind.device.session.in_sync()


async def _hostile(peer: Peer, *messages: IotlbMsg, may_accept: bool) -> Verdict | None:
    async def prepare(session: Session) -> None:
        await session.set_features(session.features | ACCESS_PLATFORM)
        await peer.channel(session)

    raw = [Raw.of(each) for each in messages]
    return await survives_each(peer, *raw, may_accept=may_accept, prepare=prepare, protocol=TRANSLATING)


@iommu(
    "B-IOM-11",
    level=Level.ROBUSTNESS,
    section="Payload (IOTLB)",
    title="Types that a front-end does not send",
    provoke="IOTLB_MSG with types 0, 1, 4 and 9",
    passes="a non-zero reply, or the connection is closed",
    tags=("iommu", "hostile"),
)
async def wrong_type(peer: Peer) -> Verdict | None:
    """A miss and a failed access are what the back-end says; the others nobody knows."""
    messages = (IotlbMsg(WINDOW, PAGE, 0, READ, number) for number in (0, 1, 4, 9))
    return await _hostile(peer, *messages, may_accept=False)


@iommu(
    "B-IOM-12",
    level=Level.ROBUSTNESS,
    section="Payload (IOTLB)",
    title="Ranges that are none",
    provoke="updates and invalidations of size 0, and with iova + size behind 2^64",
    passes="refused, ignored, accepted or closed; the back-end lives",
    tags=("iommu", "hostile"),
)
async def odd_ranges(peer: Peer) -> Verdict | None:
    """size - 1 is the largest number there is, and the end of a range is before its beginning."""
    ranges = ((WINDOW, 0), ((1 << 64) - PAGE, 2 * PAGE), (PAGE, (1 << 64) - 1))
    types = (IotlbType.UPDATE, IotlbType.INVALIDATE)
    messages = (IotlbMsg(iova, size, USER_BASE, READ | WRITE, each) for iova, size in ranges for each in types)
    return await _hostile(peer, *messages, may_accept=True)


@iommu(
    "B-IOM-13",
    section="Payload (IOTLB)",
    title="With GPA_ADDRESSES an entry leads to guest addresses",
    provoke="regions and entries without user addresses; requests",
    passes="they are done",
    needs=(*NEEDS, ProtocolFeature.GPA_ADDRESSES),
)
async def guest_addresses(peer: Peer) -> None:
    """The feature takes the front-end's own addresses out of the protocol, here as in SET_VRING_ADDR."""
    async with translated(peer, protocol=TRANSLATING | ProtocolFeature.GPA_ADDRESSES, gpa=True) as behind:
        await behind.start()
        await behind.do(*(behind.device.request(number) for number in range(3)))


@iommu(
    "B-IOM-14",
    level=Level.ROBUSTNESS,
    section="Payload (IOTLB)",
    title="An IOTLB message of 32 bytes",
    provoke="the fields, 26 bytes, and the 6 with which C makes a multiple of 8 of them",
    passes="a u64 of 0",
)
async def padded(peer: Peer) -> None:
    """The document tells of the fields; all who are known send the structure as their compiler lays it out."""
    async with translated(peer) as behind:
        message = behind.memory.entry()
        equal("bytes of IOTLB_MSG", len(message.build()), 32)
        await behind.tell(message)


@case(
    "B-LOG-24",
    level=Level.SHOULD,
    section="Migration",
    title="Behind an IOMMU the log is by guest addresses still",
    provoke="LOG_ALL and I/O virtual addresses that differ from guest addresses; requests",
    passes="pages of the guest addresses are marked; marks at the I/O virtual ones are told with a warning",
    tags=("iommu", "log", "ring"),
    needs=(*NEEDS, LOG_ALL, SHMFD),
)
async def logged_by_guest_address(peer: Peer) -> Verdict | None:
    """The log says which pages of memory to send again, and memory is where the regions are."""
    async with translated(peer, virtio=LOG_ALL, protocol=TRANSLATING | SHMFD) as behind:
        memory = behind.memory
        with DirtyLog(memory, size=2 * SHIFT // (8 * LOG_PAGE)) as log:
            await log.share(behind.device.session)
            await behind.start()
            request = behind.device.request()
            dirtied = Dirtied(memory, [request])
            await behind.do(request)
            pages = dirtied.pages()
            if not pages:
                raise Skip(f"a request to a {peer.model.name} device that writes to guest memory is not known")
            moved = {page + SHIFT // LOG_PAGE for page in pages}
            unmarked(log, moved)
            if wrong := pages & log.pages():
                peer.note(f"pages {hexadecimal(wrong)} are marked too, which are I/O virtual")
                return Verdict.WARN
    return None
