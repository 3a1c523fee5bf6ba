"""Device state on its way: pipes of any kind, and back-ends that answer SET_DEVICE_STATE_FD in any way."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from frontend.conformance.log import Recorder
from frontend.conformance.session import Session
from frontend.conformance.transfer import LOAD, SAVE, Begun, begin, loaded, read_state, saved, state_pipe
from vhostuser.conformance import Failure, Wedged
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.transport.channel import Channel
from vhostuser.wire.records import DEVICE_STATE_NO_FD, U64
from vhostuser.wire.requests import FrontendRequest, Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SOON = 0.05
"""Patience with somebody who will never come."""
SET, CHECK = FrontendRequest.SET_DEVICE_STATE_FD, FrontendRequest.CHECK_DEVICE_STATE


def reply(request: int, value: int, fds: Fds = NO_FDS) -> Frame:
    payload = U64(value).build()
    return Frame(Header(request, HeaderFlags(5), len(payload)), payload, fds)


class BackEnd:
    """The other end of a session: does with the pipe what the test says."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def pipe(self, value: int = DEVICE_STATE_NO_FD, fds: Fds = NO_FDS) -> Fd:
        """Answer SET_DEVICE_STATE_FD; the descriptor that came with it."""
        asked = await self._channel.receive()
        assert asked.header.request == SET
        await self._channel.send(reply(SET, value, fds))
        return asked.fds[0].move()

    async def checked(self, value: int) -> None:
        """Answer CHECK_DEVICE_STATE."""
        assert (await self._channel.receive()).header.request == CHECK
        await self._channel.send(reply(CHECK, value))


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[Session, BackEnd, trio.Nursery]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with Channel(theirs) as channel, trio.open_nursery() as nursery:
        with Session(ours, Recorder(), patience=5) as session:
            yield session, BackEnd(channel), nursery
        nursery.cancel_scope.cancel()


async def test_state_goes_through_our_pipe_to_its_end() -> None:
    async def save() -> None:
        with await back_end.pipe() as fd:
            os.write(fd.fileno(), b"state")
        await back_end.checked(0)

    async with ends() as (session, back_end, nursery):
        nursery.start_soon(save)
        assert await saved(session) == b"state"


async def test_state_goes_through_the_pipe_that_was_sent_instead() -> None:
    async def save() -> None:
        read_end, write_end = state_pipe()
        (await back_end.pipe(0, Fds.of(read_end))).close()
        with write_end:
            os.write(write_end.fileno(), b"state")

    async with ends() as (session, back_end, nursery):
        nursery.start_soon(save)
        assert await read_state(session) == b"state"


async def test_state_that_the_back_end_did_not_save_is_none() -> None:
    async def save() -> None:
        (await back_end.pipe()).close()
        await back_end.checked(7)

    async with ends() as (session, back_end, nursery):
        nursery.start_soon(save)
        with pytest.raises(Failure, match="found 0x7, expected 0"):
            await saved(session)


async def test_a_refusal_is_told() -> None:
    async def refuse() -> None:
        (await back_end.pipe(0x105)).close()

    async with ends() as (session, back_end, nursery):
        nursery.start_soon(refuse)
        with pytest.raises(Failure, match="found 0x105, expected 0 in the low byte"):
            await read_state(session)


async def test_state_is_loaded_and_what_came_of_it_is_told() -> None:
    async def load() -> None:
        with await back_end.pipe() as fd:
            await trio.lowlevel.wait_readable(fd.fileno())
            assert os.read(fd.fileno(), 100) == b"state"
        await back_end.checked(1)

    async with ends() as (session, back_end, nursery):
        nursery.start_soon(load)
        assert await loaded(session, b"state") == 1


async def test_what_nobody_reads_was_not_wanted() -> None:
    async def close() -> None:
        (await back_end.pipe()).close()
        closed.set()

    async with ends() as (session, back_end, nursery):
        closed = trio.Event()
        nursery.start_soon(close)
        async with begin(session, LOAD) as begun:
            await closed.wait()
            assert not await begun.write(b"state", within=5)


async def test_an_end_that_does_not_come_is_not_waited_for() -> None:
    read_end, write_end = state_pipe()
    with write_end:
        os.write(write_end.fileno(), b"half")
        begun = Begun(DEVICE_STATE_NO_FD, 0, trio.lowlevel.FdStream(read_end.take()))
        with pytest.raises(Wedged, match="4 bytes, and no end of file"):
            await begun.read(within=SOON)
        await begun.stream.aclose()


async def test_a_full_pipe_that_nobody_reads_is_not_waited_for() -> None:
    read_end, write_end = state_pipe(full=True)
    with read_end:
        begun = Begun(DEVICE_STATE_NO_FD, 0, trio.lowlevel.FdStream(write_end.take()))
        with pytest.raises(Wedged, match="did not read 5 bytes"):
            await begun.write(b"state", within=SOON)


async def test_another_reply_is_none() -> None:
    async def mix_up() -> None:
        (await channel.receive()).close()
        await channel.send(reply(CHECK, 0))

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    async with Channel(theirs) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(mix_up)
        with Session(ours, Recorder()) as session, pytest.raises(Failure, match="found one to request 43"):
            async with begin(session, SAVE):
                pass


def test_the_smallest_pipe_is_full_soon() -> None:
    read_end, write_end = state_pipe(smallest=True)
    with read_end, write_end:
        os.set_blocking(write_end.fileno(), False)
        assert os.write(write_end.fileno(), bytes(1 << 20)) <= 65536
