"""Two roles joined back to back: what one sends the other accepts, byte for byte, and both know the same."""

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
    crossed,
    fd_count,
    null,
    ring_addr,
    shared,
)
from tests.protocol.samples import SAMPLES, Sample, name_of
from vhostuser.errors import RemoteProtocolError
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import VringState, XenMemoryRegion, XenMmapFlags

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message

TRANSLATED = FEATURES | V.ACCESS_PLATFORM


def pair_for(sample: Sample) -> ProtocolPair:
    """A pair in which ``sample`` may be sent."""
    pair = ProtocolPair(features=TRANSLATED)
    still = ("DEVICE_STATE", "ENDIAN", "SET_VRING_NUM", "SET_VRING_BASE")
    pair.exchange(CONFIGURED if any(word in sample.name for word in still) else RUNNING)
    pair.exchange([f.SetFeatures(TRANSLATED)])
    return pair


@pytest.mark.parametrize("sample", SAMPLES, ids=name_of)
def test_what_one_role_sends_the_other_accepts_and_the_answer_comes_back(sample: Sample) -> None:
    pair = pair_for(sample)
    received = pair.carry(sample.message, null(sample.fd_count))
    assert received == sample.message
    assert type(received) is type(sample.message)
    reply = pair.answer(received, sample.reply, null(sample.reply_fd_count))
    if sample.reply is None and isinstance(sample.message, f.SetProtocolFeatures):
        assert reply is None, "an acknowledgement of SET_PROTOCOL_FEATURES is not asked for"
    else:
        assert reply is not None
        assert reply.to is sample.message
        assert reply.error == 0
        assert reply.value == sample.reply
        assert len(reply.fds) == sample.reply_fd_count
        reply.check()
        reply.fds.close()
    assert pair.frontend.outstanding == []
    assert shared(pair.frontend.state, 2) == shared(pair.backend.state, 2)


@pytest.mark.parametrize("sample", [each for each in SAMPLES if each.reply is None], ids=name_of)
def test_without_need_reply_there_is_no_answer(sample: Sample) -> None:
    pair = pair_for(sample)
    received = pair.carry(sample.message, null(sample.fd_count), ack=False)
    assert pair.answer(received) is None
    assert pair.frontend.outstanding == []


@pytest.mark.parametrize("sample", [each for each in SAMPLES if each.reply is None], ids=name_of)
def test_a_refusal_comes_back_as_an_error_and_undoes_the_request_on_both_ends(sample: Sample) -> None:
    pair = pair_for(sample)
    before = shared(pair.frontend.state, 2)
    received = pair.carry(sample.message, null(sample.fd_count), ack=True)
    reply = pair.nack(received)
    assert reply.error == 1
    assert shared(pair.frontend.state, 2) == shared(pair.backend.state, 2) == before


def test_a_brought_up_pair_agrees_on_everything() -> None:
    pair = ProtocolPair()
    pair.exchange(RUNNING)
    assert pair.frontend.state.rings[0].running
    assert shared(pair.frontend.state, 2) == shared(pair.backend.state, 2)
    assert pair.frontend.state.offered_features == FEATURES
    assert pair.frontend.state.offered_protocol_features == ALL


def test_a_pair_without_protocol_features_works_too() -> None:
    pair = ProtocolPair(features=V.VERSION_1)
    pair.exchange([f.GetFeatures(), f.SetOwner(), f.SetFeatures(V.VERSION_1), f.SetMemTable((REGION,))])
    pair.exchange([f.SetVringNum(0, 8), ring_addr(), f.SetVringKick.of(0)])
    assert pair.backend.state.rings[0].running
    assert shared(pair.frontend.state, 2) == shared(pair.backend.state, 2)


def test_a_pair_on_xen_speaks_of_longer_regions() -> None:
    pair = ProtocolPair(protocol_features=P.XEN_MMAP | P.REPLY_ACK | P.CONFIGURE_MEM_SLOTS)
    pair.exchange([f.GetFeatures(), f.GetProtocolFeatures()])
    pair.exchange([f.SetProtocolFeatures(P.XEN_MMAP | P.REPLY_ACK | P.CONFIGURE_MEM_SLOTS)])
    regions = [XenMemoryRegion(at, 0x1000, at, 0, XenMmapFlags.GRANT, 1) for at in (0, 0x1000)]
    messages = [f.XenSetMemTable((regions[0],)), f.XenAddMemReg(regions[1]), f.XenRemMemReg(regions[0])]
    for message in messages:
        received = pair.carry(message, null(fd_count(message, pair.frontend.state)))
        assert received == message
        pair.answer(received)
    assert pair.backend.state.regions == (regions[1],)


def test_a_request_refused_in_the_middle_undoes_itself_and_what_leaned_on_it() -> None:
    pair = ProtocolPair()
    pair.exchange(NEGOTIATED)
    before = shared(pair.frontend.state, 2)
    pipelined: list[Message] = [f.SetMemTable((REGION,)), f.RemMemReg(REGION), f.SetVringNum(1, 64)]
    frames = [pair.frontend.request(each, null(fd_count(each, pair.frontend.state))) for each in pipelined]
    assert pair.frontend.outstanding == pipelined

    answers = []
    pair.backend.receive(frames[0])
    frames[0].close()
    answers.append(pair.backend.nack())
    with pytest.raises(RemoteProtocolError, match=r"REM_MEM_REG: found region .* expected one of the regions"):
        pair.backend.receive(frames[1])
    answers.append(pair.backend.nack())
    pair.backend.receive(frames[2])
    answers.append(pair.backend.ack())

    errors = [pair.frontend.receive(crossed(frame)).error for frame in answers if frame]
    assert errors == [1, 1, 0]
    assert shared(pair.frontend.state, 2) == shared(pair.backend.state, 2) != before


def test_a_late_reply_does_not_overwrite_what_was_set_since() -> None:
    pair = ProtocolPair()
    pair.exchange(RUNNING)
    frames = [pair.frontend.request(f.GetVringBase(0)), pair.frontend.request(f.SetVringBase(0, 500), ack=False)]
    stop = pair.backend.receive(frames[0])
    answer = pair.backend.reply(stop, VringState(0, 3))
    pair.backend.receive(frames[1])
    pair.frontend.receive(answer)
    assert pair.frontend.state.rings[0].base == pair.backend.state.rings[0].base == 500
