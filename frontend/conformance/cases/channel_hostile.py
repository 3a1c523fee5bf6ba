"""Channels that are closed, replaced, no channels at all, or full of nonsense (B-CH-10 to 14)."""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.hostile import HEADER, Raw, survives_each, watched
from frontend.conformance.overheard import ALL, overheard, silent
from frontend.conformance.session import REPLY, Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Verdict
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.wire.frontend_messages import SetBackendReqFd
from vhostuser.wire.records import U64
from vhostuser.wire.requests import BackendRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Peer

REQUEST = SetBackendReqFd.spec.request
NOBODYS = 99
"""A request that nobody has made."""

hostile = partial(
    case,
    level=Level.ROBUSTNESS,
    section="msg SET_BACKEND_REQ_FD",
    needs=(Need.CHANNEL,),
    tags=("channel", "hostile"),
)


@hostile(
    "B-CH-10",
    title="The front-end closes the channel",
    provoke="the channel is closed at our end; then the device is used",
    passes="the main channel goes on, and so does the device",
)
async def closed(peer: Peer) -> None:
    """QEMU does so when it does not understand what is said there, and keeps the device.  Who writes to a socket that
    is closed gets SIGPIPE, which ends a program that does not ignore it."""
    session = await peer.negotiated(protocol=ALL)
    (await peer.channel(session)).close()
    device = await bring_up(peer, session, peer.memory())
    await device.works(2)
    await session.in_sync()
    await peer.alive()


@hostile(
    "B-CH-11",
    title="A second channel takes the place of the first",
    provoke="SET_BACKEND_REQ_FD twice",
    passes="the first is closed; the device works",
)
async def replaced(peer: Peer) -> None:
    """Each that stays open is one descriptor less, and a front-end that listens for nothing."""
    session = await peer.negotiated(protocol=ALL)
    first, _ = await peer.channel(session), await peer.channel(session)
    await session.in_sync()
    if not await first.closes(within=session.patience):
        raise Failure(f"the first channel is open {session.patience:g} s after a second one was given")
    await (await bring_up(peer, session, peer.memory())).works()


def a_pipe() -> Fds:
    """The write end of a pipe that nobody reads."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    return Fds.of(Fd(write_end))


def a_file() -> Fds:
    """Shared memory."""
    with MemoryBackendShm(size=4096).allocate() as block:
        return Fds.of(block.fd.duplicate())


@hostile(
    "B-CH-12",
    title="What is no socket is no channel",
    provoke="SET_BACKEND_REQ_FD with a pipe and with a file; then the device is used, if the connection is still there",
    passes="refused, ignored or closed; the program lives, and the device works",
)
async def no_socket(peer: Peer) -> Verdict | None:
    """It shows only when the back-end first has something to say."""
    verdict = await survives_each(peer, *(Raw.of(SetBackendReqFd(), fds=fds) for fds in (a_pipe, a_file)), protocol=ALL)
    for fds in (a_pipe, a_file):
        await _used_with(peer, fds)
    return verdict


async def _used_with(peer: Peer, fds: Callable[[], Fds]) -> None:
    session = await peer.negotiated(protocol=ALL)
    try:
        await session.send(SetBackendReqFd(), fds(), need_reply=session.acks)
        await session.outcome(REQUEST)
        await (await bring_up(peer, session, peer.memory())).works()
        await session.in_sync()
    except Closed:
        pass
    await peer.alive()


GARBAGE = {
    "a reply to a request that nobody has made": lambda request: HEADER.pack(NOBODYS, REPLY, 8) + U64(0).build(),
    "a reply that goes on for ever": lambda request: HEADER.pack(request, REPLY, 0xFFFF_FFFF) + bytes(64),
    "a reply without its bit": lambda request: HEADER.pack(request, 1, 8) + U64(0).build(),
    "a reply without a payload": lambda request: HEADER.pack(request, REPLY, 0),
    "half a header": lambda request: HEADER.pack(request, REPLY, 8)[:6],
}


@hostile(
    "B-CH-13",
    section="Back-end communication",
    title="Nonsense on the channel is survived",
    provoke="the device is used; what asks for an acknowledgement gets nonsense, and if nothing does it comes unasked: "
    "a wrong code, a huge size, no reply bit, no payload, half a header; the channel is closed then",
    passes="the main channel is served, or closed; the program lives",
)
async def nonsense(peer: Peer) -> Verdict | None:
    """On this channel the roles are the other way round, and code that reads replies is often not as careful."""
    verdicts = set()
    for what, build in GARBAGE.items():
        verdicts.add(await _told(peer, what, build))
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


async def _told(peer: Peer, what: str, build: Callable[[int], bytes]) -> Verdict | None:
    verdict = None
    try:
        async with overheard(peer, react=silent) as heard:
            await heard.stir()
            asked = next((each.request for each in heard.owed), None)
            try:
                await heard.channel.send_bytes(build(asked or BackendRequest.CONFIG_CHANGE_MSG))
                heard.channel.close()
            except Closed:
                peer.note(f"{what}: the channel was closed")
            await heard.device.session.in_sync()
    except Closed:
        verdict = Verdict.REJECT
    await peer.alive()
    return verdict


def sockets(count: int) -> Fds:
    """So many connected sockets, the other ends of which are closed."""
    made = []
    for _ in range(count):
        ours, theirs = socket.socketpair()
        ours.close()
        made.append(Fd(theirs.detach()))
    return Fds(made)


@hostile(
    "B-CH-14",
    title="SET_BACKEND_REQ_FD without a descriptor, and with two",
    provoke="SET_BACKEND_REQ_FD with no descriptor, with two sockets, and with two pipes",
    passes="refused, ignored or closed; descriptors are closed; the program lives",
)
async def fd_counts(peer: Peer) -> Verdict | None:
    """One that is not there must not become number 0, and of two one is nobody's."""
    with watched(peer) as fds:
        counts: list[Callable[[], Fds]] = [lambda: NO_FDS, partial(sockets, 2), partial(fds.fds, 2)]
        verdict = await survives_each(peer, *(Raw.of(SetBackendReqFd(), fds=each) for each in counts), protocol=ALL)
        await fds.check(keep_open="with SET_BACKEND_REQ_FD")
    return verdict
