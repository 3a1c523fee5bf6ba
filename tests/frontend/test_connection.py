"""Verbs and answers: who gets which, and what becomes of them when the back-end does something else."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
import trio
import trio.testing

from frontend import BackendGone, Frontend, RequestRefused
from frontend.connection import SEND_TIMEOUT
from tests.frontend.far_ends import OFFERED, PROTOCOL_FEATURES, connected, negotiated, response
from tests.kinds import event
from vhostuser.errors import LocalProtocolError
from vhostuser.fd import Fd, Fds
from vhostuser.transport import Channel
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.records import U64, Config, ConfigFlags, Empty, Inflight, VringState


async def test_answers_belong_to_the_questions_in_their_order() -> None:
    async with connected() as (frontend, far_end), trio.open_nursery() as nursery:
        found: dict[str, int] = {}

        async def ask(name: str) -> None:
            found[name] = int(await (frontend.get_features() if name == "features" else frontend.get_queue_num()))

        nursery.start_soon(far_end.answer, 2)
        await ask("features")
        await frontend.get_protocol_features()
        nursery.start_soon(far_end.answer, 3)
        for name in ("features", "queues", "features"):
            nursery.start_soon(ask, name)
    assert found == {"features": OFFERED, "queues": 2}


async def test_values_and_records_come_back_as_what_they_are() -> None:
    async with negotiated() as (frontend, far_end), trio.open_nursery() as nursery:

        async def answer() -> None:
            await far_end.reply(await far_end.take(), Config(3, 2, ConfigFlags(0), b"xy"))
            await far_end.reply(await far_end.take(), VringState(1, 77))

        nursery.start_soon(answer)
        assert await frontend.get_config(3, 2) == b"xy"
        assert await frontend.get_vring_base(1) == 77


# --- refusals ------------------------------------------------------------------------------------------------------


async def test_a_refused_request_raises_and_the_connection_goes_on() -> None:
    async with negotiated() as (frontend, far_end), trio.open_nursery() as nursery:

        async def answer() -> None:
            await far_end.refuse(await far_end.take())
            await far_end.reply(await far_end.take(), Empty())
            await far_end.answer()

        nursery.start_soon(answer)
        with pytest.raises(RequestRefused, match="SET_VRING_NUM was refused with 0x1"):
            await frontend.set_vring_num(0, 8)
        with pytest.raises(RequestRefused, match="GET_CONFIG was refused"):
            await frontend.get_config(0, 8)
        assert await frontend.get_features() == OFFERED


async def test_a_message_that_may_not_be_sent_is_not_sent_and_its_descriptors_are_closed() -> None:
    async with negotiated() as (frontend, far_end), trio.open_nursery() as nursery:
        fd = event()
        with pytest.raises(LocalProtocolError, match="without a size"):
            await frontend.set_vring_kick(0, fd)
        assert fd.closed
        nursery.start_soon(far_end.answer)
        assert await frontend.get_features() == OFFERED


# --- the back-end goes away ----------------------------------------------------------------------------------------


async def test_whoever_waits_and_whoever_asks_later_is_told_that_the_backend_is_gone() -> None:
    async with connected() as (frontend, far_end), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(BackendGone, match="the back-end closed the connection"):
                await frontend.get_features()

        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            await far_end.channel.receive()
        await far_end.channel.aclose()
    with pytest.raises(BackendGone, match="the back-end closed the connection"):
        await frontend.get_features()


async def test_an_answer_to_something_else_ends_the_connection() -> None:
    async with connected() as (frontend, far_end), trio.open_nursery() as nursery:

        async def answer() -> None:
            await far_end.take()
            await far_end.channel.send(response(f.GetQueueNum(), U64(1)))

        nursery.start_soon(answer)
        with pytest.raises(BackendGone, match="found a reply to request 17, expected one to GET_FEATURES"):
            await frontend.get_features()


async def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    async with connected() as (frontend, far_end):
        await far_end.channel.send(response(f.GetFeatures(), U64(1)))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(BackendGone, match="nothing having been asked"):
            await frontend.get_features()


async def test_half_an_answer_ends_the_connection() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    async with Frontend(Channel(ours)) as frontend, trio.open_nursery() as nursery:

        async def run() -> None:
            with contextlib.suppress(BackendGone):
                await frontend.run()

        nursery.start_soon(run)
        theirs.send(response(f.GetFeatures(), U64(1)).build()[:-1])
        theirs.close()
        with pytest.raises(BackendGone, match="the connection is lost: "):
            await frontend.get_features()


async def test_a_question_into_a_broken_connection_is_told_so() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.close()
    async with Frontend(Channel(ours)) as frontend:
        with pytest.raises(BackendGone, match="the connection is lost"):
            await frontend.get_features()
        with pytest.raises(BackendGone, match="the connection is lost"):
            await frontend.set_owner()


async def test_a_backend_that_reads_nothing_counts_as_gone_after_a_while(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(BlockingIOError):
        while ours.send(bytes(1024), socket.MSG_DONTWAIT):
            pass
    with theirs:
        async with Frontend(Channel(ours)) as frontend:
            before = trio.current_time()
            with pytest.raises(BackendGone, match="the back-end read nothing for 5"):
                await frontend.get_features()
            assert trio.current_time() - before == pytest.approx(SEND_TIMEOUT)
            with pytest.raises(BackendGone):
                await frontend.get_features()


async def test_nobody_is_left_waiting_when_the_reader_is_cancelled() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        async with Frontend(Channel(ours)) as frontend, trio.open_nursery() as nursery:
            reader = trio.CancelScope()

            async def run() -> None:
                with reader:
                    await frontend.run()

            async def ask() -> None:
                with pytest.raises(BackendGone, match="nobody reads this connection any more"):
                    await frontend.get_features()

            nursery.start_soon(run)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            reader.cancel()


# --- cancellation --------------------------------------------------------------------------------------------------


async def test_a_verb_that_is_cancelled_leaves_the_connection_usable() -> None:
    async with negotiated() as (frontend, far_end), trio.open_nursery() as nursery:
        with trio.move_on_after(0.01) as scope:
            await frontend.get_config(0, 1)
        assert scope.cancelled_caught
        nursery.start_soon(far_end.reply, await far_end.take(), Config(0, 1, ConfigFlags(0), b"!"))
        nursery.start_soon(far_end.answer)
        assert await frontend.get_features() == OFFERED


async def test_a_verb_that_is_cancelled_while_it_waits_for_its_turn_was_never_said() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        async with Frontend(Channel(ours)) as frontend:
            fd = event()
            async with frontend._turn:
                with trio.move_on_after(0):
                    await frontend.call(f.SetOwner(), Fds.of(fd))
            assert fd.closed
        theirs.setblocking(False)
        assert theirs.recv(100) == b""


async def test_descriptors_that_come_for_nobody_are_closed() -> None:
    async with negotiated() as (frontend, far_end), trio.open_nursery() as nursery:
        everything = PROTOCOL_FEATURES | ProtocolFeature.INFLIGHT_SHMFD
        for state in (frontend.protocol.state, far_end.protocol.state):
            state.protocol_features = everything
        question = f.GetInflightFd(0, 0, 1, 8)
        with trio.move_on_after(0.01):
            await frontend.call(question)
        reader, writer = os.pipe()
        await far_end.take()
        await far_end.reply(question, Inflight(4096, 0, 1, 8), Fds.of(Fd(writer)))
        nursery.start_soon(far_end.answer)
        await frontend.get_features()
        assert os.read(reader, 1) == b""  # its write end is closed everywhere
        os.close(reader)
