"""Long series of messages go on over one connection after the other, and end when it is clear how they are taken."""

from __future__ import annotations

import os
import random
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

import frontend.conformance.series as module
from frontend.conformance.log import Recorder
from frontend.conformance.memory import SharedMemory
from frontend.conformance.peer import Peer
from frontend.conformance.profile import Profile
from frontend.conformance.random_messages import RandomMessages
from frontend.conformance.series import Series, together
from frontend.conformance.session import Session
from tests.conformance.runs import program
from vhostuser.conformance import Failure, Verdict
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.framing import DEFAULT_MAX_FDS
from vhostuser.transport.ancillary import receive_nowait
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetFeatures
from vhostuser.wire.requests import FrontendRequest, Header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(60)
SEED = 1
FEATURES = 1 << 32


@asynccontextmanager
async def peer_for(behaviour: str) -> AsyncIterator[Peer]:
    async with program(behaviour) as target:
        peer = Peer(target, Profile(features=FEATURES, protocol=ProtocolFeature(0)), Recorder(), patience=20.0)
        try:
            yield peer
        finally:
            peer.close()


async def set_features(session: Session, count: int) -> None:
    for _ in range(count):
        await session.send(SetFeatures(FEATURES))


async def test_all_of_them_go_over_one_connection_that_stays_open() -> None:
    async with peer_for("good") as peer:
        series = Series(peer)
        assert await series.run(50, peer.negotiated, set_features) is None
        assert (series.sent, series.closed, series.programs) == (50, 0, 1)
        assert peer.notes == ["50 messages; closed 0 connections over them"]


async def test_it_is_given_up_when_every_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS", 3)
    async with peer_for("later cuts off") as peer:
        series = Series(peer)
        assert await series.run(1000, peer.served, set_features) is Verdict.REJECT
        assert series.closed == 3


async def test_it_is_given_up_when_every_program_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROGRAMS", 2)
    async with peer_for("ends at features") as peer:
        series = Series(peer)
        assert await series.run(1000, peer.served, set_features) is Verdict.REJECT
        assert series.programs == 3


async def test_a_program_that_is_killed_by_it_fails() -> None:
    async with peer_for("dies of features") as peer:
        with pytest.raises(Failure, match=r"signal 9 killed the back-end|it was ended by SIGKILL"):
            await Series(peer).run(1000, peer.served, set_features)


# --- what is sent ---


async def test_messages_go_out_in_order_and_descriptors_with_their_own() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    read_end, write_end = os.pipe()
    with Session(ours, Recorder()) as session, theirs, Fd(read_end):
        await together(session, [(b"a", NO_FDS), (b"b", NO_FDS), (b"c", Fds.of(Fd(write_end))), (b"d", NO_FDS)])
        assert theirs.recv(2) == b"ab"
        received = receive_nowait(theirs, 1, DEFAULT_MAX_FDS)
        with received.fds:
            assert (received.data, len(received.fds)) == (b"c", 1)
        assert theirs.recv(2) == b"d"
        assert os.read(read_end, 1) == b""  # nobody else has kept it


async def test_random_messages_have_good_headers_and_are_the_same_each_time() -> None:
    with SharedMemory() as memory:
        first, second = [await _sent(RandomMessages(random.Random(SEED), memory)) for _ in range(2)]
    assert first == second
    requests, at = set(), 0
    while at < len(first):
        header = Header.parse(first[at : at + 12])
        assert header.version == 1
        requests.add(header.request)
        at += 12 + header.size
    assert at == len(first)  # the last one is whole
    assert FrontendRequest.GET_FEATURES not in requests
    assert len(requests) > 30


async def _sent(messages: RandomMessages) -> bytes:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    found = b""
    with Session(ours, Recorder()) as session, theirs:
        theirs.setblocking(False)
        for _ in range(20):
            await messages.send(session, 10)
            while True:
                try:
                    received = receive_nowait(theirs, 1 << 16, DEFAULT_MAX_FDS)
                except BlockingIOError:
                    break
                received.fds.close()
                found += received.data
    return found
