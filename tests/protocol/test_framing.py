"""Frames out of a stream: wherever it is cut, whatever stands next to them, and who owns the descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocol.helpers import REGION, crossed, null, request
from vhostuser.errors import Hint, RemoteProtocolError
from vhostuser.protocol import Deframer, Frame
from vhostuser.protocol.framing import DEFAULT_MAX_PAYLOAD
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.requests import HEADER_SIZE, Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message

TABLE = f.SetMemTable((REGION,))


def header(size: int) -> bytes:
    return Header(5, HeaderFlags.VERSION_1, size).build()


def feed(deframer: Deframer, data: bytes) -> list[Frame]:
    """Give a deframer what it asks for out of ``data``, as a reader of a socket does."""
    frames = []
    while data:
        step, data = data[: deframer.needed], data[deframer.needed :]
        frame = deframer.feed(step)
        if frame is not None:
            frames.append(frame)
    return frames


def test_a_deframer_asks_for_a_header_and_then_for_its_payload() -> None:
    deframer = Deframer()
    assert deframer.needed == HEADER_SIZE
    assert deframer.feed(header(40)) is None
    assert deframer.needed == 40
    frame = deframer.feed(bytes(40))
    assert frame is not None
    assert frame.payload == bytes(40)
    assert deframer.needed == HEADER_SIZE


def test_a_message_without_payload_is_whole_after_its_header() -> None:
    frame = Deframer().feed(header(0))
    assert frame is not None
    assert frame.payload == b""


@pytest.mark.parametrize("cut", range(1, len(request(TABLE).build())))
def test_a_message_survives_being_cut_at_any_byte(cut: int) -> None:
    data = request(TABLE).build()
    deframer = Deframer()
    assert feed(deframer, data[:cut]) == []
    assert not deframer.idle
    (frame,) = feed(deframer, data[cut:])
    assert frame.build() == data
    assert deframer.idle


@given(st.lists(st.sampled_from([f.GetFeatures(), f.SetFeatures(7), TABLE]), max_size=5), st.data())
def test_messages_glued_together_come_apart_wherever_the_stream_is_cut(
    messages: list[Message], data: st.DataObject
) -> None:
    stream = b"".join(request(message).build() for message in messages)
    deframer, frames = Deframer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        frames += feed(deframer, stream[:size])
        stream = stream[size:]
    assert [frame.build() for frame in frames] == [request(message).build() for message in messages]


def test_more_than_asked_for_is_refused() -> None:
    with pytest.raises(ValueError, match="13 bytes fed, at most 12"):
        Deframer().feed(bytes(13))


def test_a_payload_at_the_limit_is_read() -> None:
    deframer = Deframer()
    deframer.feed(header(DEFAULT_MAX_PAYLOAD))
    assert deframer.needed == DEFAULT_MAX_PAYLOAD


@pytest.mark.parametrize("size", [DEFAULT_MAX_PAYLOAD + 1, 0xFFFFFFFF])
def test_a_payload_above_the_limit_ends_the_connection_before_it_is_read(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"{size} bytes, limit {DEFAULT_MAX_PAYLOAD}") as caught:
        Deframer().feed(header(size))
    assert caught.value.hint is Hint.CLOSE
    assert caught.value.section == "Header"


def test_descriptors_belong_to_the_message_during_which_they_came() -> None:
    deframer = Deframer()
    first, second = null(1), null(2)
    assert deframer.feed(header(2)[:5], first) is None
    assert deframer.feed(header(2)[5:], second) is None
    frame = deframer.feed(b"xy")
    assert frame is not None
    assert list(frame.fds) == [*first, *second]
    following = deframer.feed(header(0))
    assert following is not None
    assert len(following.fds) == 0
    frame.close()
    assert all(fd.closed for fd in frame.fds)


def test_a_frame_can_be_fed_whole_if_it_is_a_header() -> None:
    frame = crossed(request(f.SetLogFd(), null(1)))
    assert len(frame.fds) == 1
    frame.close()


def test_closing_a_deframer_closes_the_descriptors_of_a_half_read_message() -> None:
    deframer, fds = Deframer(), null(2)
    deframer.feed(header(8), fds)
    deframer.feed(b"abc")
    deframer.close()
    assert all(fd.closed for fd in fds)
    assert deframer.idle
    assert deframer.needed == HEADER_SIZE


def test_a_deframer_is_not_idle_once_descriptors_have_come() -> None:
    deframer = Deframer()
    assert deframer.idle
    deframer.feed(b"", null(1))
    assert not deframer.idle
    deframer.close()


def test_closing_a_frame_twice_does_nothing_more() -> None:
    frame = request(f.SetLogFd(), null(1))
    frame.close()
    frame.close()
    assert all(fd.closed for fd in frame.fds)


def test_a_frame_builds_header_and_payload_in_one_piece() -> None:
    frame = request(f.SetVringNum(1, 256), ack=True)
    assert frame.build() == Header(8, HeaderFlags(9), 8).build() + f.SetVringNum(1, 256).build()
