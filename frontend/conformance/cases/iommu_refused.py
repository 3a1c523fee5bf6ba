"""A device behind an IOMMU: what must not be, and what is hostile (B-IOM-08 to 12)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.iommu import (
    ACCESS_PLATFORM,
    NEEDS,
    TRANSLATING,
    WINDOW,
    poisoned,
    through_window,
    translated,
)
from frontend.conformance.memory import PAGE, USER_BASE
from frontend.conformance.session import Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Skip, Verdict, Wedged
from vhostuser.wire.frontend_messages import IotlbMsg
from vhostuser.wire.records import IotlbPermission, IotlbType

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

iommu = partial(case, level=Level.MUST, section="IOMMU", tags=("iommu",), needs=NEEDS)
READ, WRITE = IotlbPermission.READ, IotlbPermission.WRITE


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
        before = poisoned(behind.memory.page(0))
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
        behind.touch()
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
