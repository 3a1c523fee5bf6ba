"""Hostile headers, and descriptors where none belong (B-HOS-01 to 16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from frontend.conformance.hostile import HEADER, Raw, flags_of, survives_each, watched
from frontend.conformance.session import Closed, Session
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.frontend_messages import GetProtocolFeatures, SetMemTable, SetVringAddr
from vhostuser.wire.records import U64, MemoryRegion, VringAddrFlags
from vhostuser.wire.requests import FrontendRequest, HeaderFlags

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

TAGS = ("hostile",)
HALF_HEADER = HEADER.pack(FrontendRequest.GET_FEATURES, 1, 0)[:5]


@case(
    "B-HOS-01",
    level=Level.ROBUSTNESS,
    section="Header",
    title="A header that is cut off by the end of the connection",
    provoke="5 bytes of a header, then close",
    passes="the back-end lives and serves the next front-end",
    tags=TAGS,
)
async def half_header(peer: Peer) -> None:
    """A front-end that is killed while it writes leaves this behind; it must not take the back-end with it."""
    session = await peer.connect()
    await session.send_bytes(HALF_HEADER)
    await peer.alive()


@case(
    "B-HOS-02",
    level=Level.ROBUSTNESS,
    section="Header",
    title="Half a header costs no processor time while nothing more comes",
    provoke="5 bytes of a header, and silence on an open connection",
    passes="the back-end sleeps; it may also hang up",
    tags=TAGS,
)
async def half_header_and_silence(peer: Peer) -> None:
    """A reader that goes round and round on a short read eats a processor for as long as somebody leaves it so."""
    session = await peer.connect()
    await session.send_bytes(HALF_HEADER)
    vitals = peer.target.vitals()
    window = 0.3
    await session.silent(window)
    later = peer.target.vitals()
    before = vitals.cpu_seconds if vitals else None
    after = later.cpu_seconds if later else None
    if before is not None and after is not None and after - before > window / 2:
        raise Failure(f"{after - before:.2f} s of processor time in {window:g} s of waiting for the rest of a header")
    await peer.alive()


@case(
    "B-HOS-03",
    level=Level.ROBUSTNESS,
    section="Header",
    title="A payload that is cut off by the end of the connection",
    provoke="a header that announces 40 bytes, 10 of them, then close",
    passes="the back-end lives and serves the next front-end",
    tags=TAGS,
)
async def half_payload(peer: Peer) -> None:
    """As with half a header; but now a buffer has been allocated, and perhaps a message half handled."""
    session = await peer.connect()
    await session.send_bytes(HEADER.pack(FrontendRequest.SET_VRING_ADDR, 1, 40) + bytes(10))
    await peer.alive()


@case(
    "B-HOS-04",
    level=Level.ROBUSTNESS,
    section="Header",
    title="A payload of 4 GiB is not waited for, and not allocated",
    provoke="a header with size 0xffffffff and nothing behind it",
    passes="the connection is closed soon; no such amount of memory is taken",
    tags=TAGS,
)
async def huge_size(peer: Peer) -> Verdict | None:
    """The size is the first number a back-end believes.  No message is as long as that, so nothing has to be read."""
    session = await peer.negotiated()
    before = peer.target.vitals()
    await session.send_raw(FrontendRequest.SET_FEATURES, size=0xFFFFFFFF)
    closed = await session.closes(within=1.0)
    after = peer.target.vitals()
    if before and after and before.resident is not None and after.resident is not None:
        grown = after.resident - before.resident
        if grown > 1 << 30:
            raise Failure(f"the back-end grew by {grown >> 20} MiB for a payload that never came")
    if not closed:
        peer.note("the connection stays open, waiting for 4 GiB of payload")
    await peer.alive()
    return Verdict.REJECT if closed else Verdict.WARN


@case(
    "B-HOS-05",
    level=Level.ROBUSTNESS,
    section="Header",
    title="Payloads somewhat longer than any message",
    provoke="SET_FEATURES with 4097, 8192 and 65536 bytes",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def longer_than_any(peer: Peer) -> Verdict | None:
    """What overflows is the fixed buffer on the stack of whoever did not compare."""
    messages = (Raw(FrontendRequest.SET_FEATURES, bytes(size)) for size in (4097, 8192, 65536))
    return await survives_each(peer, *messages, may_accept=False)


@case(
    "B-HOS-06",
    level=Level.ROBUSTNESS,
    section="Header",
    title="Payloads too short for their request",
    provoke="SET_VRING_ADDR with 8 bytes, SET_FEATURES with none",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def too_short(peer: Peer) -> Verdict | None:
    """Whoever reads the missing fields all the same acts on what an earlier message left in the buffer."""
    return await survives_each(peer, Raw(FrontendRequest.SET_VRING_ADDR, bytes(8)), Raw(FrontendRequest.SET_FEATURES))


@case(
    "B-HOS-07",
    level=Level.ROBUSTNESS,
    section="Header",
    title="A payload longer than its request needs",
    provoke="SET_FEATURES with 16 bytes",
    passes="refused, closed, or handled; what follows is understood",
    tags=TAGS,
)
async def too_long(peer: Peer) -> Verdict | None:
    """A front-end of a later version may say more than we know.  The stream must not fall out of step over it."""
    return await peer.survives(
        lambda session: session.send_raw(
            FrontendRequest.SET_FEATURES, U64(session.features).build() + bytes(8), flags=flags_of(peer)
        ),
        FrontendRequest.SET_FEATURES,
    )


@case(
    "B-HOS-08",
    level=Level.ROBUSTNESS,
    section="Header",
    title="Request 0",
    provoke="a header with request 0",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def request_0(peer: Peer) -> Verdict | None:
    """No request has this number; a table of handlers may have something in its first place all the same."""
    return await survives_each(peer, Raw(0))


@case(
    "B-HOS-09",
    level=Level.ROBUSTNESS,
    section="Header",
    title="Requests that do not exist",
    provoke="requests 46, 255 and 0xffffffff",
    passes="refused, closed or ignored, and the back-end lives",
    tags=TAGS,
)
async def unknown_requests(peer: Peer) -> Verdict | None:
    """The number may index a table of handlers, and a later version of the text will use some of them."""
    return await survives_each(peer, Raw(46), Raw(255), Raw(0xFFFFFFFF))


@case(
    "B-HOS-10",
    level=Level.ROBUSTNESS,
    section="Header",
    title="Versions other than 1",
    provoke="SET_OWNER with version 0, 2 and 3 in the flags",
    passes="refused, closed, ignored or handled, and the back-end lives",
    tags=TAGS,
)
async def other_versions(peer: Peer) -> Verdict | None:
    """There has only ever been version 1.  What a back-end makes of another is its own affair, but not its end."""
    need_reply = HeaderFlags.NEED_REPLY
    messages = [
        Raw(FrontendRequest.SET_OWNER, flags=version | asking) for version in (0, 2, 3) for asking in (0, need_reply)
    ]
    return await survives_each(peer, *messages)


@case(
    "B-HOS-11",
    level=Level.ROBUSTNESS,
    section="Header",
    title="A request that claims to be a reply",
    provoke="SET_OWNER with bit 2 of the flags set",
    passes="refused, closed, ignored or handled, and the back-end lives",
    tags=TAGS,
)
async def request_as_reply(peer: Peer) -> Verdict | None:
    """Nobody waits for this reply: it must not be put away as the answer to something."""
    return await peer.survives(
        lambda session: session.send_raw(FrontendRequest.SET_OWNER, flags=flags_of(peer) | HeaderFlags.REPLY),
        FrontendRequest.SET_OWNER,
    )


@case(
    "B-HOS-12",
    level=Level.ROBUSTNESS,
    section="Header",
    title="Flag bits that nobody has assigned",
    provoke="SET_OWNER with flags 0xfffffff1",
    passes="refused, closed, ignored or handled, and the back-end lives",
    tags=TAGS,
)
async def unassigned_flags(peer: Peer) -> Verdict | None:
    """All upper bits at once, among them reply and need_reply: whatever is made of it, the stream stays in step."""
    return await survives_each(peer, Raw(FrontendRequest.SET_OWNER, flags=0xFFFFFFF1))


@case(
    "B-HOS-13",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="Descriptors on a message that takes none",
    provoke="GET_PROTOCOL_FEATURES or SET_OWNER with a descriptor",
    passes="refused, closed or ignored; the descriptor is closed",
    tags=TAGS,
)
async def unwanted_fd(peer: Peer) -> Verdict | None:
    """Whoever takes descriptors off the socket owns them, wanted or not: a few thousand such messages, and it has none
    left for its work."""
    with watched(peer) as pipes:
        verdict = await survives_each(peer, Raw(FrontendRequest.SET_OWNER, fds=pipes.fds))
        session = await peer.negotiated()
        try:
            await session.send(GetProtocolFeatures(), pipes.fds())
            await session.outcome(FrontendRequest.GET_PROTOCOL_FEATURES)
        except Closed:
            peer.note("GET_PROTOCOL_FEATURES with a descriptor: closed the connection")
        await pipes.check(keep_open="with a message that takes none")
    return verdict


@case(
    "B-HOS-14",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="More descriptors than any message has",
    provoke="SET_MEM_TABLE with 253 descriptors, the most that Linux lets through",
    passes="refused, closed or ignored; all are closed",
    tags=TAGS,
)
async def flood_of_fds(peer: Peer) -> Verdict | None:
    """A buffer for eight loses the others: the kernel closes those, and says so only in a flag (MSG_CTRUNC)."""
    message = SetMemTable((MemoryRegion(0x10_0000, 1 << 20, 0x7F00_0010_0000, 0),))
    with watched(peer) as pipes:
        verdict = await survives_each(peer, Raw.of(message, lambda: pipes.fds(253)))
        await pipes.check(keep_open="with 252 others")
    return verdict


@case(
    "B-HOS-15",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="Descriptors that come with the payload instead of the header",
    provoke="SET_OWNER; the header of SET_FEATURES, then its payload in a second send that has a descriptor; SET_OWNER",
    passes="refused, closed or ignored; the descriptor is not taken for the next message's",
    tags=TAGS,
)
async def fd_with_the_payload(peer: Peer) -> Verdict | None:
    """Descriptors travel with the first byte.  Those that come later are nobody's, and must not find an owner by
    chance."""

    async def provoke(session: Session) -> None:
        await session.send_bytes(HEADER.pack(FrontendRequest.SET_FEATURES, flags_of(peer), 8))
        await trio.lowlevel.checkpoint()
        await session.send_bytes(U64(session.features).build(), pipes.fds())

    with watched(peer) as pipes:
        verdict = await peer.survives(provoke, FrontendRequest.SET_FEATURES)
        await pipes.check(keep_open="with the payload of SET_FEATURES")
    return verdict


@case(
    "B-HOS-16",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A descriptor with every byte",
    provoke="SET_VRING_ADDR byte by byte, each with a descriptor",
    passes="refused, closed or ignored; all are closed",
    tags=TAGS,
)
async def fd_with_every_byte(peer: Peer) -> Verdict | None:
    """Fifty-two of them with one message: a back-end that collects them in an array of eight writes past its end."""
    message = SetVringAddr(0, VringAddrFlags(0), 0, 0, 0, 0)

    async def provoke(session: Session) -> None:
        data = HEADER.pack(FrontendRequest.SET_VRING_ADDR, flags_of(peer), 40) + message.build()
        for at in range(len(data)):
            await session.send_bytes(data[at : at + 1], pipes.fds())

    with watched(peer) as pipes:
        verdict = await peer.survives(provoke, FrontendRequest.SET_VRING_ADDR)
        await pipes.check(keep_open="with a byte of SET_VRING_ADDR")
    return verdict
