"""A front-end that asks and does not listen (B-HOS-57)."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from frontend.conformance.session import PLAIN, Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict, Wedged
from vhostuser.transport.ancillary import send_nowait
from vhostuser.wire.frontend_messages import GetFeatures
from vhostuser.wire.requests import Header

if TYPE_CHECKING:
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.session import Session

QUESTION = Header(GetFeatures.spec.request, PLAIN, 0).build()
PIECE = QUESTION * 16
ANSWER = struct.Struct("=IIIQ")
MOST = 200_000
"""Questions to ask at most: one who takes them all without being listened to has no bound."""
STUCK = 0.2
"""Seconds without room in the socket after which the back-end reads no more."""
WORKS = 0.5
"""Seconds in which a request is done by one who serves rings beside messages."""


@case(
    "B-HOS-57",
    level=Level.ROBUSTNESS,
    section="Communication",
    title="A front-end that does not read its answers",
    provoke="GET_FEATURES over and over without reading, until nothing more can be sent; then a request on a running "
    "ring; then every answer is read",
    passes="the ring goes on, or waits (that is told); once the answers are read each question has its own, and the "
    "device works; hanging up is fine too",
    tags=("hostile",),
)
async def does_not_read(peer: Peer) -> Verdict | None:
    """A socket has room for so much, and then somebody waits.  That may be who serves this one front-end; it may not
    be the program for good."""
    verdict = None
    async with peer.device() as device:
        try:
            sent = await _ask_until_full(device.session)
            peer.note(f"{sent // len(QUESTION)} questions went out before the first answer was read")
            device.ring.add(request := device.request())
            device.ring.publish(kick=True)
            done = await _done_meanwhile(peer, device)
            await _read_answers(device.session, sent)
            for _, used in done or await device.ring.finish(1):
                request.check(used)
            await device.works()
        except Closed:
            peer.note("closed the connection")
            verdict = Verdict.REJECT
    await peer.alive()
    return verdict


async def _ask_until_full(session: Session) -> int:
    """Bytes of questions sent without reading; the last one went as far as there was room."""
    sent = 0
    with socket.fromfd(session.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        while sent < MOST * len(QUESTION):
            try:
                sent += _sent(sock, PIECE[sent % len(QUESTION) :])
            except BlockingIOError:
                with trio.move_on_after(STUCK) as waiting:
                    await trio.lowlevel.wait_writable(sock)
                if waiting.cancelled_caught:
                    break
    return sent


async def _done_meanwhile(peer: Peer, device: Device) -> list[tuple[Request, int]]:
    try:
        done = await device.ring.finish(1, within=WORKS)
    except Wedged:
        peer.note("the ring waits until somebody reads the answers")
        return []
    peer.note("the ring is served while nobody reads the answers")
    return done


async def _read_answers(session: Session, sent: int) -> None:
    """Complete the last question as soon as there is room, and read one answer a question; so many are read raw."""
    rest = QUESTION[sent % len(QUESTION) :] if sent % len(QUESTION) else b""
    expected, found = -(-sent // len(QUESTION)) * ANSWER.size, bytearray()
    with socket.fromfd(session.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        while len(found) < expected:
            if rest:
                with suppress(BlockingIOError):
                    rest = rest[_sent(sock, rest) :]
            found += await _received(session, sock)
    for number, (request, _, size, value) in enumerate(ANSWER.iter_unpack(found[:expected]), 1):
        if (request, size, value) != (GetFeatures.spec.request, 8, session.offered):
            raise Failure(
                f"answer {number}: found request {request}, {size} bytes, {value:#x}; "
                f"expected {session.offered:#x} to GET_FEATURES as before"
            )


async def _received(session: Session, sock: socket.socket) -> bytes:
    with trio.move_on_after(session.patience):
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed("the back-end closed the connection")
        return data
    raise Wedged(f"the back-end sends no more answers for {session.patience:g} s, while they are read")


def _sent(sock: socket.socket, data: bytes) -> int:
    """Bytes that went out at once.

    Raises:
        BlockingIOError: there is no room for any.
        Closed: nobody is there any more.
    """
    try:
        return send_nowait(sock, memoryview(data))
    except (BrokenPipeError, ConnectionResetError):
        raise Closed("the back-end closed the connection") from None
