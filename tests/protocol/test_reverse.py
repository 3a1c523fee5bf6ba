"""The backend channel: a back-end asks, a front-end answers, and nothing said there ends more than it must."""

from __future__ import annotations

import pytest

from tests.protocol.helpers import ALL, FEATURES, NEGOTIATED, RUNNING, ProtocolPair, crossed, null, request, response
from tests.protocol.samples import BACKEND_SAMPLES, BY_NAME, UUID, Sample, name_of
from vhostuser.errors import Hint, LocalProtocolError, RemoteProtocolError
from vhostuser.protocol import Frame
from vhostuser.wire import backend_messages as b
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags

DONE_HERE = {"BACKEND_CONFIG_CHANGE_MSG", "BACKEND_VRING_CALL", "BACKEND_VRING_ERR"}
TRANSLATED = FEATURES | V.ACCESS_PLATFORM


def running_pair() -> ProtocolPair:
    pair = ProtocolPair(features=TRANSLATED)
    pair.exchange([*RUNNING, f.SetFeatures(TRANSLATED)])
    return pair


def test_a_change_of_configuration_space_is_told_and_acknowledged() -> None:
    pair = running_pair()
    received = pair.carry(b.BackendConfigChangeMsg())
    reply = pair.answer(received)
    assert reply is not None
    assert (reply.to, reply.error) == (b.BackendConfigChangeMsg(), 0)
    assert pair.backend_requester.outstanding == []


def test_both_channels_look_at_the_same_negotiation() -> None:
    pair = ProtocolPair()
    pair.exchange([*NEGOTIATED, f.SetProtocolFeatures(ALL & ~P.CONFIG)])
    with pytest.raises(LocalProtocolError, match="BACKEND_CONFIG_CHANGE_MSG: found CONFIG not negotiated"):
        pair.backend_requester.request(b.BackendConfigChangeMsg())
    with pytest.raises(RemoteProtocolError, match="found CONFIG not negotiated"):
        pair.frontend_responder.receive(request(b.BackendConfigChangeMsg()))


def test_a_suspended_back_end_keeps_silent_but_is_heard_if_it_does_not() -> None:
    pair = ProtocolPair()
    pair.exchange(NEGOTIATED)
    with pytest.raises(LocalProtocolError, match="found all rings stopped, expected a started ring"):
        pair.backend_requester.request(b.BackendConfigChangeMsg())
    assert pair.frontend_responder.receive(request(b.BackendConfigChangeMsg())) == b.BackendConfigChangeMsg()


@pytest.mark.parametrize("sample", BACKEND_SAMPLES, ids=name_of)
@pytest.mark.parametrize("ack", [False, True])
def test_what_cannot_be_done_yet_is_refused_and_the_channel_stays(sample: Sample, ack: bool) -> None:
    pair = running_pair()
    responder = pair.frontend_responder
    frame = request(sample.message, null(sample.fd_count), ack=ack)
    message = responder.receive(frame)
    frame.close()
    if sample.name in DONE_HERE:
        assert responder.refusal(message) is None
    elif ack or sample.reply is not None:
        answer = responder.refusal(message)
        assert answer is not None
        assert answer.build() == Header(message.spec.request, HeaderFlags(5), 8).build() + U64(1).build()
    else:
        with pytest.raises(RemoteProtocolError, match=f"{sample.name}: not implemented") as caught:
            responder.refusal(message)
        assert caught.value.hint is Hint.NACK
        assert responder.nack() is None


@pytest.mark.parametrize("ack", [False, True])
def test_an_unknown_request_is_refused_and_the_channel_stays(ack: bool) -> None:
    responder = running_pair().frontend_responder
    frame = Frame(Header(11, HeaderFlags(9 if ack else 1), 3), b"abc", null(2))
    with pytest.raises(RemoteProtocolError, match="found request 11, expected one that a back-end sends") as caught:
        responder.receive(frame)
    assert caught.value.hint is Hint.NACK
    assert all(fd.closed for fd in frame.fds)
    answer = responder.nack()
    assert (answer is not None) == ack
    assert responder.receive(request(b.BackendConfigChangeMsg())) == b.BackendConfigChangeMsg()


def test_another_version_ends_the_channel() -> None:
    with pytest.raises(RemoteProtocolError, match="version 2") as caught:
        running_pair().frontend_responder.receive(Frame(Header(2, HeaderFlags(2), 0)))
    assert caught.value.hint is Hint.CLOSE


def test_a_refusal_on_one_channel_changes_nothing_on_the_other() -> None:
    pair = running_pair()
    received = pair.carry(b.BackendVringErr(0))
    pair.frontend.request(f.SetStatus(7))
    assert pair.nack(received).error == 1
    assert pair.frontend.state.status == 7


def test_a_looked_up_object_comes_with_its_descriptor() -> None:
    pair = running_pair()
    received = pair.carry(b.BackendSharedObjectLookup(UUID))
    reply = pair.answer(received, U64(0), null(1))
    assert reply is not None
    assert (reply.value, reply.error, len(reply.fds)) == (U64(0), 0, 1)
    reply.fds.close()


def test_a_looked_up_object_may_not_be_there() -> None:
    pair = running_pair()
    pair.carry(b.BackendSharedObjectLookup(UUID))
    reply = pair.nack(b.BackendSharedObjectLookup(UUID))
    assert reply.error == 1


@pytest.mark.parametrize("name", ["BACKEND_VRING_CALL", "BACKEND_VRING_ERR"])
@pytest.mark.parametrize("index", [2, 0x100])
def test_a_ring_that_is_not_there_is_refused(name: str, index: int) -> None:
    kind = type(BY_NAME[name].message)
    assert issubclass(kind, b.BackendVringCall | b.BackendVringErr)
    with pytest.raises(LocalProtocolError, match=f"found ring index {index}, expected less than 2"):
        running_pair().backend_requester.request(kind(index))


def test_a_back_end_disbelieves_wrong_answers_too() -> None:
    pair = running_pair()
    pair.backend_requester.request(b.BackendConfigChangeMsg())
    with pytest.raises(RemoteProtocolError, match="expected one to BACKEND_CONFIG_CHANGE_MSG"):
        pair.backend_requester.receive(crossed(response(b.BackendVringCall(0), U64(0))))
