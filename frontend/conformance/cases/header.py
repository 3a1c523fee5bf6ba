"""Headers of replies (B-HDR-01 to 07)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.peer import BASIC
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetFeatures,
    GetMaxMemSlots,
    GetProtocolFeatures,
    GetQueueNum,
    GetStatus,
    GetVringBase,
)
from vhostuser.wire.requests import HeaderFlags

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Answer, Session
    from vhostuser.wire.catalog import Message

STRICT = int(HeaderFlags.VERSION_1 | HeaderFlags.REPLY)
GATED: tuple[tuple[ProtocolFeature, Message], ...] = (
    (ProtocolFeature.MQ, GetQueueNum()),
    (ProtocolFeature.CONFIGURE_MEM_SLOTS, GetMaxMemSlots()),
    (ProtocolFeature.STATUS, GetStatus()),
)
"""Questions that are answered with eight bytes, and what they need."""


async def reply_to(session: Session, message: Message, *, need_reply: bool = False) -> Answer:
    """The next message after ``message``, without its descriptors."""
    await session.send(message, need_reply=need_reply)
    answer = await session.receive(what=f"the reply to {message.spec.name}")
    answer.fds.close()
    return answer


@case(
    "B-HDR-01",
    level=Level.MUST,
    section="Header",
    title="A reply repeats the code of its request",
    provoke="GET_FEATURES",
    passes="the reply's request code is 1",
)
async def reply_code(peer: Peer) -> None:
    """A front-end may have several questions under way, and knows by this number which of them is answered."""
    answer = await reply_to(await peer.connect(), GetFeatures())
    equal("request code of the reply to GET_FEATURES", answer.request, 1)


@case(
    "B-HDR-02",
    level=Level.MUST,
    section="Header",
    title="A reply has bit 2 of the flags set",
    provoke="GET_FEATURES",
    passes="flags & 4",
)
async def reply_bit(peer: Peer) -> None:
    """Bit 2 marks a reply; it is what tells an answer from a request."""
    answer = await reply_to(await peer.connect(), GetFeatures())
    if not answer.flags & HeaderFlags.REPLY:
        raise Failure(f"flags of the reply to GET_FEATURES: found {answer.flags:#x}, expected bit 2 to be set")


@case(
    "B-HDR-03",
    level=Level.MUST,
    section="Header",
    title="A reply says version 1 in the two lowest bits of its flags",
    provoke="GET_FEATURES",
    passes="flags & 3 is 1",
)
async def reply_version(peer: Peer) -> None:
    """There is only one version of the header, and a peer may refuse every other."""
    answer = await reply_to(await peer.connect(), GetFeatures())
    equal(f"version in the flags {answer.flags:#x} of the reply to GET_FEATURES", answer.flags & 3, 1)


@case(
    "B-HDR-04",
    level=Level.ROBUSTNESS,
    section="Header",
    title="The flags of a reply are 0x5 and nothing else",
    provoke="GET_FEATURES, GET_PROTOCOL_FEATURES and GET_VRING_BASE, none of them with need_reply",
    passes="flags are 0x5 each time",
)
async def reply_flags(peer: Peer) -> None:
    """The text assigns no bit above 3, and QEMU reads a reply with any other flags as an error and hangs up."""
    async with peer.device() as device:
        questions: list[Message] = [GetFeatures(), GetVringBase(device.ring.index)]
        if device.session.offered & VirtioFeature.PROTOCOL_FEATURES:
            questions.insert(1, GetProtocolFeatures())
        for question in questions:
            answer = await reply_to(device.session, question)
            equal(f"flags of the reply to {question.spec.name}", hex(answer.flags), hex(STRICT))


@case(
    "B-HDR-05",
    level=Level.ROBUSTNESS,
    section="REPLY_ACK",
    title="need_reply on a question changes nothing in its reply",
    provoke="GET_FEATURES with need_reply, REPLY_ACK being negotiated",
    passes="one reply with flags 0x5, and no acknowledgement beside it",
    needs=[ProtocolFeature.REPLY_ACK],
)
async def reply_flags_with_need_reply(peer: Peer) -> None:
    """need_reply belongs to the request.  A reply that copies it has flags that strict front-ends refuse; one that
    is followed by an acknowledgement puts the connection out of step for good."""
    session = await peer.negotiated()
    answer = await reply_to(session, GetFeatures(), need_reply=True)
    await session.in_sync()
    equal("flags of the reply to GET_FEATURES with need_reply", hex(answer.flags), hex(STRICT))


@case(
    "B-HDR-06",
    level=Level.MUST,
    section="Header",
    title="The size in a reply's header is the number of bytes that follow",
    provoke="every question with an answer of eight bytes that the target's features allow, one after the other",
    passes="eight bytes are announced each time, and right behind them the next reply begins",
)
async def reply_size(peer: Peer) -> None:
    """A stream has no seams but those that the sizes make: a surplus byte is taken for the next header."""
    protocol = peer.profile.protocol & (ProtocolFeature.MQ | ProtocolFeature.CONFIGURE_MEM_SLOTS)
    protocol |= peer.profile.protocol & (ProtocolFeature.STATUS | ProtocolFeature.REPLY_ACK)
    async with peer.device(protocol=protocol) as device:
        session = device.session
        questions = [question for need, question in GATED if session.protocol & need]
        questions += [GetFeatures(), GetVringBase(device.ring.index), GetFeatures()]
        if session.offered & VirtioFeature.PROTOCOL_FEATURES:
            questions.append(GetProtocolFeatures())
        for question in questions:
            answer = await reply_to(session, question)
            equal(f"request code of the reply to {question.spec.name}", answer.request, int(question.spec.request))
            equal(f"size of the reply to {question.spec.name}", len(answer.payload), 8)
        await session.in_sync()


@case(
    "B-HDR-07",
    level=Level.MUST,
    section="Message Specification",
    title="Every field of a message is in the byte order of the host",
    provoke="feature bits, a memory table and ring addresses in host order; a request on the ring",
    passes="replies and acknowledgements make sense, those of features by VERSION_1 and bit 30; the request is done",
)
async def byte_order(peer: Peer) -> None:
    """Both ends are on one machine, so nothing is swapped; only what the rings hold is little-endian by VIRTIO.

    On a little-endian host this finds those who swap, not those who should and do not.
    """
    async with peer.device() as device:
        offered = device.session.offered
        swapped = int.from_bytes(offered.to_bytes(8, "big"), "little")
        if not offered & BASIC and swapped & BASIC == BASIC:
            raise Failure(f"features: found {offered:#x}, which makes sense in the other byte order: {swapped:#x}")
        await device.works()
