"""Answers on the back-end's channel: to who waits for one, and to nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from frontend.conformance.channel import channel_pair
from frontend.conformance.log import Recorder
from frontend.conformance.overheard import answering, silent
from vhostuser.fd import Fds
from vhostuser.protocol.framing import Frame
from vhostuser.transport.unix import adopt_channel
from vhostuser.wire.records import U64
from vhostuser.wire.requests import BackendRequest, Header, HeaderFlags

if TYPE_CHECKING:
    from frontend.conformance.channel import BackendChannel
    from vhostuser.transport.channel import Channel

CHANGED, LOOKUP = BackendRequest.CONFIG_CHANGE_MSG, BackendRequest.SHARED_OBJECT_LOOKUP
PLAIN, ASKING = HeaderFlags(1), HeaderFlags(9)


def two_ends() -> tuple[BackendChannel, Channel]:
    """Ours, and the back-end's."""
    ours, fds = channel_pair(Recorder())
    with fds:
        return ours, adopt_channel(fds[0].move())


async def answers(value: int, request: int, flags: HeaderFlags) -> list[int]:
    """What the back-end hears after a request and one more, which asks for an answer in any case."""
    ours, theirs = two_ends()
    heard: list[int] = []
    with ours:
        async with theirs:
            for each, marks in ((request, flags), (CHANGED, ASKING)):
                await theirs.send(Frame(Header(each, marks, 0), b"", Fds()))
                await answering(value)(ours, await ours.receive())
            while True:
                frame = await theirs.receive()
                heard.append(U64.parse(frame.payload).value)
                if frame.header.request == CHANGED:
                    return heard


@pytest.mark.parametrize(
    ("value", "request_code", "flags", "expected"),
    [
        pytest.param(0, LOOKUP, PLAIN, [1, 0], id="a lookup finds nothing"),
        pytest.param(7, LOOKUP, ASKING, [7, 7], id="a lookup is refused"),
        pytest.param(0, CHANGED, PLAIN, [0], id="who asked for nothing gets nothing"),
    ],
)
async def test_an_answer_is_for_who_waits_for_it(
    value: int, request_code: int, flags: HeaderFlags, expected: list[int]
) -> None:
    assert await answers(value, request_code, flags) == expected


async def test_silence_is_an_answer_too() -> None:
    ours, theirs = two_ends()
    with ours:
        async with theirs:
            await theirs.send(Frame(Header(CHANGED, ASKING, 0), b"", Fds()))
            await silent(ours, await ours.receive())
            ours.close()
            with pytest.raises(trio.EndOfChannel):
                await theirs.receive()
