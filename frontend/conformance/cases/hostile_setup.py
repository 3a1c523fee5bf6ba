"""Hostile ring set-up: indices, sizes, addresses, and an order that makes no sense (B-HOS-34 to 52)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from frontend.conformance.hostile import Raw, survives_each, watched
from frontend.conformance.memory import Span
from frontend.conformance.session import Closed, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.frontend_messages import (
    GetVringBase,
    SetVringAddr,
    SetVringBase,
    SetVringCall,
    SetVringEnable,
    SetVringErr,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.records import U64, VringState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.ring import TestRing
    from frontend.conformance.session import Session
    from vhostuser.wire.catalog import Message

TAGS = ("hostile", "ring")
RINGS = "V 2.7"
MIB = 1 << 20
GUEST = 0x10_0000


# --- indices ---


@case(
    "B-HOS-34",
    level=Level.ROBUSTNESS,
    section="Vring state description",
    title="Ring numbers that there are not, where the number has 32 bits",
    provoke="NUM, BASE, ADDR, ENABLE and GET_VRING_BASE for the ring behind the last, for 256 and for 0xffffffff",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
    seconds=60,
)
async def index_out_of_range(peer: Peer) -> Verdict | None:
    """The number is used as an index at once, in C without a check: it is the most common of all bugs here."""
    messages = []
    for index in (peer.profile.queues, 256, 0xFFFFFFFF):
        state = VringState(index, 1).build()
        addresses = index.to_bytes(4, "little") + bytes(36)
        messages += [Raw(each.spec.request, state) for each in (SetVringNum, SetVringBase, SetVringEnable)]
        messages += [Raw(SetVringAddr.spec.request, addresses), Raw(GetVringBase.spec.request, state)]
    return await survives_each(peer, *messages)


@case(
    "B-HOS-35",
    level=Level.ROBUSTNESS,
    section="A vring descriptor index",
    title="Ring number 255 with a descriptor",
    provoke="KICK, CALL and ERR for ring 255, each with a descriptor",
    passes="refused, closed or ignored; the descriptors are closed",
    tags=TAGS,
)
async def fd_index_out_of_range(peer: Peer) -> Verdict | None:
    """The descriptor has been taken off the socket before the index is looked at, and somebody has to close it."""
    with watched(peer) as pipes:
        kinds = (SetVringKick, SetVringCall, SetVringErr)
        verdict = await survives_each(peer, *(Raw(k.spec.request, U64(255).build(), fds=pipes.fds) for k in kinds))
        await pipes.check(keep_open="for ring 255")
    return verdict


@case(
    "B-HOS-36",
    level=Level.ROBUSTNESS,
    section="A vring descriptor index",
    title="A ring number with high bits set",
    provoke="KICK and CALL with 0xffffffffffff0000, and a descriptor",
    passes="refused, closed, ignored or accepted, and the back-end lives",
    tags=TAGS,
)
async def index_with_high_bits(peer: Peer) -> Verdict | None:
    """Bits 0 to 7 are the ring, bit 8 says that there is no descriptor; of the others nobody says anything."""
    value = U64(0xFFFF_FFFF_FFFF_0000).build()
    with watched(peer) as pipes:
        kinds = (SetVringKick, SetVringCall)
        return await survives_each(peer, *(Raw(each.spec.request, value, fds=pipes.fds) for each in kinds))


# --- sizes ---


async def sizes_are_survived(peer: Peer, *sizes: int) -> Verdict | None:
    """Rings of these sizes: SET_VRING_NUM, and, if that is not refused, everything up to the start."""
    verdicts = set()
    for size in sizes:
        memory = peer.memory(Span(GUEST, 4 * MIB))

        async def start(session: Session, size: int = size, memory: SharedMemory = memory) -> None:
            await memory.share(session)
            for ring in peer.rings(session, memory):
                await try_to_start(session, ring, size)

        verdicts.add(await peer.survives(start, SetVringKick.spec.request, need_reply=(True,)))
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


async def try_to_start(session: Session, ring: TestRing, size: int, addresses: SetVringAddr | None = None) -> None:
    """Everything that starts a ring, refused or not: a refusal with an acknowledgement is answer enough."""
    try:
        await session.tell(SetVringNum(ring.index, size))
        await session.tell(SetVringBase(ring.index, ring.base))
        await session.tell(addresses or ring.addresses())
        await ring.send_call(session)
        await ring.send_kick(session)
        await ring.enable(session)
    except Failure:
        return  # refused, as it may be
    ring.notify()
    await session.in_sync()


@case(
    "B-HOS-37",
    level=Level.ROBUSTNESS,
    section=RINGS,
    title="A ring of size 0",
    provoke="SET_VRING_NUM 0, then a start",
    passes="refused, closed or ignored, and the back-end lives: no division by zero",
    tags=TAGS,
)
async def size_0(peer: Peer) -> Verdict | None:
    """Positions in a ring are taken modulo its size."""
    return await sizes_are_survived(peer, 0)


@case(
    "B-HOS-38",
    level=Level.ROBUSTNESS,
    section=RINGS,
    title="Split rings whose size is no power of two",
    provoke="SET_VRING_NUM 3 and 100, then a start",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def size_no_power_of_two(peer: Peer) -> Verdict | None:
    """A mask instead of a division goes wrong then, and 65536 is no multiple of the size: indices jump at the wrap."""
    return await sizes_are_survived(peer, 3, 100)


@case(
    "B-HOS-39",
    level=Level.ROBUSTNESS,
    section=RINGS,
    title="Rings larger than any may be",
    provoke="SET_VRING_NUM 32769, 65536 and 0xffffffff, then a start",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def size_too_large(peer: Peer) -> Verdict | None:
    """Kept in 16 bits, 65536 is 0 and 0xffffffff is 65535; and the ring's parts are longer than the memory."""
    return await sizes_are_survived(peer, 32769, 65536, 0xFFFFFFFF)


@case(
    "B-HOS-40",
    level=Level.ROBUSTNESS,
    section=RINGS,
    title="A ring's size changes while it runs",
    provoke="a running ring; SET_VRING_NUM with twice its size",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
    variants=("split", "packed"),
)
async def size_changes(peer: Peer) -> Verdict | None:
    """The new size may only count at the next start: the parts in use have room for the old one."""
    async with peer.device() as device:
        await device.works()
        try:
            message = SetVringNum(device.ring.index, 2 * device.ring.size)
            await device.session.send(message, need_reply=device.session.acks)
            outcome = await device.session.outcome(message.spec.request)
        except Closed:
            outcome = Outcome.CLOSED
        peer.note(f"SET_VRING_NUM on a running ring: {outcome.value}")
        if outcome in (Outcome.NACK, Outcome.IGNORED):
            device.ring.add(device.request(1))
            device.ring.publish(kick=True)
            await device.session.in_sync()
    await peer.alive()
    return Verdict.REJECT if outcome is Outcome.CLOSED else None


# --- addresses ---


async def addresses_are_survived(
    peer: Peer, *places: str, spans: Sequence[Span] = (Span(GUEST, 4 * MIB),)
) -> Verdict | None:
    """A ring with a request in it is started at each of ``places`` (see `displaced`), and told of a kick."""
    verdicts = set()
    for place in places:
        memory = peer.memory(*spans)

        async def start(session: Session, place: str = place, memory: SharedMemory = memory) -> None:
            await memory.share(session)
            for ring in peer.rings(session, memory):
                ring.add(peer.model.request(memory))
                ring.publish(kick=False)
                await try_to_start(session, ring, ring.size, displaced(ring, memory, place))

        verdicts.add(await peer.survives(start, SetVringKick.spec.request, need_reply=(True,)))
        memory.check()
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


def displaced(ring: TestRing, memory: SharedMemory, place: str) -> SetVringAddr:
    """SET_VRING_ADDR with the ring somewhere else than it is."""
    true, region = ring.addresses(), memory.regions[0]
    end = region.user_addr + region.size
    match place:
        case "descriptor+1":
            return replace(true, descriptor=true.descriptor + 1)
        case "available+1":
            return replace(true, available=true.available + 1)
        case "used+1":
            return replace(true, used=true.used + 1)
        case "nowhere":
            return replace(true, descriptor=0x1234, available=0x1234, used=0x1234)
        case "descriptor at the end" | "across":
            return replace(true, descriptor=end - 16)
        case "available at the end":
            return replace(true, available=end - 8)
        case "used at the end":
            return replace(true, used=end - 8)
        case "guest address":
            return replace(true, descriptor=ring.descriptor.addr, available=ring.driver.addr, used=ring.device.addr)
    raise ValueError(place)


def hostile_address(number: int, title: str, provoke: str, rationale: str, *places: str, works: str = "") -> None:
    """Declare a case about addresses of a ring's parts."""

    async def check(peer: Peer) -> Verdict | None:
        return await addresses_are_survived(peer, *places)

    check.__doc__ = rationale
    case(
        f"B-HOS-{number}",
        level=Level.ROBUSTNESS,
        section="Memory access",
        title=title,
        provoke=provoke,
        passes=f"refused, closed, ignored{works}, and the back-end lives",
        tags=TAGS,
    )(check)


hostile_address(
    41,
    "A descriptor table at an odd address",
    "SET_VRING_ADDR with the descriptor table one byte further",
    "A table is aligned to 16 (VIRTIO 2.7). Some processors trap on what is not, and atomics tear on all.",
    "descriptor+1",
)
hostile_address(
    42,
    "An available ring at an odd address",
    "SET_VRING_ADDR with the available ring one byte further",
    "Its index is a word of 16 bits that has to be read whole (alignment 2, VIRTIO 2.7).",
    "available+1",
)
hostile_address(
    43,
    "A used ring at an odd address",
    "SET_VRING_ADDR with the used ring one byte further",
    "Its index is written whole and its elements have 32 bits each (alignment 4, VIRTIO 2.7).",
    "used+1",
)
hostile_address(
    44,
    "Ring addresses that lie in no region",
    "SET_VRING_ADDR with 0x1234 three times",
    "A translation that fails gives NULL or a sum of garbage, and the ring's first access uses it.",
    "nowhere",
)
hostile_address(
    45,
    "Parts of a ring that begin inside a region and end outside",
    "descriptor table, available ring and used ring, in turn, 16 or 8 bytes before the region's end",
    "The first byte can be translated; that says nothing of the last.",
    "descriptor at the end",
    "available at the end",
    "used at the end",
)
hostile_address(
    47,
    "Guest addresses where user addresses belong",
    "SET_VRING_ADDR with the ring's guest addresses",
    "The mistake a front-end makes first.  It must be told by a refusal or a silent ring, not by a crash.",
    "guest address",
)


@case(
    "B-HOS-46",
    level=Level.ROBUSTNESS,
    section="Memory access",
    title="A part of a ring that lies in two regions",
    provoke="two regions whose user addresses touch; the descriptor table across the boundary",
    passes="refused, closed, ignored or served in full; memory beside it is not touched, and the back-end lives",
    tags=TAGS,
)
async def ring_across_regions(peer: Peer) -> Verdict | None:
    """The regions touch in user addresses, but not in the back-end's own mapping: one pointer does not do for both."""
    first = Span(GUEST, 4 * MIB, user_addr=0x7F00_0010_0000)
    second = Span(GUEST + 64 * MIB, MIB, user_addr=0x7F00_0010_0000 + 4 * MIB)
    return await addresses_are_survived(peer, "across", spans=(first, second))


@case(
    "B-HOS-48",
    level=Level.ROBUSTNESS,
    section="Vring address description",
    title="Flags of a ring's addresses that nobody has assigned",
    provoke="SET_VRING_ADDR with flags 0x80",
    passes="refused, closed, ignored or accepted, and the back-end lives",
    tags=TAGS,
)
async def unknown_address_flags(peer: Peer) -> Verdict | None:
    """Only bit 0 means something (log writes to the used ring)."""
    memory = peer.memory(Span(GUEST, 4 * MIB))

    async def send(session: Session) -> None:
        await memory.share(session)
        ring = peer.rings(session, memory)[0]
        await session.tell(SetVringNum(0, ring.size))
        await session.send(ring.addresses(flags=0x80), need_reply=peer.asking)

    return await peer.survives(send, SetVringAddr.spec.request)


# --- order ---


async def start_is_survived(peer: Peer, *left_out: type[Message], memory: bool = True) -> Verdict | None:
    """Rings are started without some of the messages that belong before it."""
    guest = peer.memory(Span(GUEST, 4 * MIB))

    async def start(session: Session) -> None:
        if memory:
            await guest.share(session)
        for ring in peer.rings(session, guest):
            for message in (SetVringNum(ring.index, ring.size), SetVringBase(ring.index, ring.base), ring.addresses()):
                if not isinstance(message, left_out):
                    await _whatever_comes_of_it(session, message)
            await ring.send_call(session)
            try:
                await ring.send_kick(session)
                await ring.enable(session)
            except Failure:
                continue  # refused, as it may be
            ring.notify()
        await session.in_sync()

    return await peer.survives(start, SetVringKick.spec.request, need_reply=(True,))


async def _whatever_comes_of_it(session: Session, message: Message) -> None:
    await session.send(message, need_reply=session.acks)
    if session.acks:
        (await session.answer(message.spec.request)).fds.close()


@case(
    "B-HOS-49",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="A ring is started before its addresses are known",
    provoke="NUM and BASE, then KICK and ENABLE, without ADDR",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def start_without_addresses(peer: Peer) -> Verdict | None:
    """The pointers to the ring are still NULL, or those of the last guest."""
    return await start_is_survived(peer, SetVringAddr)


@case(
    "B-HOS-50",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="A ring is started before its size is known",
    provoke="BASE and ADDR, then KICK and ENABLE, without NUM",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def start_without_size(peer: Peer) -> Verdict | None:
    """Its size is 0, or what the last guest had: addresses were checked with a size that is not this ring's."""
    return await start_is_survived(peer, SetVringNum)


@case(
    "B-HOS-51",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="A ring is started before there is any memory",
    provoke="NUM, BASE, KICK and ENABLE, without SET_MEM_TABLE and ADDR",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def start_without_memory(peer: Peer) -> Verdict | None:
    """Nothing can be translated, and the ring lies nowhere."""
    return await start_is_survived(peer, SetVringAddr, memory=False)


@case(
    "B-HOS-52",
    level=Level.ROBUSTNESS,
    section="msg SET_VRING_ADDR",
    title="Ring addresses come before the memory they lie in",
    provoke="NUM and ADDR without SET_MEM_TABLE, then a start",
    passes="refused, closed or ignored, and the back-end lives; it may look the addresses up later",
    tags=TAGS,
)
async def addresses_without_memory(peer: Peer) -> Verdict | None:
    """Some translate at once and have to refuse, some at the start of the ring; both are alive afterwards."""
    return await start_is_survived(peer, memory=False)
