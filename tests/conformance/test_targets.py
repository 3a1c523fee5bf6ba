"""Targets: what can be done with a program that is ours, and with one that is not."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from frontend.conformance.asking import ask, in_words
from frontend.conformance.targets import ConnectedTarget, ProgramTarget, SocketTarget
from tests.conformance.runs import program, run_on, verdicts
from vhostuser.conformance import Unsupported
from vhostuser.conformance.target import NotStarted
from vhostuser.wire.requests import Header, HeaderFlags

HAS_PROC = Path("/proc/self/task").is_dir()
pytestmark = pytest.mark.timeout(60)


async def test_a_program_is_started_when_it_is_dialled_and_again_when_it_was_killed() -> None:
    async with program("good") as target:
        assert (target.pid, target.exited(), await target.knock()) == (None, None, None)
        (await target.dial()).close()
        first = target.pid
        assert target.vitals() is not None
        await target.kill()
        assert target.exited() == -9
        assert target.endings() == []  # it was asked to
        (await target.dial()).close()
        assert target.pid not in (None, first)


async def test_terminate_tells_the_status() -> None:
    async with program("good") as target:
        assert await target.terminate(within=1) is None
        (await target.dial()).close()
        assert await target.terminate(within=30) == -15
    async with program("is deaf") as target:
        (await target.dial()).close()
        assert await target.terminate(within=0.1) is None


async def test_a_program_that_was_about_to_end_when_it_was_dialled_is_started_again() -> None:
    async with program("serves one at a closed door") as target, trio.open_nursery() as nursery:
        first = trio.socket.from_stdlib_socket(await target.dial())
        pid = target.pid
        await first.send(Header(1, HeaderFlags.VERSION_1, 0).build())
        assert await first.recv(1)  # from now on nobody is let in
        nursery.start_soon(dial_and_close, target)
        await trio.testing.wait_all_tasks_blocked()
        assert target.pid == pid
        first.close()
    assert target.endings()[0].status == 0


async def dial_and_close(target: ProgramTarget) -> None:
    (await target.dial()).close()


async def test_a_program_that_is_not_ours_cannot_be_ended() -> None:
    async with program("good") as back_end:
        await back_end.begin()
        assert back_end._now is not None
        target = SocketTarget(back_end._now.path)
        assert (target.ours, target.command, target.exited(), target.printed()) == (False, (), None, "")
        results = await run_on(target, "B-TST-01", "B-TST-09")
        assert verdicts(results) == {"01": "PASS", "09": "UNSUPPORTED"}
        assert not HAS_PROC or target.pid == back_end.pid
        with pytest.raises(Unsupported, match="was not started by us"):
            await target.terminate(within=1)


async def test_a_back_end_of_somebody_else_that_goes_is_a_crash_and_the_rest_is_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with program("dies of features") as back_end:
        await back_end.begin()
        assert back_end._now is not None
        target = SocketTarget(back_end._now.path, start=0.2)
        results = await run_on(target, "B-TST-0[1245]", "B-TST-10")
    assert list(verdicts(results).values()) == ["PASS", "CRASH", "ERROR", "ERROR", "UNSUPPORTED", "SKIP"]
    assert "the target accepts no connection" in results[1].reason


async def test_one_that_serves_a_single_session_for_somebody_else_does_not_start() -> None:
    async with program("serves one") as back_end:
        await back_end.begin()
        assert back_end._now is not None
        with pytest.raises(NotStarted, match="nobody accepts a connection"):  # once it has ended
            await ask(SocketTarget(back_end._now.path, start=0.2))


async def test_a_connected_socket_is_asked_a_little_and_dialled_once() -> None:
    async with program("good") as back_end:
        target = ConnectedTarget(await back_end.dial())
        assert "VERSION_1" in in_words(await ask(target))["virtio features"]
        (await target.dial()).close()
        with pytest.raises(Unsupported, match="one connected socket is one session"):
            await target.dial()


LOOK_FROM_A_CHILD = """
import socket, sys
from frontend.conformance.targets import ConnectedTarget
print(ConnectedTarget(socket.socket(fileno=int(sys.argv[1]))).pid)
"""


def test_who_made_the_sockets_and_started_us_is_not_the_target() -> None:
    """The kernel names that process; and it is busy as long as we are, who are its child."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen = subprocess.run(
            [sys.executable, "-c", LOOK_FROM_A_CHILD, str(ours.fileno())],
            pass_fds=[ours.fileno()],
            capture_output=True,
            text=True,
            check=True,
        )
    assert seen.stdout == "None\n"


async def test_a_connected_socket_without_anybody_does_not_start() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    target = ConnectedTarget(ours)
    with pytest.raises(NotStarted, match="it does not answer"):
        await ask(target)
    target.close()
