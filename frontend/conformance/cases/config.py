"""Configuration space: reading and writing it (B-CFG-01 to 08)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.config import (
    HEADER_SIZE,
    READ_ONLY,
    WRITABLE,
    ask,
    field_of,
    read,
    read_field,
    whole,
    with_config,
    write,
)
from frontend.conformance.expect import equal
from frontend.conformance.session import Closed, Outcome
from frontend.conformance.suite import case, manual
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.records import Config, ConfigFlags

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

NEEDS = (ProtocolFeature.CONFIG,)
TAGS = ("config",)
BEYOND = 4096
"""An offset behind every configuration space."""


@case(
    "B-CFG-01",
    level=Level.MUST,
    section="msg GET_CONFIG",
    title="GET_CONFIG is answered with as many bytes as it asked for",
    provoke="GET_CONFIG of the whole configuration space, as far as the device's features say that it goes",
    passes="a reply of 12 bytes and as many as were asked for",
    needs=NEEDS,
    tags=TAGS,
)
async def whole_space(peer: Peer) -> None:
    """The text demands the request's size, and QEMU refuses a reply of any other."""
    session = await with_config(peer)
    await read(session, 0, whole(peer))
    await session.in_sync()


@case(
    "B-CFG-02",
    level=Level.ROBUSTNESS,
    section="msg GET_CONFIG",
    title="The reply says again which bytes these are",
    provoke="GET_CONFIG of four bytes somewhere",
    passes="offset and size in the reply are those of the request",
    needs=NEEDS,
    tags=TAGS,
)
async def echo(peer: Peer) -> None:
    """Front-ends check it, some of them."""
    session = await with_config(peer)
    offset = 4 if whole(peer) >= 8 else 0
    answer = (await ask(session, offset, 4)).parse(Config)
    equal("offset in the reply to GET_CONFIG", answer.offset, offset)
    equal("size in the reply to GET_CONFIG", answer.size, 4)


@case(
    "B-CFG-03",
    level=Level.MUST,
    section="msg GET_CONFIG",
    title="A part of configuration space is the same as in the whole",
    provoke="GET_CONFIG of every single byte, and of all words",
    passes="all agree with one GET_CONFIG of everything",
    needs=NEEDS,
    tags=TAGS,
)
async def parts(peer: Peer) -> None:
    """Who ignores the offset answers with the first bytes over and over, and a driver reads a capacity of nonsense."""
    session = await with_config(peer)
    size = whole(peer)
    everything = await read(session, 0, size)
    pieces = [(at, 1) for at in range(size)] + [(at, 4) for at in range(0, size - 3, 4)]
    for at, length in pieces:
        found = await read(session, at, length)
        equal(f"GET_CONFIG {at}+{length}", found.hex(" "), everything[at : at + length].hex(" "))


@case(
    "B-CFG-04",
    level=Level.MUST,
    section="msg GET_CONFIG",
    title="GET_CONFIG says that it failed with a payload of no bytes",
    provoke=f"GET_CONFIG of four bytes at offset {BEYOND}, behind every configuration space",
    passes="a reply without payload, or the connection is closed; a reply with data is recorded, since the text does "
    "not say that there is nothing; one of 12 bytes with a size of 0 is told",
    needs=NEEDS,
    tags=TAGS,
)
async def error(peer: Peer) -> Verdict | None:
    """There is no other way to tell of an error here."""
    session = await with_config(peer)
    try:
        answer = await ask(session, BEYOND, 4)
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    found = len(answer.payload)
    if not found:
        return None
    if found == HEADER_SIZE and not answer.parse(Config).size:
        peer.note("an error is told by 12 bytes with a size of 0, expected no bytes at all")
        return Verdict.WARN
    if found != HEADER_SIZE + 4:
        raise Failure(
            f"GET_CONFIG {BEYOND}+4: found a payload of {found} bytes, expected 0, or 16 if there is such data"
        )
    peer.note(f"there is data at offset {BEYOND}: {answer.parse(Config).data.hex(' ')}")
    return None


@case(
    "B-CFG-05",
    level=Level.MUST,
    section="msg SET_CONFIG",
    title="What the driver may write is written",
    provoke="SET_CONFIG of a writable field, of a disk its write cache mode, with both values",
    passes="accepted, and GET_CONFIG has the new value",
    needs=NEEDS,
    tags=TAGS,
)
async def writable(peer: Peer) -> None:
    """The driver switches the device by it, and has no other way to learn that it did."""
    field = field_of(peer, WRITABLE)
    session = await with_config(peer, field.features)
    before = await read_field(peer, session, field)
    for data in (bytes([before[0] ^ 1]), before):
        outcome = await write(session, field, data)
        if outcome.refused:
            raise Failure(f"SET_CONFIG of {field.name} to {data[0]}: found it {outcome.value}, expected it accepted")
        equal(f"{field.name} after SET_CONFIG", (await read_field(peer, session, field)).hex(), data.hex())


@case(
    "B-CFG-06",
    level=Level.MUST,
    section="msg SET_CONFIG",
    title="What the driver may not write stays as it is",
    provoke="SET_CONFIG with flags 0 of a read-only field: a disk's capacity, a network card's address, a share's tag",
    passes="refused or closed, or the field is unchanged",
    needs=NEEDS,
    tags=TAGS,
)
async def read_only(peer: Peer) -> Verdict | None:
    """A guest must not make its disk larger than it is."""
    field = field_of(peer, READ_ONLY)
    session = await with_config(peer)
    before = await read_field(peer, session, field)
    outcome = await write(session, field, bytes(byte ^ 1 for byte in before))
    peer.note(f"SET_CONFIG of {field.name}: {outcome.value}")
    if outcome is Outcome.CLOSED:
        await peer.alive()
        return Verdict.REJECT
    found = (await read_field(peer, session, field)).hex()
    equal(f"{field.name} after SET_CONFIG", found, before.hex())
    return None


@case(
    "B-CFG-07",
    level=Level.ROBUSTNESS,
    section="msg SET_CONFIG",
    title="A read-only field may be written in a live migration",
    provoke="SET_CONFIG with flags 1 of a read-only field, with the value that it has",
    passes="accepted or refused, which is recorded, and the field is as before",
    needs=NEEDS,
    tags=TAGS,
)
async def in_migration(peer: Peer) -> Verdict | None:
    """The destination of a migration gets its configuration from the source."""
    field = field_of(peer, READ_ONLY)
    session = await with_config(peer)
    before = await read_field(peer, session, field)
    outcome = await write(session, field, before, ConfigFlags.LIVE_MIGRATION)
    peer.note(f"SET_CONFIG of {field.name} with flags 1: {outcome.value}")
    if outcome is Outcome.CLOSED:
        await peer.alive()
        return Verdict.REJECT
    equal(f"{field.name} after SET_CONFIG", (await read_field(peer, session, field)).hex(), before.hex())
    return None


manual(
    "B-CFG-08",
    level=Level.MUST,
    section="msg BACKEND_CONFIG_CHANGE_MSG",
    title="A change of configuration space is told on the back-end's channel",
    reason="What makes a device change its configuration is no part of the protocol: a disk is resized by its "
    "administrator, a link goes down. Do that to the running program, and look for BACKEND_CONFIG_CHANGE_MSG with "
    "`vhost-user trace`.",
    provoke="something happens to the device that its configuration space tells of, while a ring runs",
    passes="request 2 of size 0 on the channel",
)
