"""What a front-end may ask, and which answers it believes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.protocol.helpers import (
    ALL,
    CONFIGURED,
    FEATURES,
    NEGOTIATED,
    REGION,
    RUNNING,
    ProtocolPair,
    null,
    response,
    value_of,
)
from tests.protocol.samples import BY_NAME, UUID
from vhostuser.errors import Hint, LocalProtocolError, RemoteProtocolError
from vhostuser.protocol import Frame, FrontendProtocol, Reply, RequestRefused
from vhostuser.wire import frontend_messages as f
from vhostuser.wire import records as r
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

TRANSLATED = FEATURES | V.ACCESS_PLATFORM


def frontend(*messages: Message, protocol_features: P = ALL) -> FrontendProtocol:
    """A front-end that has gone through ``messages`` with a willing back-end."""
    pair = ProtocolPair(features=TRANSLATED, protocol_features=protocol_features)
    pair.exchange(messages)
    return pair.frontend


def ask(protocol: FrontendProtocol, message: Message, fds: int = 0, *, ack: bool | None = None) -> Frame:
    """Send ``message``, and lose what is sent with it."""
    frame = protocol.request(message, null(fds), ack=ack)
    frame.close()
    return frame


def disbelieved(protocol: FrontendProtocol, frame: Frame) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.receive(frame)
    assert caught.value.hint is Hint.CLOSE
    assert all(fd.closed for fd in frame.fds)
    return caught.value


# --- asking ------------------------------------------------------------------------------------------------------


def test_a_request_owns_the_descriptors_given_to_it() -> None:
    fds = null(1)
    frame = frontend(*NEGOTIATED).request(f.SetMemTable((REGION,)), fds)
    assert frame.fds is fds
    assert frame.payload == f.SetMemTable((REGION,)).build()
    frame.close()


def test_a_request_that_may_not_be_sent_leaves_state_and_descriptors_alone() -> None:
    protocol = frontend(*NEGOTIATED)
    with null(2) as fds:
        with pytest.raises(LocalProtocolError, match="SET_MEM_TABLE: found 2 file descriptors, expected exactly 1"):
            protocol.request(f.SetMemTable((REGION,)), fds)
        assert not any(fd.closed for fd in fds)
    assert protocol.state.regions == ()
    assert protocol.outstanding == []


def test_a_number_that_does_not_fit_is_found_before_anything_is_sent() -> None:
    protocol = frontend(*NEGOTIATED)
    with pytest.raises(LocalProtocolError, match="SET_STATUS: SetStatus") as caught:
        protocol.request(f.SetStatus(-1))
    assert caught.value.section == "VHOST_USER_SET_STATUS"


def test_a_front_end_does_not_send_a_back_ends_requests() -> None:
    with pytest.raises(LocalProtocolError, match="found a front-end sending, expected only a back-end"):
        frontend(*RUNNING).request(BY_NAME["BACKEND_VRING_CALL"].message)


def test_an_acknowledgement_is_asked_for_wherever_it_can_be() -> None:
    protocol = frontend()
    assert not ask(protocol, f.SetOwner()).header.needs_reply
    protocol = frontend(*NEGOTIATED)
    assert ask(protocol, f.SetOwner()).header.needs_reply
    assert not ask(protocol, f.SetOwner(), ack=False).header.needs_reply
    assert not ask(protocol, f.GetFeatures()).header.needs_reply
    assert not ask(protocol, f.SetProtocolFeatures(ALL)).header.needs_reply
    assert protocol.outstanding == [f.SetOwner(), f.GetFeatures()]


def test_an_acknowledgement_cannot_be_asked_for_before_it_is_negotiated() -> None:
    protocol = frontend(f.GetFeatures())
    with pytest.raises(LocalProtocolError, match="SET_OWNER: acknowledgement asked for without REPLY_ACK"):
        protocol.request(f.SetOwner(), ack=True)
    assert not protocol.state.owner
    assert protocol.outstanding == []


def test_set_protocol_features_may_ask_for_an_acknowledgement_if_it_brings_them() -> None:
    protocol = frontend(f.GetFeatures(), f.GetProtocolFeatures())
    assert ask(protocol, f.SetProtocolFeatures(P.REPLY_ACK), ack=True).header.needs_reply
    assert protocol.outstanding == [f.SetProtocolFeatures(P.REPLY_ACK)]


def test_a_question_may_ask_for_an_acknowledgement_on_top_and_gets_one_answer() -> None:
    protocol = frontend(*NEGOTIATED)
    assert ask(protocol, f.GetFeatures(), ack=True).header.needs_reply
    assert value_of(protocol.receive(response(f.GetFeatures(), U64(7)))) == 7
    assert protocol.outstanding == []


# --- believing ---------------------------------------------------------------------------------------------------


def test_answers_belong_to_the_oldest_request() -> None:
    protocol = frontend(*NEGOTIATED)
    ask(protocol, f.GetFeatures())
    ask(protocol, f.SetOwner())
    ask(protocol, f.ResetOwner(), ack=False)
    ask(protocol, f.GetStatus())
    assert [each.spec.name for each in protocol.outstanding] == ["GET_FEATURES", "SET_OWNER", "GET_STATUS"]
    assert protocol.receive(response(f.GetFeatures(), U64(FEATURES))).to == f.GetFeatures()
    assert protocol.receive(response(f.SetOwner(), U64(0))).value is None
    assert value_of(protocol.receive(response(f.GetStatus(), U64(3)))) == 3
    assert protocol.outstanding == []


def test_a_refusal_is_raised_with_name_and_number_when_it_is_looked_at() -> None:
    protocol = frontend(*CONFIGURED)
    ask(protocol, f.SetStatus(4))
    reply = protocol.receive(response(f.SetStatus(4), U64(0x16)))
    with pytest.raises(RequestRefused, match="SET_STATUS was refused with 0x16") as caught:
        reply.check()
    assert (caught.value.request, caught.value.value) == ("SET_STATUS", 0x16)
    assert protocol.state.status == 0


def test_looking_at_a_refusal_closes_what_came_with_it() -> None:
    fds = null(1)
    with pytest.raises(RequestRefused):
        Reply(f.GetSharedObject(UUID), None, 1, fds).check()
    assert fds[0].closed


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (Header(3, HeaderFlags(5), 8), "found a reply to request 3, expected one to GET_FEATURES"),
        (Header(1, HeaderFlags(4), 8), "found version 0, expected version 1"),
        (Header(1, HeaderFlags(6), 8), "found version 2, expected version 1"),
        (Header(1, HeaderFlags(1), 8), "found request 1, expected a reply"),
    ],
)
def test_an_answer_that_does_not_fit_the_oldest_request_ends_the_connection(header: Header, reason: str) -> None:
    protocol = frontend(*NEGOTIATED)
    ask(protocol, f.GetFeatures())
    ask(protocol, f.SetOwner())
    error = disbelieved(protocol, Frame(header, bytes(8), null(1)))
    assert error.reason.startswith(reason)
    assert error.section == "Header"


def test_an_answer_that_nobody_waits_for_ends_the_connection() -> None:
    error = disbelieved(frontend(*NEGOTIATED), response(f.SetOwner(), U64(0), null(2)))
    assert "expected none, nothing having been asked" in str(error)


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (f.GetFeatures(), r.Opaque(bytes(7))),
        (f.GetFeatures(), r.Opaque(bytes(9))),
        (f.GetFeatures(), r.Empty()),
        (f.SetOwner(), r.Empty()),
        (f.SetOwner(), r.Opaque(bytes(12))),
        (f.GetVringBase(1), r.VringState(0, 0)),
        (f.GetVringBase(1), r.U64(1 << 32)),
        (f.GetConfig(0, 4, data=bytes(4)), r.Config(0, 3, r.ConfigFlags(0), b"abc")),
        (f.GetConfig(0, 4, data=bytes(4)), r.Config(0, 4, r.ConfigFlags(0), b"abc")),
        (f.GetConfig(0, 4, data=bytes(4)), r.Opaque(bytes(11))),
        (f.GetInflightFd(0, 0, 1, 8), r.Opaque(bytes(20))),
        (f.GetShmemConfig(), r.Opaque(bytes(8))),
        (f.PostcopyAdvise(), r.U64(0)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_reply_of_another_shape_ends_the_connection(message: Message, reply: Structure) -> None:
    protocol = frontend(*NEGOTIATED)
    ask(protocol, message)
    error = disbelieved(protocol, response(message, reply))
    assert error.reason.startswith(f"reply to {message.spec.name}: ")
    assert error.section == message.spec.section


@pytest.mark.parametrize("size", [0, 8, 16])
def test_set_log_base_is_replied_to_with_what_peers_reply(size: int) -> None:
    protocol = frontend(*NEGOTIATED)
    ask(protocol, f.SetLogBase(4096, 0), 1)
    reply = protocol.receive(response(f.SetLogBase(4096, 0), r.Opaque(bytes([9] * size))))
    assert (reply.value, reply.error) == (r.Opaque(bytes([9] * size)), 0)


def test_set_log_base_is_not_replied_to_with_anything_else() -> None:
    protocol = frontend(*NEGOTIATED)
    ask(protocol, f.SetLogBase(4096, 0), 1)
    error = disbelieved(protocol, response(f.SetLogBase(4096, 0), r.Opaque(bytes(12))))
    assert error.reason == "reply to SET_LOG_BASE: found 12 bytes, expected 0, 8 or 16"


# --- replies that say no -----------------------------------------------------------------------------------------

INFLIGHT = f.GetInflightFd(0, 0, 1, 8)
STATE = f.SetDeviceStateFd(r.TransferDirection.SAVE, r.TransferPhase.STOPPED)


@pytest.mark.parametrize(
    ("message", "reply", "fds", "error"),
    [
        (f.GetConfig(0, 4, data=bytes(4)), r.Empty(), 0, 1),
        (f.GetConfig(0, 4, data=bytes(4)), r.Config(0, 0, r.ConfigFlags(0), b""), 0, 1),
        (f.PostcopyEnd(), U64(0), 0, 0),
        (f.PostcopyEnd(), U64(5), 0, 5),
        (f.CheckDeviceState(), U64(2), 0, 2),
        (BY_NAME["IOTLB_MSG"].message, U64(3), 0, 3),
        (INFLIGHT, r.Inflight(0, 0, 1, 8), 0, 1),
        (INFLIGHT, r.Inflight(4096, 0, 1, 8), 1, 0),
        (f.GetSharedObject(UUID), r.Empty(), 0, 1),
        (f.GetSharedObject(UUID), r.Opaque(UUID), 1, 0),
        (STATE, U64(0x100), 0, 0),
        (STATE, U64(0), 1, 0),
        (STATE, U64(0x101), 0, 1),
        (STATE, U64(0x16), 0, 0x16),
    ],
)
def test_a_reply_can_say_no_in_its_own_words(message: Message, reply: Structure, fds: int, error: int) -> None:
    protocol = frontend(*NEGOTIATED, f.SetFeatures(TRANSLATED))
    ask(protocol, message, BY_NAME[message.spec.name].fd_count)
    answer = protocol.receive(response(message, reply, null(fds)))
    assert answer.error == error
    assert len(answer.fds) == fds
    answer.fds.close()


@pytest.mark.parametrize(
    ("message", "reply", "fds"),
    [
        (f.GetFeatures(), U64(0), 1),
        (f.SetOwner(), U64(0), 1),
        (f.PostcopyAdvise(), r.Empty(), 0),
        (f.PostcopyAdvise(), r.Empty(), 2),
        (INFLIGHT, r.Inflight(4096, 0, 1, 8), 2),
        (STATE, U64(0), 0),
        (STATE, U64(0x100), 1),
        (STATE, U64(0x101), 1),
        (STATE, U64(1), 1),
    ],
)
def test_a_reply_with_too_many_or_too_few_descriptors_ends_the_connection(
    message: Message, reply: Structure, fds: int
) -> None:
    protocol = frontend(*NEGOTIATED)
    ask(protocol, message, BY_NAME[message.spec.name].fd_count)
    assert f"found {fds} file descriptors" in str(disbelieved(protocol, response(message, reply, null(fds))))


def test_requests_before_the_reply_of_get_features_know_no_offer() -> None:
    protocol = FrontendProtocol()
    ask(protocol, f.GetFeatures())
    with pytest.raises(LocalProtocolError, match="PROTOCOL_FEATURES not offered"):
        protocol.request(f.GetProtocolFeatures())
