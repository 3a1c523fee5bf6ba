"""Whatever a front-end gets wrong: an error with found, expected and section; a nack or the end; no fd left open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.helpers import (
    CONFIGURED,
    FEATURES,
    NEGOTIATED,
    REGION,
    backend,
    null,
    request,
)
from tests.protocol.refusals import assert_goes_on, assert_refused, refused
from tests.protocol.samples import FRONTEND_SAMPLES, Sample, name_of
from vhostuser.errors import Hint, RemoteProtocolError
from vhostuser.protocol import Frame
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import (
    U64,
)
from vhostuser.wire.requests import Header, HeaderFlags

TRANSLATED = FEATURES | V.ACCESS_PLATFORM


# --- headers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 2, 3])
def test_another_version_ends_the_connection(version: int) -> None:
    frame = Frame(Header(1, HeaderFlags(version | HeaderFlags.NEED_REPLY), 0), b"", null(2))
    error = refused(backend(*NEGOTIATED), frame)
    assert str(error) == f"found request 1 of version {version}, expected version 1 [Header]"
    assert error.hint is Hint.CLOSE


def test_a_reply_where_a_request_is_due_ends_the_connection() -> None:
    frame = Frame(Header(2, HeaderFlags(0xD), 8), bytes(8), null(1))
    error = refused(backend(*NEGOTIATED), frame)
    assert "found request 2 marked as a reply, expected a request" in str(error)
    assert error.hint is Hint.CLOSE


@pytest.mark.parametrize("number", [0, 45, 0xFFFFFFFF])
def test_an_unknown_request_is_refused(number: int) -> None:
    protocol = backend(*NEGOTIATED)
    frame = Frame(Header(number, HeaderFlags(0x9), 4), b"what", null(3))
    error = refused(protocol, frame)
    assert str(error) == f"found request {number}, expected one that a front-end sends [Header]"
    assert error.hint is Hint.NACK
    assert_goes_on(protocol, frame, U64(1).build())


def test_an_unknown_request_ends_the_connection_if_no_answer_was_asked_for() -> None:
    protocol = backend(*NEGOTIATED)
    assert refused(protocol, Frame(Header(99, HeaderFlags(1), 0))).hint is Hint.CLOSE
    assert protocol.nack() is None


def test_an_unknown_request_ends_the_connection_if_acknowledgements_were_not_negotiated() -> None:
    assert refused(backend(), Frame(Header(99, HeaderFlags(9), 0))).hint is Hint.CLOSE


def test_unassigned_header_bits_are_passed_over() -> None:
    message = backend().receive(Frame(Header(3, HeaderFlags(0xFFFFFFF1 & ~0xC), 0)))
    assert message == f.SetOwner()


# --- payloads ----------------------------------------------------------------------------------------------------

# The document does not describe the payload of CREATE_CRYPTO_SESSION, so it is kept as it comes.
DESCRIBED = [sample for sample in FRONTEND_SAMPLES if sample.name != "CREATE_CRYPTO_SESSION"]


@pytest.mark.parametrize("sample", DESCRIBED, ids=name_of)
def test_a_payload_that_is_cut_short_is_refused(sample: Sample) -> None:
    features = TRANSLATED if sample.name == "IOTLB_MSG" else FEATURES
    protocol = backend(*NEGOTIATED, f.SetFeatures(features), features=features)
    payload = sample.message.build()
    for size in range(len(payload)):
        if sample.name == "IOTLB_MSG" and size == 26:
            continue  # without the padding that the document does not mention
        frame = Frame(Header(sample.message.spec.request, HeaderFlags(9), size), payload[:size], null(sample.fd_count))
        error = refused(protocol, frame)
        assert error.section == sample.message.spec.section
        answer = protocol.nack()
        assert (answer is not None) == (error.hint is Hint.NACK)
        if answer is None:
            # The connection would be closed; here it begins anew.
            protocol = backend(*NEGOTIATED, f.SetFeatures(features), features=features)


@pytest.mark.parametrize("sample", DESCRIBED, ids=name_of)
def test_a_payload_with_one_byte_more_is_refused(sample: Sample) -> None:
    protocol = backend(*CONFIGURED, f.SetFeatures(TRANSLATED), features=TRANSLATED)
    payload = sample.message.build() + b"\0"
    frame = Frame(Header(sample.message.spec.request, HeaderFlags(9), len(payload)), payload, null(sample.fd_count))
    assert refused(protocol, frame).section == sample.message.spec.section


def test_a_count_of_regions_that_nobody_sends_is_refused_at_once() -> None:
    payload = b"\xff\xff\xff\xff" + bytes(4) + REGION.build()
    frame = Frame(Header(5, HeaderFlags(9), len(payload)), payload, null(1))
    assert refused(backend(*NEGOTIATED), frame).hint is Hint.NACK


@given(
    number=st.integers(0, 50), flags=st.sampled_from([1, 9]), payload=st.binary(max_size=64), count=st.integers(0, 2)
)
def test_no_bytes_at_all_do_more_than_raise_the_one_error(number: int, flags: int, payload: bytes, count: int) -> None:
    protocol = backend(*CONFIGURED)
    frame = Frame(Header(number, HeaderFlags(flags), len(payload)), payload, null(count))
    try:
        protocol.receive(frame)
    except RemoteProtocolError as error:
        hint = error.hint
        assert (protocol.nack() is not None) == (hint is Hint.NACK)
    frame.close()


# --- descriptors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", FRONTEND_SAMPLES, ids=name_of)
def test_descriptors_that_do_not_belong_there_are_refused_and_closed(sample: Sample) -> None:
    protocol = backend(*CONFIGURED, f.SetFeatures(TRANSLATED), features=TRANSLATED)
    surplus = 2 if sample.name == "REM_MEM_REG" else 1
    assert_refused(protocol, sample.message, f"{sample.fd_count + surplus} file desc", sample.fd_count + surplus)


@pytest.mark.parametrize("sample", [each for each in FRONTEND_SAMPLES if each.fd_count], ids=name_of)
def test_descriptors_that_are_missing_are_missed(sample: Sample) -> None:
    assert_refused(backend(*CONFIGURED), sample.message, "0 file descriptors", 0)


def test_a_descriptor_that_the_payload_denies_is_refused() -> None:
    assert_refused(backend(*CONFIGURED), f.SetVringCall.of(0, no_fd=True), "1 file descriptors", 1)


def test_a_descriptor_with_rem_mem_reg_is_tolerated_and_left_to_be_closed() -> None:
    protocol = backend(*CONFIGURED)
    frame = request(f.RemMemReg(REGION), null(1))
    protocol.receive(frame)
    frame.close()
    assert protocol.state.regions == ()


def test_an_error_leaves_no_descriptor_open_however_many_came() -> None:
    fds = null(8)
    refused(backend(), Frame(Header(3, HeaderFlags(1), 0), b"", fds))
    assert all(fd.closed for fd in fds)
