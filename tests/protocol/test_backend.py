"""What a back-end answers, and what it cannot answer twice, early or wrongly."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from tests.protocol.helpers import (
    ALL,
    CONFIGURED,
    FEATURES,
    NEGOTIATED,
    REGION,
    RUNNING,
    backend,
    null,
    request,
)
from tests.protocol.samples import FRONTEND_SAMPLES, Sample, name_of
from vhostuser.errors import Hint, LocalProtocolError, RemoteProtocolError
from vhostuser.protocol import BackendProtocol, Frame
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import U64, Config, ConfigFlags, Opaque, VringState
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message

TRANSLATED = FEATURES | V.ACCESS_PLATFORM

# Decoded and checked, but nothing here can do them yet; how each is refused when no acknowledgement is asked for.
EFFECTS_COME_LATER: dict[str, bytes | None] = {
    "SET_LOG_BASE": None,
    "SET_LOG_FD": None,
    "SEND_RARP": None,
    "NET_SET_MTU": None,
    "IOTLB_MSG": U64(1).build(),
    "SET_VRING_ENDIAN": None,
    "CREATE_CRYPTO_SESSION": None,
    "CLOSE_CRYPTO_SESSION": None,
    "POSTCOPY_ADVISE": None,
    "POSTCOPY_LISTEN": None,
    "POSTCOPY_END": U64(1).build(),
    "GET_INFLIGHT_FD": bytes(24),
    "SET_INFLIGHT_FD": None,
    "GPU_SET_SOCKET": None,
    "GET_SHARED_OBJECT": b"",
    "SET_DEVICE_STATE_FD": U64(0x101).build(),
    "CHECK_DEVICE_STATE": U64(1).build(),
    "GET_SHMEM_CONFIG": None,
}


def received(protocol: BackendProtocol, message: Message, *, ack: bool = False, fds: int = 0) -> Message:
    """``message`` as ``protocol`` reads it, its descriptors closed."""
    frame = request(message, null(fds), ack=ack)
    made = protocol.receive(frame)
    assert all(not fd.closed for fd in frame.fds), "the descriptors of an accepted request are the caller's"
    frame.close()
    return made


@pytest.mark.parametrize("count", [0, 257])
def test_a_back_end_has_1_to_256_queues(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} queues; 1 to 256"):
        BackendProtocol(features=0, protocol_features=P(0), num_queues=count)


@pytest.mark.parametrize(
    ("message", "value"),
    [
        (f.GetFeatures(), FEATURES),
        (f.GetProtocolFeatures(), ALL),
        (f.GetQueueNum(), 2),
        (f.GetMaxMemSlots(), 4),
        (f.GetStatus(), 11),
    ],
)
def test_what_is_known_is_answered_at_once(message: Message, value: int) -> None:
    protocol = backend(*NEGOTIATED, f.SetStatus(11))
    frame = protocol.answer(received(protocol, message))
    assert frame is not None
    assert frame.build() == Header(message.spec.request, HeaderFlags(5), 8).build() + U64(value).build()


def test_what_somebody_has_to_do_is_not() -> None:
    protocol = backend(*NEGOTIATED)
    assert protocol.answer(received(protocol, f.SetStatus(1))) is None


def test_protocol_features_are_offered_only_with_bit_30() -> None:
    protocol = backend(features=V.VERSION_1)
    with pytest.raises(RemoteProtocolError, match="MQ not offered"):
        protocol.receive(request(f.GetQueueNum()))


# --- acknowledgements --------------------------------------------------------------------------------------------


def test_an_acknowledgement_is_sent_when_it_was_asked_for() -> None:
    protocol = backend(*NEGOTIATED)
    received(protocol, f.SetOwner(), ack=True)
    frame = protocol.ack()
    assert frame is not None
    assert frame.build() == Header(3, HeaderFlags(5), 8).build() + bytes(8)
    assert protocol.ack() is None, "once"


def test_an_acknowledgement_is_not_sent_when_nobody_asked() -> None:
    protocol = backend(*NEGOTIATED)
    received(protocol, f.SetOwner())
    assert protocol.ack() is None
    assert protocol.nack() is None


def test_need_reply_means_nothing_before_it_is_negotiated() -> None:
    protocol = backend()
    received(protocol, f.SetOwner(), ack=True)
    assert protocol.ack() is None


def test_set_protocol_features_is_acknowledged_if_it_brings_acknowledgements() -> None:
    protocol = backend()
    received(protocol, f.SetProtocolFeatures(P.REPLY_ACK), ack=True)
    assert protocol.ack() is not None
    received(protocol, f.SetProtocolFeatures(P.MQ), ack=True)
    assert protocol.ack() is None


@pytest.mark.parametrize("refuse", [lambda protocol: protocol.nack(), lambda protocol: protocol.ack(error=1)])
def test_a_request_that_cannot_be_carried_out_is_undone(refuse: object) -> None:
    protocol = backend(*CONFIGURED)
    before = copy.copy(protocol.state)
    received(protocol, f.SetVringKick.of(0), ack=True, fds=1)
    assert protocol.state != before
    assert callable(refuse)
    frame = refuse(protocol)
    assert frame.payload == U64(1).build()
    assert protocol.state == before


def test_a_request_without_an_answer_can_be_undone_too() -> None:
    protocol = backend(*CONFIGURED)
    before = copy.copy(protocol.state)
    received(protocol, f.SetVringKick.of(0), fds=1)
    assert protocol.nack() is None
    assert protocol.state == before


def test_an_error_number_of_ones_own_is_sent_as_it_is() -> None:
    protocol = backend(*NEGOTIATED)
    received(protocol, f.SetOwner(), ack=True)
    frame = protocol.ack(error=22)
    assert frame is not None
    assert frame.payload == U64(22).build()


def test_a_question_wants_more_than_an_acknowledgement() -> None:
    protocol = backend(*NEGOTIATED)
    message = received(protocol, f.GetVringBase(0))
    with pytest.raises(LocalProtocolError, match="found an acknowledgement of GET_VRING_BASE, expected a reply"):
        protocol.ack()
    assert protocol.reply(message, VringState(0, 0)).payload == bytes(8)


@pytest.mark.parametrize("message", [f.GetVringBase(0), f.SetOwner()])
def test_no_request_is_read_while_another_waits_for_its_answer(message: Message) -> None:
    protocol = backend(*NEGOTIATED)
    received(protocol, message, ack=True)
    with pytest.raises(LocalProtocolError, match=f"found {message.spec.name} unanswered"):
        protocol.receive(request(f.GetFeatures()))


# --- replies -----------------------------------------------------------------------------------------------------


def test_a_reply_to_get_vring_base_is_noted() -> None:
    protocol = backend(*RUNNING)
    message = received(protocol, f.GetVringBase(0), ack=True)
    assert not protocol.state.rings[0].started
    frame = protocol.reply(message, VringState(0, 41))
    assert frame.header.flags == 5
    assert protocol.state.rings[0].base == 41


@pytest.mark.parametrize(
    ("asked", "to", "reply", "reason"),
    [
        (f.GetVringBase(0), f.GetVringBase(0), VringState(0, 0), "expected one to the request being handled"),
        (None, f.GetFeatures(), U64(0), "expected one to the request being handled"),
    ],
)
def test_only_the_request_being_handled_is_replied_to(
    asked: Message | None, to: Message, reply: U64 | VringState, reason: str
) -> None:
    protocol = backend(*NEGOTIATED)
    if asked is not None:
        received(protocol, asked)
    with pytest.raises(LocalProtocolError, match=reason):
        protocol.reply(to, reply)


def test_a_reply_has_the_payload_that_the_document_says() -> None:
    protocol = backend(*NEGOTIATED)
    message = received(protocol, f.GetVringBase(0))
    with pytest.raises(LocalProtocolError, match="found U64 as reply to GET_VRING_BASE, expected VringState"):
        protocol.reply(message, U64(0))
    with pytest.raises(LocalProtocolError, match="found ring index 1, expected 0"):
        protocol.reply(message, VringState(1, 0))


def test_a_message_without_a_reply_is_not_replied_to() -> None:
    protocol = backend(*NEGOTIATED)
    message = received(protocol, f.SetOwner())
    with pytest.raises(LocalProtocolError, match="found a reply to SET_OWNER, expected an acknowledgement"):
        protocol.reply(message, U64(0))


def test_a_reply_brings_as_many_descriptors_as_the_document_says() -> None:
    protocol = backend(*NEGOTIATED)
    message = received(protocol, f.GetVringBase(0))
    with null(1) as fds, pytest.raises(LocalProtocolError, match="found 1 file descriptors, expected exactly 0"):
        protocol.reply(message, VringState(0, 0), fds)


def test_the_reply_owns_the_descriptors_given_to_it() -> None:
    protocol = backend(*NEGOTIATED)
    message = received(protocol, f.GetSharedObject(bytes(16)))
    fds = null(1)
    frame = protocol.reply(message, Opaque(b""), fds)
    assert frame.fds is fds
    frame.close()


def test_a_configuration_of_another_size_is_not_sent() -> None:
    protocol = backend(*NEGOTIATED)
    message = received(protocol, f.GetConfig(0, 4, ConfigFlags(0), bytes(4)))
    with pytest.raises(LocalProtocolError, match="found 3 bytes of data, expected as many as its size says, 4"):
        protocol.reply(message, Config(0, 4, ConfigFlags(0), b"abc"))
    frame = protocol.nack()
    assert frame is not None
    assert frame.build() == Header(24, HeaderFlags(5), 0).build()


def test_set_log_base_is_replied_to_only_when_the_log_comes_as_a_descriptor() -> None:
    protocol = backend(*NEGOTIATED, f.SetProtocolFeatures(P.REPLY_ACK))
    received(protocol, f.SetLogBase(0, 0), ack=True)
    assert protocol.ack() is not None
    protocol = backend(*NEGOTIATED)
    message = received(protocol, f.SetLogBase(0, 0), fds=1)
    assert protocol.reply(message, Opaque(bytes(8))).payload == bytes(8)


# --- what is not implemented -------------------------------------------------------------------------------------


def able(sample: Sample) -> BackendProtocol:
    return backend(*CONFIGURED, f.SetFeatures(TRANSLATED), features=TRANSLATED)


@pytest.mark.parametrize("sample", FRONTEND_SAMPLES, ids=name_of)
def test_what_cannot_be_done_yet_is_refused_and_nothing_else(sample: Sample) -> None:
    protocol = able(sample)
    message = received(protocol, sample.message, fds=sample.fd_count)
    if sample.name not in EFFECTS_COME_LATER:
        assert protocol.refusal(message) is None
        return
    payload = EFFECTS_COME_LATER[sample.name]
    if payload is None:
        with pytest.raises(RemoteProtocolError, match=f"{sample.name}: not implemented, and no answer") as caught:
            protocol.refusal(message)
        assert caught.value.hint is Hint.CLOSE
        assert caught.value.section == f"VHOST_USER_{sample.name}"
    else:
        frame = protocol.refusal(message)
        assert frame is not None
        assert frame.build() == Header(message.spec.request, HeaderFlags(5), len(payload)).build() + payload


@pytest.mark.parametrize(
    "sample", [each for each in FRONTEND_SAMPLES if each.name in EFFECTS_COME_LATER and each.reply is None], ids=name_of
)
def test_what_cannot_be_done_yet_is_refused_by_acknowledgement_if_one_was_asked_for(sample: Sample) -> None:
    protocol = able(sample)
    frame = protocol.refusal(received(protocol, sample.message, ack=True, fds=sample.fd_count))
    assert frame is not None
    assert frame.payload == U64(1).build()


def test_a_refused_request_lets_the_next_one_through() -> None:
    protocol = backend(*NEGOTIATED)
    with pytest.raises(RemoteProtocolError):
        protocol.receive(request(f.SetVringNum(9, 8), ack=True))
    assert isinstance(protocol.nack(), Frame)
    assert received(protocol, f.AddMemReg(REGION), fds=1) == f.AddMemReg(REGION)
