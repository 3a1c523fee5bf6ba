"""A back-end process outlives whatever front-ends do to it, and holds nothing of theirs afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.backend.bad_input import CASES, NUM_QUEUES, Bad, says
from tests.backend.process import BackendProcess, Held
from tests.backend.requests import begin, echo
from tests.backend.scripted import RAM_SIZE, reaping
from tests.kinds import NOTIFIERS, event
from vhostuser.fd import Fd
from vhostuser.memory import guard
from vhostuser.memory.backends import MemoryBackendFile
from vhostuser.transport import NotifierKind, channel_pair, event_pair
from vhostuser.transport.notifier import default_kind
from vhostuser.virtqueue.engine import ENGINE
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.requests import FrontendRequest, Header, HeaderFlags
from vhostuser.wire.virtio.blk import BlkType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.queue import Queue
    from tests.backend.scripted import Script

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process holds is counted in /proc")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackendProcess]:
    folder = tmp_path_factory.mktemp("backend")
    with BackendProcess(folder, ["blk", "--memory-size", "1M", "--num-queues", str(NUM_QUEUES)]) as process:
        yield process


@pytest.fixture(scope="module")
def at_rest(backend: BackendProcess) -> Held:
    """What it holds when it serves its first front-end, which has said nothing."""
    return trio.run(backend.held)


@pytest.mark.parametrize("ack", [True, False], ids=["need_reply", "no reply"])
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_bad_input_leaves_nothing_behind(case: Bad, ack: bool, backend: BackendProcess, at_rest: Held) -> None:
    with await backend.connect() as script:
        await case.state(script)
        await script.say(case.say(script, ack))
        with trio.fail_after(10):
            await script.refused()
    assert await backend.held() == at_rest
    assert says(case, backend.log)


@pytest.mark.parametrize("size", range(1, 12))
async def test_a_connection_that_ends_inside_a_message_leaves_nothing_behind(
    size: int, backend: BackendProcess, at_rest: Held
) -> None:
    with await backend.connect() as script:
        await script.negotiate()
        header = Header(FrontendRequest.SET_VRING_ADDR, HeaderFlags.VERSION_1, 40).build()
        await script.say_bytes((header + bytes(40))[: 4 * size])
    assert await backend.held() == at_rest


async def test_a_good_session_takes_what_it_needs_and_gives_it_back(backend: BackendProcess, at_rest: Held) -> None:
    with await backend.connect() as script:
        await script.ready(queues=2)
        # A mapping (and Python's own descriptor of it, before 3.13), kick and call of each ring; and both ends of what
        # stops its thread, where it has one.
        during = backend.held_now()
        assert during.mappings == at_rest.mappings + 1
        of_rings = 4 if ENGINE == "python" else 8
        assert at_rest.fds + of_rings <= during.fds <= at_rest.fds + of_rings + 1
        for index in (0, 1):
            await script.base(index)
        assert backend.held_now().fds == during.fds - of_rings
    assert await backend.held() == at_rest


@pytest.mark.parametrize("kind", NOTIFIERS)
async def test_a_front_end_that_dies_in_the_middle_of_io_leaves_nothing_behind(
    backend: BackendProcess, at_rest: Held, kind: NotifierKind
) -> None:
    for _ in range(5):
        with await backend.connect() as script:
            queue = await with_ring(script, kind)
            for _ in range(queue.queue_size):
                begin(script, queue, bytes(600))
    assert await backend.held() == at_rest


async def test_a_backend_channel_and_err_are_given_back_too(backend: BackendProcess, at_rest: Held) -> None:
    with await backend.connect() as script:
        await script.ready()
        for _ in range(3):  # each in place of the one before
            ours, theirs = channel_pair()
            async with ours, theirs:
                await script.ask(f.SetVringErr.of(0), event())
                await script.ask(f.SetBackendReqFd(), Fd(os.dup(theirs.fileno())))
    assert await backend.held() == at_rest


async def with_ring(script: Script, kind: NotifierKind) -> Queue:
    await script.negotiate()
    await script.share_memory()
    queue = script.make_queue(notifier=kind)
    await script.start(queue)
    return queue


async def test_requests_are_served_after_all_that(backend: BackendProcess) -> None:
    with await backend.connect() as script:
        queue = await with_ring(script, default_kind())
        async with reaping(queue):
            with trio.fail_after(10):
                answer = await echo(script, queue, BlkType.GET_ID.to_bytes(16, "little") + bytes(5))
    assert answer == b"python-vhost-user\0\0\0\0"  # 20 bytes and a status


async def test_a_kick_pipe_whose_writer_is_gone_costs_no_processor_time(backend: BackendProcess) -> None:
    with await backend.connect() as script:
        queue = await with_ring(script, NotifierKind.PIPE)
        queue.kick.close()
        for _ in range(50):  # so that it has looked
            assert await script.alive()
        before = backend.cpu_seconds()
        with trio.move_on_after(0.5):  # the only way to see that somebody does nothing
            await script.hung_up()
        assert backend.cpu_seconds() - before < 0.2


@pytest.mark.skipif(not guard.SUPPORTED, reason="holes in mapped files are survived on Linux, x86_64 and arm64 only")
async def test_memory_that_is_cut_short_under_a_ring_breaks_it_and_kills_nobody(
    backend: BackendProcess, at_rest: Held, tmp_path: Path
) -> None:
    notifier, err = event_pair()
    with notifier, err, await backend.connect() as script:
        # An ordinary file: macOS resizes shared memory once and never again.
        script.use_ram(MemoryBackendFile(size=RAM_SIZE, mem_path=str(tmp_path / "ram"), share=True))
        queue = await script.ready()
        await script.ask(f.SetVringErr.of(0), notifier.duplicate())
        os.ftruncate(script.ram.blocks[0].fd.fileno(), 0)
        queue.notify_device()
        with trio.fail_after(10):
            await err.wait()
        assert await script.alive()
    assert "ring 0 is broken: the front-end cut a memory file short" in backend.log
    assert await backend.held() == at_rest


async def test_a_waiting_front_end_is_served_when_the_one_before_it_leaves(backend: BackendProcess) -> None:
    first, second = await backend.connect(), await backend.connect()
    assert await first.alive()
    first.close()
    assert await second.alive()
    second.close()


async def test_nothing_it_said_was_a_traceback(backend: BackendProcess) -> None:
    assert "Traceback" not in backend.log
    assert backend.running


def test_sigterm_ends_it_cleanly_and_removes_its_socket(tmp_path: Path) -> None:
    with BackendProcess(tmp_path, ["rng"]) as process:
        trio.run(process.held)
        assert process.end() == 0
        assert not process.path.exists()
        assert process.log == ""
