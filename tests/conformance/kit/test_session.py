"""Sessions: what they make of a back-end's answers, of its silence, and of whatever else comes out of a socket."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from frontend.conformance.log import Recorder
from frontend.conformance.session import Closed, Outcome, Session
from vhostuser.conformance import Failure, Wedged
from vhostuser.fd import Fd, Fds
from vhostuser.testing.scripted_backend import ScriptedBackend, ScriptedPeer
from vhostuser.transport.ancillary import receive_nowait
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import GetFeatures, SetFeatures, SetVringNum
from vhostuser.wire.records import U64, VringState
from vhostuser.wire.requests import FrontendRequest, Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

GET_FEATURES, SET_FEATURES = FrontendRequest.GET_FEATURES, FrontendRequest.SET_FEATURES
SOON = 0.05
"""Patience with somebody who will never answer."""


class Ends:
    """A session, and the socket at its other end."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        self.other.setblocking(False)
        self.recorder = Recorder()
        self.session = Session(ours, self.recorder)

    def say(self, request: int, payload: bytes = b"", *, flags: int = 5) -> None:
        """The back-end has sent this."""
        self.other.sendall(Header(request, HeaderFlags(flags), len(payload)).build() + payload)

    def say_features(self, features: int = 3) -> None:
        self.say(GET_FEATURES, U64(features).build())

    def hang_up(self) -> None:
        self.other.close()

    def heard(self) -> bytes:
        return self.other.recv(1 << 20)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.session.close()
    made.other.close()


# --- answers ---


async def test_a_question_is_answered(ends: Ends) -> None:
    ends.say_features(7)
    assert await ends.session.ask(GetFeatures(), U64) == U64(7)
    assert ends.heard() == Header(GET_FEATURES, HeaderFlags(1), 0).build()


@pytest.mark.parametrize(
    ("request_", "payload", "flags", "said"),
    [
        (SET_FEATURES, bytes(8), 5, "found request 2, flags 0x5; expected request 1, flags 0x5"),
        (GET_FEATURES, bytes(8), 1, "found request 1, flags 0x1; expected request 1, flags 0x5"),
        (GET_FEATURES, bytes(4), 5, "reply to GET_FEATURES: .*4"),
        (GET_FEATURES, bytes(9), 5, "reply to GET_FEATURES: "),
    ],
)
async def test_an_answer_to_something_else_or_of_another_form_fails(
    ends: Ends, request_: int, payload: bytes, flags: int, said: str
) -> None:
    ends.say(request_, payload, flags=flags)
    with pytest.raises(Failure, match=said):
        await ends.session.ask(GetFeatures(), U64)


async def test_what_belongs_to_no_question_is_kept_aside(ends: Ends) -> None:
    ends.say(SET_FEATURES, bytes(8))
    ends.say_features()
    assert (await ends.session.answer(GET_FEATURES)).value == 3
    assert [each.request for each in ends.session.strays] == [SET_FEATURES]


async def test_descriptors_of_answers_belong_to_whoever_reads_them(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    with Fds.of(Fd(read_end), Fd(write_end)) as pipe:
        data = Header(GET_FEATURES, HeaderFlags(5), 8).build() + bytes(8)
        socket.send_fds(ends.other, [data], pipe.numbers())
    answer = await ends.session.receive()
    assert len(answer.fds) == 2
    answer.fds.close()


async def test_only_eight_bytes_are_a_number(ends: Ends) -> None:
    ends.say(GET_FEATURES, bytes(7))
    assert (await ends.session.receive()).value is None


# --- silence, noise and the end ---


async def test_no_answer_is_wedged(ends: Ends) -> None:
    ends.session.patience = SOON
    with pytest.raises(Wedged, match="the reply to GET_FEATURES did not come within"):
        await ends.session.ask(GetFeatures(), U64)


async def test_who_reads_nothing_is_wedged(ends: Ends) -> None:
    ends.session.patience = SOON
    with pytest.raises(Wedged, match="the back-end read nothing for"):
        await ends.session.send_bytes(bytes(8 << 20))


async def test_garbage_fails(ends: Ends) -> None:
    ends.other.sendall(b"\xa5" * 20)
    with pytest.raises(Failure, match="what the back-end sent is no message"):
        await ends.session.receive()


@pytest.mark.parametrize("length", [0, 5, 12, 17])
async def test_the_end_in_the_middle_of_a_message_is_an_end(ends: Ends, length: int) -> None:
    ends.other.sendall((Header(GET_FEATURES, HeaderFlags(5), 8).build() + bytes(8))[:length])
    ends.hang_up()
    with pytest.raises(Closed):
        await ends.session.receive()


async def test_half_a_message_and_no_more_is_wedged(ends: Ends) -> None:
    ends.other.sendall(Header(GET_FEATURES, HeaderFlags(5), 8).build())
    with pytest.raises(Wedged, match="an answer did not come within"):
        await ends.session.receive(within=SOON)


async def test_sending_to_nobody_is_an_end(ends: Ends) -> None:
    ends.hang_up()
    with pytest.raises(Closed, match="before it had the whole message"):
        await ends.session.send(SetFeatures(1))
    with pytest.raises(Closed, match="before it had the whole message"):
        await ends.session.send_bytes(b"x")


async def test_a_flood_does_not_keep_anybody_for_ever(ends: Ends) -> None:
    flood = (Header(SET_FEATURES, HeaderFlags(5), 0).build()) * 1100
    ends.other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    ends.other.sendall(flood)
    with pytest.raises(Failure, match="a flood of answers"):
        await ends.session.answer(GET_FEATURES)
    ends.other.sendall(flood)
    with pytest.raises(Failure, match="a flood of answers"):
        await ends.session.outcome(SET_FEATURES)


async def test_whether_it_is_silent(ends: Ends) -> None:
    assert await ends.session.silent(SOON)
    ends.say_features()
    assert not await ends.session.silent(5)


async def test_whether_it_hangs_up_whatever_it_says_before(ends: Ends) -> None:
    assert not await ends.session.closes(within=SOON)
    ends.say_features()
    ends.hang_up()
    assert await ends.session.closes()


async def test_a_look_whether_anybody_is_there_reads_nothing(ends: Ends) -> None:
    ends.session.check_open()
    ends.say_features()
    ends.hang_up()
    ends.session.check_open()  # there is an answer to be read yet
    assert (await ends.session.answer(GET_FEATURES)).value == 3
    with pytest.raises(Closed):
        ends.session.check_open()


async def test_closing_twice_is_noted_once(ends: Ends) -> None:
    ends.session.close()
    ends.session.close()
    assert ends.session.closed
    assert [each.text for each in ends.recorder.finish()] == ["closed the connection"]


# --- raw messages ---


async def test_a_header_may_say_anything(ends: Ends) -> None:
    await ends.session.send_raw(99, b"abc", flags=0xFFFF_FFF2, size=7)
    assert ends.heard() == Header(99, HeaderFlags(0xFFFF_FFF2), 7).build() + b"abc"


async def test_descriptors_go_with_the_first_byte_and_are_closed_here(ends: Ends) -> None:
    read_end, write_end = os.pipe()
    with Fd(read_end):
        fds = Fds.of(Fd(write_end))
        await ends.session.send_bytes(b"xy", fds)
        data, received, _ = receive_nowait(ends.other, 2, 4)
        assert (data, len(received)) == (b"xy", 1)
        received.close()
        assert os.read(read_end, 1) == b""  # the last write end is closed


# --- what becomes of a message ---


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(SET_FEATURES, U64(0).build())], Outcome.ACK),
        ([(SET_FEATURES, U64(5).build())], Outcome.NACK),
        ([(SET_FEATURES, b"")], Outcome.ANSWERED),
        ([], Outcome.IGNORED),
        ([(77, b"")], Outcome.IGNORED),
    ],
)
async def test_what_has_come_before_the_fence_is_the_outcome(
    ends: Ends, answers: list[tuple[int, bytes]], expected: Outcome
) -> None:
    for request, payload in answers:
        ends.say(request, payload)
    ends.say_features()
    assert await ends.session.outcome(SET_FEATURES) is expected
    assert expected.refused == (expected is Outcome.NACK)
    assert [each.request for each in ends.session.strays] == [request for request, _ in answers if request == 77]


async def test_the_outcome_of_the_fence_itself(ends: Ends) -> None:
    ends.say_features()
    ends.say_features()
    assert await ends.session.outcome(GET_FEATURES) is not Outcome.IGNORED
    ends.say_features(5)
    assert await ends.session.ask(GetFeatures(), U64) == U64(5)  # both were read


async def test_hanging_up_is_an_outcome(ends: Ends) -> None:
    ends.hang_up()
    assert await ends.session.outcome(SET_FEATURES) is Outcome.CLOSED
    assert Outcome.CLOSED.refused


async def test_neither_answer_nor_end_is_wedged(ends: Ends) -> None:
    ends.session.patience = SOON
    with pytest.raises(Wedged, match="the answer to GET_FEATURES behind SET_FEATURES"):
        await ends.session.outcome(SET_FEATURES)


async def test_what_has_to_be_accepted_fails_when_it_is_not(ends: Ends) -> None:
    await ends.session.tell(SetFeatures(1))  # nobody can tell without acknowledgements
    ends.session.protocol = ProtocolFeature.REPLY_ACK
    ends.say(SET_FEATURES, U64(0).build())
    await ends.session.tell(SetFeatures(1))
    ends.say(SET_FEATURES, U64(22).build())
    with pytest.raises(Failure, match="SET_FEATURES was acknowledged with 22, expected 0"):
        await ends.session.tell(SetFeatures(1))


async def test_out_of_sync_is_other_features_than_before(ends: Ends) -> None:
    ends.session.offered = 3
    ends.say_features(3)
    await ends.session.in_sync()
    ends.say_features(4)
    with pytest.raises(Failure, match="GET_FEATURES: found 0x4, expected 0x3 as before"):
        await ends.session.in_sync()


async def test_an_answer_is_read_as_what_it_should_be(ends: Ends) -> None:
    ends.say(FrontendRequest.GET_VRING_BASE, VringState(1, 2).build())
    assert (await ends.session.receive()).parse(VringState) == VringState(1, 2)


# --- negotiation ---


def connected(backend: ScriptedBackend) -> Session:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(backend.path)
    sock.setblocking(False)
    return Session(sock, Recorder())


async def test_only_what_is_offered_is_negotiated(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    features = VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES
    with (
        ScriptedBackend(path, ScriptedPeer.run, features=features, protocol_features=ProtocolFeature.REPLY_ACK) as peer,
        connected(peer) as session,
    ):
        await session.negotiate(features | VirtioFeature.EVENT_IDX, ProtocolFeature.REPLY_ACK | ProtocolFeature.MQ)
        assert (session.offered, session.features, session.protocol) == (features, features, ProtocolFeature.REPLY_ACK)
        assert session.acks
        await session.tell(SetVringNum(0, 64))
        session.close()
        assert SetFeatures(features) in peer.join()


async def test_without_bit_30_there_are_no_protocol_features(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    with ScriptedBackend(path, ScriptedPeer.run) as peer, connected(peer) as session:
        await session.negotiate(without=VirtioFeature.PROTOCOL_FEATURES)
        assert (session.features, session.protocol) == (VirtioFeature.VERSION_1, ProtocolFeature(0))
        await session.in_sync()
        session.close()
        names = [type(message).__name__ for message in peer.join()]
        assert names == ["GetFeatures", "SetOwner", "SetFeatures", "GetFeatures"]
