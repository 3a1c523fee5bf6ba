"""Programs that are started to be tested: what becomes of the words, the socket, and whoever does not listen."""

from __future__ import annotations

import sys
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from frontend.conformance.launch import Launch, connected, substituted, without_socket
from tests.conformance.runs import awful
from vhostuser.conformance import Grade
from vhostuser.conformance.target import NotStarted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

pytestmark = pytest.mark.timeout(60)
START = 30.0
ACCEPTS = "import socket, sys; s, _ = socket.socket(fileno=int(sys.argv[1])).accept(); s.recv(1)"


@asynccontextmanager
async def launched(command: Sequence[str]) -> AsyncIterator[Launch]:
    with tempfile.TemporaryDirectory(prefix="vhu-", dir="/tmp") as folder:
        async with trio.open_nursery() as nursery:
            launch = Launch(command, f"{folder}/s", nursery, scratch=folder)
            try:
                yield launch
            finally:
                await launch.end()


def test_only_what_is_ours_is_substituted() -> None:
    assert substituted(["{socket}", "a={other}"], socket="/s") == ["/s", "a={other}"]


def test_the_command_without_its_socket() -> None:
    assert without_socket(["daemon", "-v", "--socket-path", "{socket}", "x"]) == ["daemon", "-v", "x"]
    assert without_socket(["daemon", "--fd={fd}", "--export", "path={socket}"]) == ["daemon", "--export"]
    assert without_socket(["daemon", "{socket}"]) == ["daemon"]


async def test_it_listens_is_dialled_and_leaves_its_socket() -> None:
    async with launched(awful("good")) as launch:
        await launch.listens(START)
        (await launch.dial(START)).close()
        stopped = await launch.stop(START)
        assert (stopped.grade, stopped.status, stopped.litter) == (Grade.STATUS, -15, ["its socket"])


async def test_an_inherited_socket_is_no_litter() -> None:
    async with launched([sys.executable, "-S", "-E", "-c", ACCEPTS, "{fd}"]) as launch:
        await launch.listens(START)
        (await launch.dial(START)).close()
        assert (await launch.program.ended(START)) is not None
        stopped = await launch.stop(0)
        assert (stopped.grade, stopped.litter) == (Grade.CLEAN, [])


async def test_one_that_does_not_take_connections_from_it_does_not_start() -> None:
    async with launched([sys.executable, "-S", "-E", "-c", "import time; time.sleep(3600)", "{fd}"]) as launch:
        assert launch.knock() is None
        with pytest.raises(NotStarted, match="it does not listen at"):
            await launch.listens(0.05)


async def test_one_that_ends_before_it_listens_says_why() -> None:
    async with launched(awful("dies")) as launch:
        with pytest.raises(NotStarted, match="ended with status 1 before it listened; it printed:\nno configuration"):
            await launch.listens(START)
        with pytest.raises(NotStarted, match="nobody accepts a connection: it ended with status 1"):
            await launch.dial(START)


async def test_one_that_never_listens_is_given_up() -> None:
    async with launched(awful("never listens")) as launch:
        with pytest.raises(NotStarted, match=r"it does not listen at .* and it printed nothing"):
            await launch.listens(0.05)
        with pytest.raises(NotStarted, match="it accepted no connection for"):
            await launch.dial(0.05)


async def test_what_cannot_be_executed_does_not_start() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(NotStarted, match="/nowhere/at-all: No such file"):
            Launch(["/nowhere/at-all", "{socket}"], "/nowhere/s", nursery, scratch="")


async def test_a_program_that_lives_or_failed_has_not_deserted() -> None:
    async with launched(awful("good")) as launch:
        await launch.listens(START)
        launch.check_deserted()
        await launch.end()
        launch.check_deserted()


def test_nobody_listens_where_there_is_nothing() -> None:
    assert connected("/nowhere/at/all") is None
