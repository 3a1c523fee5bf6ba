"""Messages by the thousand: random ones, good ones in random order, and connections in numbers (B-HOS-54 to 56)."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.cases.hostile_framing import HALF_HEADER
from frontend.conformance.memory import Span
from frontend.conformance.oracle import resident_growth
from frontend.conformance.random_messages import GoodMessages, RandomMessages
from frontend.conformance.series import Series
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetFeatures
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

RANDOM, GOOD, SEED = 100_000, 5_000, 54
CONNECTIONS, WARM = 1000, 100
"""Connections to make; those after which a back-end has all that it keeps for good."""
SLACK = 10
"""Descriptors or mappings that may come or go by chance over so many connections."""
MUCH = 64 << 20
"""Bytes of memory that nobody needs for connections that are gone."""
ALL = ProtocolFeature((1 << 64) - 1)
hostile = partial(case, level=Level.ROBUSTNESS, section="Message Specification")


@hostile(
    "B-HOS-54",
    title="Random messages with good headers",
    provoke=f"up to {RANDOM} messages: any request, payloads that are almost right, descriptors now and then",
    passes="whatever it thinks of them, it lives, and answers GET_FEATURES between them or hangs up",
    tags=("hostile", "slow"),
    seconds=90,
)
async def random_messages(peer: Peer) -> Verdict | None:
    """Nobody thinks of everything that a header can announce."""
    peer.note(f"seed {SEED}")
    memory = peer.memory(Span(0x10_0000, 1 << 20))
    memory.view(0x10_0000, 1 << 20)[:] = b"\xff" * (1 << 20)  # no request of any device that is known here
    messages = RandomMessages(random.Random(SEED), memory)
    return await Series(peer).run(RANDOM, partial(_negotiated, peer), messages.send)


async def _negotiated(peer: Peer) -> Session:
    return await peer.negotiated(protocol=ALL)


@hostile(
    "B-HOS-55",
    title="Good messages in any order",
    provoke=f"up to {GOOD} messages, each right by itself, in random order over a device with a request to do",
    passes="it lives, and answers or hangs up; after that, a device that is brought up in order works",
    tags=("hostile", "slow"),
    seconds=60,
    variants=("split", "packed"),
)
async def random_order(peer: Peer) -> Verdict | None:
    """Back-ends are written along the order in which one front-end talks; the next front-end has another."""
    peer.note(f"seed {SEED}")
    messages = GoodMessages(random.Random(SEED), peer)
    verdict = await Series(peer).run(GOOD, messages.begin, messages.send)
    async with peer.device() as device:
        await device.works(3)
    return verdict


@hostile(
    "B-HOS-56",
    title="A thousand connections leave nothing behind",
    provoke=f"{CONNECTIONS} connections, closed at once; now and then after half a header, a question, or a set-up",
    passes="it holds no more descriptors and shared mappings than after the first; a program for one session is "
    "a new one each time, so that there is nothing to see",
    tags=("hostile", "slow"),
    seconds=60,
)
async def many_connections(peer: Peer) -> Verdict | None:
    """A front-end comes back with every reboot of its guest, and a back-end may live for years."""
    pid, before, grown = peer.target.pid, peer.target.vitals(), resident_growth(peer)
    for number in range(CONNECTIONS):
        if number == WARM:
            before, grown = peer.target.vitals(), resident_growth(peer)
        await _one(peer, number)
        if peer.target.pid != pid:
            peer.note(f"the program in use is another one after {number + 1} connections")
            await peer.alive()
            return None
    await peer.alive()
    after, added = peer.target.vitals(), grown()
    for what in ("fds", "shared"):
        found, expected = getattr(after, what, None), getattr(before, what, None)
        if found is not None and expected is not None and found > expected + SLACK:
            raise Failure(f"{what} after {CONNECTIONS} connections: found {found}, expected {expected} as after {WARM}")
    if added is not None and added > MUCH:
        peer.note(f"{added >> 20} MiB of memory more after {CONNECTIONS} connections")
        return Verdict.WARN
    return None


async def _one(peer: Peer, number: int) -> None:
    """One of them; who serves one at a time may turn it away, not having seen yet that the last has gone."""
    try:
        await _come_and_go(peer, number)
    except Closed:
        await peer.alive()
    peer.hang_up()


async def _come_and_go(peer: Peer, number: int) -> None:
    session = await peer.connect()
    match number % 10:
        case 0:
            await session.ask(GetFeatures(), U64)
        case 1:
            await session.send_bytes(HALF_HEADER)
        case 2:
            session.close()
            session = await peer.negotiated()
            await peer.memory().share(session)
    session.close()
