"""Runs of cases against mutants, and against the back-end that has no fault."""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from frontend.conformance.asking import ask
from frontend.conformance.stage import BackendStage
from frontend.conformance.suite import load
from tests.conformance.runs import Quiet
from tests.conformance.warm import WarmTarget
from vhostuser.conformance import Grade, Verdict
from vhostuser.conformance.known import KnownIssues
from vhostuser.conformance.runner import Options, Runner
from vhostuser.conformance.selection import Selection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from frontend.conformance.profile import Profile
    from tests.conformance.mutants import Mutant
    from tests.conformance.warm import Forks
    from vhostuser.conformance import Result

CAUGHT = frozenset({Verdict.FAIL, Verdict.LEAK, Verdict.WEDGED, Verdict.CRASH, Verdict.WARN})
GOOD = frozenset({Verdict.PASS, Verdict.REJECT})
NOT_CHECKED = frozenset({Verdict.SKIP, Verdict.UNSUPPORTED})
"""By a suite that sees a good back-end; anything else is a false alarm."""
SECONDS = 30.0
"""For a case: many times what any takes, because what is slow here is the machine."""
PATIENCE = 5.0
"""Seconds for an answer; some cases wait that long for one that does not come."""
AT_ONCE = 4
"""Mutants."""


@asynccontextmanager
async def target(forks: Forks, *words: str) -> AsyncIterator[WarmTarget]:
    """A back-end: the name of a mutant, or "-", and what to serve."""
    with tempfile.TemporaryDirectory(prefix="vhu-", dir="/tmp") as name:
        async with trio.open_nursery() as nursery:
            program = WarmTarget(forks, [*words, "--socket-path", "{socket}"], Path(name), nursery)
            program.scratch.mkdir()
            try:
                yield program
            finally:
                await program.close()


async def profile_of(forks: Forks, program: Sequence[str]) -> Profile:
    """What the back-end without a fault offers."""
    async with target(forks, "-", *program) as subject:
        return await ask(subject, patience=PATIENCE)


async def run(subject: WarmTarget, profile: Profile, *cases: str, patience: float) -> list[Result]:
    """The results of these cases, each on a program of its own."""
    turns = Selection(patterns=cases, destructive=True).turns(load())
    results: list[Result] = []
    runner = Runner(
        subject,
        BackendStage(subject, profile, patience=patience),
        Options(seconds=SECONDS),
        known=KnownIssues.parse(""),
        watcher=Quiet(),
        replay=lambda turn: turn.name,
    )
    await runner.run(turns, results)
    return results


async def hunt(forks: Forks, mutant: Mutant, profile: Profile, *, patience: float = 1.0) -> list[Result]:
    """What the cases that ``mutant`` names say of it.

    Args:
        patience: seconds for an answer: short, since most of those that do not come never will.
    """
    async with target(forks, mutant.name, *mutant.program) as subject:
        if mutant.offers:
            profile = await ask(subject)
            await subject.stop()
        return await run(subject, profile, *mutant.caught_by, patience=patience)


async def hunt_all(forks: Forks, mutants: Sequence[Mutant]) -> dict[str, list[Result]]:
    """What is said of each, by name.  A few at a time: most of the time is spent waiting for what never comes.

    What survives in this company is hunted once more, alone: some faults have to happen within a look of 0.1 s, and a
    program that waits for a processor does not get to them.
    """
    profiles = {program: await profile_of(forks, program) for program in {each.program for each in mutants}}
    results: dict[str, list[Result]] = {}
    places = trio.Semaphore(AT_ONCE)

    async def one(mutant: Mutant) -> None:
        async with places:
            results[mutant.name] = await hunt(forks, mutant, profiles[mutant.program])

    async with trio.open_nursery() as nursery:
        for mutant in mutants:
            nursery.start_soon(one, mutant)
    for mutant in mutants:
        if survived(mutant, results[mutant.name]):
            await one(mutant)
    return results


async def clear(forks: Forks, program: Sequence[str], profile: Profile, *cases: str) -> list[str]:
    """What these cases find in the back-end without a fault: nothing, or else each finding in words."""
    async with target(forks, "-", *program) as subject:
        results = await run(subject, profile, *cases, patience=PATIENCE)
    return [
        f"{each.name}: {each.verdict.value} {each.reason}"
        for each in results
        if each.verdict not in GOOD | NOT_CHECKED or each.shutdown not in (None, Grade.CLEAN)
    ]


def finding(mutant: Mutant, result: Result) -> str:
    """What a result says against ``mutant``, in a word; "" when it says nothing."""
    if result.verdict in CAUGHT:
        return result.verdict.value
    graded = mutant.grade is not Grade.CLEAN and result.shutdown is mutant.grade
    return f"shutdown: {mutant.grade.value}" if graded else ""


def survived(mutant: Mutant, results: Sequence[Result]) -> set[str]:
    """The cases of which no variant found anything."""
    found = {result.case.id for result in results if finding(mutant, result)}
    return {result.case.id for result in results} - found
