"""Header and framing (B-HDR)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level
from vhostuser.wire.frontend_messages import GetFeatures
from vhostuser.wire.requests import HeaderFlags

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer


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
    session = await peer.connect()
    await session.send(GetFeatures())
    answer = await session.receive()
    if answer.request != 1:
        raise Failure(f"request code of the reply to GET_FEATURES: found {answer.request}, expected 1")


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
    session = await peer.connect()
    await session.send(GetFeatures())
    answer = await session.receive()
    if not answer.flags & HeaderFlags.REPLY:
        raise Failure(f"flags of the reply to GET_FEATURES: found {answer.flags:#x}, expected bit 2 to be set")
