"""Configuration space: sizes and offsets that make no sense (B-CFG-09 to 14)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.config import HEADER_SIZE, ask, whole, with_config
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.session import Closed, Session
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetConfig, SetConfig
from vhostuser.wire.records import MAX_CONFIG_SIZE, ConfigFlags

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

NEEDS = (ProtocolFeature.CONFIG,)
TAGS = ("config", "hostile")
GET = GetConfig.spec.request
TOO_MUCH = 200
MOST = 4096
"""Bytes that the largest known limit allows."""


def getting(offset: int, size: int, sent: int) -> Raw:
    """GET_CONFIG that says ``size`` and has ``sent`` bytes of data."""
    return Raw(GET, GetConfig(offset, size, data=bytes(sent)).build())


@case(
    "B-CFG-09",
    level=Level.ROBUSTNESS,
    section="msg GET_CONFIG",
    title="GET_CONFIG of no bytes is survived",
    provoke="GET_CONFIG with size 0 and no data",
    passes="answered, refused or closed; the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def nothing(peer: Peer) -> Verdict | None:
    """Nothing was asked for, and an error looks much the same."""
    return await survives_each(peer, getting(0, 0, 0))


@case(
    "B-CFG-10",
    level=Level.ROBUSTNESS,
    section="msg GET_CONFIG",
    title="GET_CONFIG that asks for more than it has room for leaks nothing",
    provoke=f"GET_CONFIG that says {TOO_MUCH} bytes in a payload with 4",
    passes="an error, a hang-up, or a reply without bytes that are no configuration space; the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def more_than_sent(peer: Peer) -> Verdict | None:
    """The buffer of a reply is often that of the request, and what lies behind it is the program's own."""
    known = whole(peer)
    session = await with_config(peer)
    try:
        await getting(0, TOO_MUCH, 4).send(peer, session)
        answer = await session.receive(what="the reply to GET_CONFIG")
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    answer.fds.close()
    surplus = answer.payload[HEADER_SIZE + known :].rstrip(b"\0")
    peer.note(f"a reply of {len(answer.payload)} bytes")
    if surplus:
        again = await ask(session, known, len(surplus))
        if again.payload[HEADER_SIZE:] != surplus:
            raise Failure(f"{len(surplus)} bytes behind configuration space, which are not there when asked for alone")
    return None


@case(
    "B-CFG-11",
    level=Level.ROBUSTNESS,
    section="msg GET_CONFIG",
    title="An offset and a size that overflow 32 bits are survived",
    provoke="GET_CONFIG of 32 bytes at 0xfffffff0, and SET_CONFIG of the same",
    passes="an error, a refusal or a hang-up; the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def overflow(peer: Peer) -> Verdict | None:
    """Their sum in 32 bits is 16, which is well inside."""
    writing = Raw.of(SetConfig(0xFFFF_FFF0, 32, ConfigFlags(0), bytes(32)))
    return await survives_each(peer, getting(0xFFFF_FFF0, 32, 32), writing)


@case(
    "B-CFG-12",
    level=Level.ROBUSTNESS,
    section="msg GET_CONFIG",
    title="Configuration space of unusual size is survived",
    provoke=f"GET_CONFIG of {MAX_CONFIG_SIZE}, {MAX_CONFIG_SIZE + 1} and {MOST} bytes",
    passes="answered, refused or closed; the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def large(peer: Peer) -> Verdict | None:
    """QEMU and libvhost-user have room for 256 bytes, others for 4096."""
    return await survives_each(peer, *(getting(0, size, size) for size in (256, 257, MOST)))


@case(
    "B-CFG-13",
    level=Level.ROBUSTNESS,
    section="msg SET_CONFIG",
    title="Flags of SET_CONFIG that nobody knows are survived",
    provoke="SET_CONFIG of no field, with flags 0x80",
    passes="refused, closed or ignored; the program lives",
    needs=NEEDS,
    tags=TAGS,
)
async def unknown_flags(peer: Peer) -> Verdict | None:
    """The text has two values, and peers disagree whether they are bits."""
    offset = whole(peer)
    return await survives_each(peer, Raw.of(SetConfig(offset, 1, ConfigFlags(0x80), bytes(1))))


@case(
    "B-CFG-14",
    level=Level.ROBUSTNESS,
    section="msg GET_CONFIG",
    title="GET_CONFIG without its feature is survived",
    provoke="GET_CONFIG on a connection where CONFIG was not negotiated",
    passes="answered, closed or ignored; the program lives",
    absent=NEEDS,
    tags=TAGS,
)
async def not_negotiated(peer: Peer) -> Verdict | None:
    """A device without configuration space may have no code for it."""

    async def provoke(session: Session) -> None:
        await getting(0, 4, 4).send(peer, session)

    return await peer.survives(provoke, GET, protocol=ProtocolFeature.REPLY_ACK)
