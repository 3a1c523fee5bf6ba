"""Messages as a stream of bytes: pieces, lumps, order (B-HDR-08 to 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.hostile import HEADER
from frontend.conformance.pace import has_read, send_apart
from frontend.conformance.session import PLAIN, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetFeatures,
    GetProtocolFeatures,
    SetFeatures,
    SetOwner,
    SetVringNum,
)
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session
    from vhostuser.wire.catalog import Message

MANY = 500
"""Replies that fill the socket of a back-end on Linux, which has room for some 280 small messages."""


def encoded(message: Message) -> bytes:
    """Header and payload, version 1, need_reply clear."""
    payload = message.build()
    return HEADER.pack(message.spec.request, PLAIN, len(payload)) + payload


async def next_replies(session: Session, *expected: Message) -> None:
    """The next messages answer these, in this order.

    Raises:
        Failure: another came.
    """
    for number, message in enumerate(expected):
        answer = await session.receive(what=f"reply {number + 1} of {len(expected)}")
        answer.fds.close()
        equal(f"request code of reply {number + 1}", answer.request, int(message.spec.request))


@case(
    "B-HDR-08",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A request that arrives byte by byte is put together",
    provoke="GET_FEATURES, a byte at a time, each sent when the one before has been read",
    passes="the normal reply",
)
async def byte_by_byte(peer: Peer) -> None:
    """A stream may hand over any number of bytes at a time, whatever the sender did."""
    session = await peer.connect()
    await send_apart(session, (bytes([byte]) for byte in encoded(GetFeatures())))
    await next_replies(session, GetFeatures())
    await session.in_sync()


@case(
    "B-HDR-09",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A payload may come later than its header",
    provoke="the header of SET_FEATURES, and when that has been read its payload; then GET_FEATURES",
    passes="GET_FEATURES is answered, as the first thing",
)
async def header_then_payload(peer: Peer) -> None:
    """Some back-ends read the payload with one call that does not wait, and take what is not there yet for an error."""
    session = await peer.connect()
    offered = (await session.ask(GetFeatures(), U64)).value
    data = encoded(SetFeatures(offered & (VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES)))
    await send_apart(session, (data[: HEADER.size], data[HEADER.size :]))
    await session.in_sync()


@case(
    "B-HDR-10",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A payload that comes in two pieces is put together",
    provoke="SET_VRING_ADDR of a ring to be, with 20 bytes of its payload, and when those have been read 20 more",
    passes="the ring works",
)
async def payload_in_two(peer: Peer) -> None:
    """Half an address is worse than none: the ring would be looked for in the wrong place."""
    session = await peer.negotiated()
    memory = peer.memory()
    await memory.share(session)
    rings = peer.rings(session, memory)
    for ring in rings:
        await ring.configure(session)
        data = encoded(ring.addresses())
        await send_apart(session, (data[: HEADER.size + 20], data[HEADER.size + 20 :]))
        await ring.send_kick(session)
        await ring.enable(session)
        ring.notify()
    await session.in_sync()
    await rings[peer.model.queue].do(peer.model.request(memory))


@case(
    "B-HDR-11",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="Requests that arrive in one lump are all served, in order",
    provoke="GET_FEATURES, SET_OWNER and GET_FEATURES twice more in one send",
    passes="three replies",
)
async def several_at_once(peer: Peer) -> None:
    """Whoever reads as much as there is must not forget what stands behind the first message."""
    session = await peer.connect()
    order: list[Message] = [GetFeatures(), SetOwner(), GetFeatures(), GetFeatures()]
    await session.send_bytes(b"".join(map(encoded, order)))
    await next_replies(session, GetFeatures(), GetFeatures(), GetFeatures())
    await session.in_sync()


@case(
    "B-HDR-12",
    level=Level.MUST,
    section="Communication",
    title="Nothing answers a message that has no reply and did not ask for one",
    provoke="SET_OWNER, SET_FEATURES and SET_VRING_NUM without need_reply, then GET_FEATURES",
    passes="what comes first is the reply to GET_FEATURES",
)
async def no_unasked_reply(peer: Peer) -> None:
    """Replies have no number: one too many, and each that follows is taken for the answer to the question before."""
    session = await peer.connect()
    offered = (await session.ask(GetFeatures(), U64)).value
    wanted = offered & (VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES)
    for message in (SetOwner(), SetFeatures(wanted), SetVringNum(0, 64)):
        await session.send(message)
        outcome = await session.outcome(message.spec.request)
        if outcome is not Outcome.IGNORED:
            raise Failure(f"{message.spec.name} without need_reply: found it {outcome.value}, expected silence")
    equal("unasked messages", [each.request for each in session.strays], [])


@case(
    "B-HDR-13",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="Replies come in the order of their requests",
    provoke="20 questions at once, GET_FEATURES and GET_PROTOCOL_FEATURES by turns",
    passes="the codes of the replies alternate in the same way",
    needs=[VirtioFeature.PROTOCOL_FEATURES],
)
async def order_of_replies(peer: Peer) -> None:
    """A reply says which kind of question it answers, not which one: only the order tells."""
    session = await peer.connect()
    questions: list[Message] = [GetFeatures(), GetProtocolFeatures()] * 10
    await session.send_bytes(b"".join(map(encoded, questions)))
    await next_replies(session, *questions)


@case(
    "B-HDR-14",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A front-end that reads late loses no reply",
    provoke=f"{MANY} times GET_FEATURES before the first reply is read",
    passes=f"{MANY} replies, however long the back-end had to wait for room",
)
async def late_reader(peer: Peer) -> None:
    """When the socket is full the back-end has to wait; what it writes without looking is lost."""
    session = await peer.connect()
    await session.send_bytes(encoded(GetFeatures()) * MANY)
    await has_read(session, within=0.2)
    await next_replies(session, *[GetFeatures()] * MANY)
    await session.in_sync()
