"""Runs of a few cases against awful back-ends, inside this process."""

from __future__ import annotations

import shlex
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from frontend.conformance.asking import ask
from frontend.conformance.stage import BackendStage
from frontend.conformance.targets import ProgramTarget
from vhostuser.conformance import Failure, Level, Skip, Suite, Unsupported, Wedged
from vhostuser.conformance.known import KnownIssues
from vhostuser.conformance.runner import Options, Runner
from vhostuser.conformance.selection import Selection
from vhostuser.wire.frontend_messages import GetFeatures, SetFeatures
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from frontend.conformance.peer import Peer
    from vhostuser.conformance import Result
    from vhostuser.conformance.case import Check
    from vhostuser.conformance.selection import Turn
    from vhostuser.conformance.target import Subject

AWFUL = Path(__file__).parent / "awful.py"
SUITE = Suite()
F = TypeVar("F", bound="Check")


def awful(behaviour: str) -> list[str]:
    """The command of an awful back-end.  Without site packages, Python is there in a moment."""
    return [sys.executable, "-S", "-E", str(AWFUL), behaviour, "{socket}"]


def awful_line(behaviour: str) -> str:
    """The same for ``--exec``."""
    return shlex.join(awful(behaviour)).replace("'{socket}'", "{socket}")


def _case(number: int, title: str, level: Level = Level.MUST, **more: Any) -> Callable[[F], F]:
    text: dict[str, Any] = {"section": "Tests", "provoke": "see there", "passes": "see there"}
    return SUITE.case(f"B-TST-{number:02}", level=level, title=title, **text, **more)


@_case(1, "asks")
async def asks(peer: Peer) -> None:
    """One question."""
    session = await peer.connect()
    await session.ask(GetFeatures(), U64)
    peer.note("it was asked")


@_case(2, "sets features")
async def sets(peer: Peer) -> None:
    """A message without an answer, and what comes of it."""
    session = await peer.connect()
    await session.send(SetFeatures(1 << 32))
    await session.in_sync()


@_case(3, "takes for ever", seconds=0.2)
async def takes_for_ever(peer: Peer) -> None:
    """Waits for nothing."""
    await trio.sleep_forever()


@_case(4, "recommended", Level.SHOULD)
async def recommended(peer: Peer) -> None:
    """Fails."""
    raise Failure("found 1, expected 2")


@_case(5, "skips")
async def skips(peer: Peer) -> None:
    """Skips."""
    raise Skip("nothing to see")


@_case(6, "cannot look")
async def cannot_look(peer: Peer) -> None:
    """Cannot."""
    raise Unsupported("too dark")


@_case(7, "is wrong itself")
async def is_wrong(peer: Peer) -> None:
    """Has a bug."""
    raise ZeroDivisionError("a bug of the suite")


@_case(8, "fails in two tasks")
async def fails_twice(peer: Peer) -> None:
    """Raises a group."""

    async def fail(error: Exception) -> None:
        raise error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, Failure("of the first"))
        nursery.start_soon(fail, Wedged("of the second"))


@_case(9, "kills")
async def kills(peer: Peer) -> None:
    """Ends the program on purpose, and goes on with the next one."""
    await peer.target.kill()
    await asks(peer)


@_case(10, "passes once in a process", variants=("split", "packed"))
async def both(peer: Peer) -> None:
    """Two variants."""
    await asks(peer)


@_case(11, "sends what is wrong", Level.ROBUSTNESS)
async def wrong(peer: Peer) -> None:
    """Sends a message, and takes the end of the connection for an answer."""
    session = await peer.connect()
    await session.send(SetFeatures(1 << 32))
    await session.closes(within=20)


class Quiet:
    """Watches, and remembers."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begins(self, turn: Turn, number: int, total: int) -> None:
        self.told.append(f"{number}/{total} {turn.name}")

    def ends(self, result: Result) -> None:
        self.told.append(f"{result.name} {result.verdict.value}")


@asynccontextmanager
async def program(behaviour: str, *, start: float = 8.0, ahead: bool = False) -> AsyncIterator[ProgramTarget]:
    """An awful back-end as a target."""
    with tempfile.TemporaryDirectory(prefix="vhu-", dir="/tmp") as name:
        (Path(name) / "scratch").mkdir()
        async with trio.open_nursery() as nursery:
            target = ProgramTarget(awful(behaviour), Path(name), nursery, ahead=ahead, start=start)
            try:
                yield target
            finally:
                await target.close()


async def run_on(
    subject: Subject,
    *patterns: str,
    options: Options = Options(),  # noqa: B008 - immutable
    known: str = "",
) -> list[Result]:
    """The results of these cases."""
    profile = await ask(subject, patience=5.0)
    results: list[Result] = []
    turns = Selection(patterns=patterns).turns(SUITE)
    await runner(subject, BackendStage(subject, profile, patience=1.0), options, known).run(turns, results)
    return results


def runner(subject: Subject, stage: BackendStage, options: Options, known: str = "") -> Runner:
    """A runner that nobody watches."""
    return Runner(
        subject, stage, options, known=KnownIssues.parse(known), watcher=Quiet(), replay=lambda turn: turn.name
    )


async def run_awful(
    behaviour: str,
    *patterns: str,
    options: Options = Options(),  # noqa: B008 - immutable
    known: str = "",
    ahead: bool = False,
) -> list[Result]:
    """The results of these cases against an awful back-end."""
    async with program(behaviour, ahead=ahead) as subject:
        return await run_on(subject, *patterns, options=options, known=known)


def verdicts(results: Sequence[Result]) -> dict[str, str]:
    """By name."""
    return {result.name.removeprefix("B-TST-"): result.verdict.value for result in results}
