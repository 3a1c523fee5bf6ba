"""Our end of the back-end channel: requests come in, answers go out, and what is no request is told."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from frontend.conformance.channel import channel_pair
from frontend.conformance.log import Recorder
from frontend.conformance.session import Closed
from vhostuser.conformance import Failure, Wedged
from vhostuser.fd import Fd, Fds
from vhostuser.wire.backend_messages import BackendVringCall
from vhostuser.wire.records import U64
from vhostuser.wire.requests import BackendRequest, Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CALL = BackendRequest.VRING_CALL


class Ends:
    """The channel, and the back-end's end of it."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.channel, theirs = channel_pair(self.recorder)
        with theirs:
            self.other = socket.socket(fileno=theirs[0].take())

    def say(self, request: int, payload: bytes, flags: int = 1) -> None:
        """The back-end asks this."""
        self.other.sendall(Header(request, HeaderFlags(flags), len(payload)).build() + payload)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.channel.close()
    made.other.close()


async def test_a_request_is_received_and_answered_when_it_asks_for_that(ends: Ends) -> None:
    ends.say(CALL, BackendVringCall(3, 0).build(), flags=9)
    message, request = await ends.channel.expect(BackendVringCall)
    assert (message.index, message.num) == (3, 0)
    await ends.channel.reply(request, 7)
    assert ends.other.recv(100) == Header(CALL, HeaderFlags(5), 8).build() + U64(7).build()


async def test_a_request_that_asks_for_no_answer_gets_none_and_its_descriptors_are_closed(ends: Ends) -> None:
    ends.say(CALL, BackendVringCall(0, 0).build())
    _, request = await ends.channel.expect(BackendVringCall)
    read_end, write_end = os.pipe()
    await ends.channel.reply(request, 0, Fds.of(Fd(write_end)))
    assert os.read(read_end, 1) == b"", "the only write end is closed"
    os.close(read_end)
    ends.other.setblocking(False)
    with pytest.raises(BlockingIOError):
        ends.other.recv(1)


@pytest.mark.parametrize(
    ("number", "payload", "flags", "complaint"),
    [
        (BackendRequest.VRING_ERR, bytes(8), 1, "found request 5, expected BACKEND_VRING_CALL"),
        (99, b"", 1, "found request 99"),
        (CALL, bytes(8), 5, "found flags 0x5, expected 0x1 or 0x9"),
        (CALL, bytes(8), 0, "found flags 0x0"),
        (CALL, bytes(7), 1, "BACKEND_VRING_CALL"),
        (CALL, bytes(9), 1, "BACKEND_VRING_CALL"),
    ],
)
async def test_another_request_or_a_malformed_one_is_a_failure(
    ends: Ends, number: int, payload: bytes, flags: int, complaint: str
) -> None:
    ends.say(number, payload, flags)
    with pytest.raises(Failure, match=complaint):
        await ends.channel.expect(BackendVringCall)


async def test_silence_and_the_end_are_told_apart(ends: Ends) -> None:
    with pytest.raises(Wedged, match="BACKEND_VRING_CALL did not come"):
        await ends.channel.expect(BackendVringCall, within=0.01)
    ends.other.close()
    with pytest.raises(Closed):
        await ends.channel.expect(BackendVringCall)


async def test_what_is_said_is_recorded_as_the_back_ends(ends: Ends) -> None:
    ends.say(CALL, BackendVringCall(1, 0).build())
    await ends.channel.expect(BackendVringCall)
    (exchange,) = ends.recorder.finish()
    assert exchange.direction == "received"
    assert "VRING_CALL" in exchange.text
