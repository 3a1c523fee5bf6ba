"""The suite tested by itself: a back-end with one fault is caught by the cases that are about it."""

from __future__ import annotations

import faulthandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.conformance.mutants import Mutant, all_mutants
from tests.conformance.selftest import hunt_all, survived
from tests.conformance.warm import forks

if TYPE_CHECKING:
    from vhostuser.conformance import Result

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the oracles look into /proc"),
]


@pytest.fixture(scope="module")
def hunted(request: pytest.FixtureRequest) -> dict[str, list[Result]]:
    """What is said of the mutants to be tested; of several at once, since one after the other takes thrice as long."""
    faulthandler.cancel_dump_traceback_later()  # this takes minutes, and hangs nowhere
    calls = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    with forks() as forked:
        return trio.run(hunt_all, forked, [call["mutant"] for call in calls if "mutant" in call])


@pytest.mark.parametrize("mutant", all_mutants().values(), ids=list(all_mutants()))
def test_a_mutant_is_caught_by_the_cases_it_names(mutant: Mutant, hunted: dict[str, list[Result]]) -> None:
    results = hunted[mutant.name]
    assert results
    assert not survived(mutant, results), "\n".join(
        f"{each.name}: {each.verdict.value} {each.reason}" for each in results
    )


def test_the_page_of_mutants_has_each_of_them_with_the_cases_that_it_names() -> None:
    lines = (ROOT / "docs" / "conformance-mutants.md").read_text().splitlines()
    said = [line.strip("| ").split(" | ")[:3] for line in lines if line.startswith("| ")][1:]
    ids = {each.name: sorted({case.partition("[")[0] for case in each.caught_by}) for each in all_mutants().values()}
    assert said == [[each.name, each.deviation, ", ".join(ids[each.name])] for each in all_mutants().values()]
