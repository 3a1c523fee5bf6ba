"""The suite tested by itself: cases that catch a mutant find nothing in a back-end without a fault."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.conformance.mutants import all_mutants
from tests.conformance.mutants.registry import BLK, RESUMING, RNG
from tests.conformance.selftest import PATIENCE, clear, profile_of, run, target
from tests.conformance.warm import Forks, forks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from frontend.conformance.profile import Profile

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the oracles look into /proc"),
]
PROGRAMS = {"blk": BLK, "rng": RNG}
NAMED = sorted({case for mutant in all_mutants().values() for case in mutant.caught_by})
"""Cases that must be silent about a good back-end."""


@pytest.fixture(scope="module")
def forked() -> Iterator[Forks]:
    with forks() as made:
        yield made


@pytest.fixture(scope="module")
def profiles(forked: Forks) -> dict[Sequence[str], Profile]:
    """What the back-ends without a fault offer."""
    return {program: trio.run(profile_of, forked, program) for program in PROGRAMS.values()}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=list(PROGRAMS))
@pytest.mark.parametrize("group", sorted({case.split("-")[1] for case in NAMED}))
async def test_a_back_end_without_a_fault_is_clear(
    program: Sequence[str], group: str, forked: Forks, profiles: dict[Sequence[str], Profile]
) -> None:
    cases = [case for case in NAMED if case.startswith(f"B-{group}-")]
    assert await clear(forked, program, profiles[program], *cases) == []


async def test_a_back_end_that_is_killed_goes_on(forked: Forks) -> None:
    async with target(forked, "-", *RESUMING) as subject:
        profile = await profile_of(forked, RESUMING)
        results = await run(subject, profile, "B-INF-11", "B-INF-13", patience=PATIENCE)
    assert {each.name: f"{each.verdict.value} {each.reason}".strip() for each in results} == {
        f"B-INF-{number}[{layout}]": "PASS" for number in (11, 13) for layout in ("split", "packed")
    }
