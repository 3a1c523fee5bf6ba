"""A device behind an IOMMU (B-IOM-01 to 07, 13, 14; B-LOG-24)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.dirty import LOG_PAGE, DirtyLog
from frontend.conformance.expect import equal
from frontend.conformance.iommu import (
    INVALIDATE,
    NEEDS,
    SHIFT,
    TRANSLATING,
    WINDOW,
    Translated,
    poisoned,
    through_window,
    translated,
)
from frontend.conformance.logged import LOG_ALL, Dirtied, hexadecimal, unmarked
from frontend.conformance.memory import PAGE
from frontend.conformance.placing import largest
from frontend.conformance.session import Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.records import IotlbPermission

if TYPE_CHECKING:
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session
    from vhostuser.wire.frontend_messages import IotlbMsg

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
        request = behind.touch()
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
        before = poisoned(behind.memory.page(1))
        behind.add(behind.memory.window(2))
        await behind.do(through_window(behind.device.request(1), behind.memory.page(2)))
        if bytes(behind.memory.page(1)) != before:
            raise Failure("the page of the old entry was written to after its invalidation was answered")
        if not behind.misses:
            raise Failure("no miss came for an address whose entry was invalidated")


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
