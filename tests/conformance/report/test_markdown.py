"""The chapter of a page: targets side by side, and what was found."""

from __future__ import annotations

import io

import pytest

from tests.conformance.fake_runs import HOSTILE, a_case, a_hostile_run, a_result, a_run
from vhostuser.conformance import Known, Run, Verdict
from vhostuser.conformance.report.markdown import plain, write


def written(*runs: Run) -> str:
    stream = io.StringIO()
    write(runs, stream)
    return stream.getvalue()


def results(*verdicts: Verdict, group: str = "MEM") -> Run:
    cases = [a_case(f"B-{group}-{number:02}") for number in range(1, len(verdicts) + 1)]
    return a_run(*(a_result(verdict, case) for verdict, case in zip(verdicts, cases, strict=True)))


@pytest.mark.parametrize(
    ("verdicts", "score"),
    [
        ([Verdict.PASS, Verdict.REJECT, Verdict.WARN], "3"),
        ([Verdict.PASS, Verdict.XFAIL, Verdict.CRASH, Verdict.SKIP], "**1 of 3**"),
        ([Verdict.SKIP, Verdict.UNSUPPORTED], "-"),
    ],
)
def test_a_group_is_scored_by_what_was_run(verdicts: list[Verdict], score: str) -> None:
    text = written(results(*verdicts))
    assert f"| MEM | Memory table | {score} |" in text
    assert f"|  | all | {score} |" in text


def test_targets_stand_side_by_side_in_the_order_of_the_catalogue() -> None:
    text = written(results(Verdict.PASS, group="SPL"), results(Verdict.PASS, Verdict.FAIL), results(Verdict.PASS))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert table[0] == "|  |  | disk {socket} (1) | disk {socket} (2) | disk {socket} (3) |"
    assert table[2:4] == [
        "| MEM | Memory table | - | **1 of 2** | 1 |",
        "| SPL | Split virtqueues | 1 | - | - |",
    ]


def test_one_known_reason_is_told_once_and_with_its_source() -> None:
    run = results(Verdict.XFAIL, Verdict.XFAIL, Verdict.FAIL, Verdict.XPASS)
    known = Known(cases="B-MEM-*", reason="answers late", link="https://example.org/1")
    for result in run.results:
        result.known = None if result.verdict is Verdict.FAIL else known
    assert written(run).partition("does\n\n")[2].splitlines() == [
        "- B-MEM-01, B-MEM-02: answers late ([source](https://example.org/1))",
        "- B-MEM-03: **FAIL** reply to GET\\_FEATURES: found FAIL, expected 0x5",
        "- B-MEM-04: **XPASS** answers late ([source](https://example.org/1))",
    ]


def test_what_passes_at_times_says_so_and_a_link_is_one_into_the_web() -> None:
    run = results(Verdict.XFAIL, Verdict.WARN)
    run.results[0].known = Known(cases="B-*", reason="a race", link="javascript:alert(1)", flaky=True)
    assert written(run).partition("does\n\n")[2].splitlines() == [
        "- B-MEM-01: a race (at times)",
        "- Not as recommended, or odd: B-MEM-02",
    ]


def test_nothing_found_is_told_too() -> None:
    assert written(results(Verdict.PASS)).endswith("- Everything that was run was as required.\n")


def test_a_group_that_nobody_knows_is_its_own_name_and_comes_last() -> None:
    run = a_run(a_result(Verdict.PASS, a_case("B-QQQ-01")), a_result(Verdict.PASS))
    rows = [line for line in written(run).splitlines() if line.startswith("|")][2:]
    assert rows[:2] == ["| HDR | Header and framing | 1 |", "| QQQ | QQQ | 1 |"]


def test_hostile_text_is_no_markup() -> None:
    text = written(a_hostile_run())
    assert "<" not in text
    assert HOSTILE not in text
    assert plain("a|b [c](d) `e` *f* <g> &\n# h") == "a\\|b \\[c\\](d) \\`e\\` \\*f\\* &lt;g&gt; &amp; \\# h"
