"""The report for people."""

from __future__ import annotations

import io

import pytest

from tests.conformance.fake_runs import HOSTILE, a_case, a_hostile_run, a_result, a_run
from vhostuser.conformance import Exchange, Grade, Run, Verdict
from vhostuser.conformance.report.text import failure_lines, write


def written(*runs: Run) -> str:
    stream = io.StringIO()
    write(runs, stream)
    return stream.getvalue()


def test_each_result_has_a_line_under_its_group() -> None:
    lines = written(a_run(a_result(Verdict.PASS), a_result(Verdict.PASS, a_case("B-MEM-02")))).splitlines()
    at = lines.index("HDR  Header and framing")
    assert lines[at + 1].split(maxsplit=2) == ["PASS", "B-HDR-01", "A reply repeats the request's number"]
    assert lines[at + 3] == "MEM  Memory table"


def test_a_group_that_nobody_knows_is_its_own_name() -> None:
    assert "\nQQQ  QQQ\n" in written(a_run(a_result(Verdict.PASS, a_case("B-QQQ-01"))))


def test_what_was_not_checked_says_why_at_once_and_is_no_failure() -> None:
    text = written(a_run(a_result(Verdict.SKIP, reason="not offered: LOG_SHMFD")))
    assert "not offered: LOG_SHMFD" in text
    assert "Failures" not in text


def test_the_recap_tells_all_of_a_failure() -> None:
    crashed = a_result(Verdict.CRASH, notes=["the ring stood at 7"], log=[])
    told = written(a_run(crashed)).partition("Failures")[2]
    for line in (
        "  in        reply to GET_FEATURES",
        "  found     CRASH",
        "  expected  0x5",
        "  note      the ring stood at 7",
        "  target    shutdown signal, ended by signal 11",
        "  again     vhost-user conform backend --exec 'disk {socket}' B-HDR-01",
    ):
        assert f"\n{line}\n" in told
    assert "disk: assertion failed" in told


def test_a_reason_that_does_not_contrast_is_told_as_it_is() -> None:
    assert "  reason    it is odd\n" in written(a_run(a_result(Verdict.FAIL, reason="it is odd")))
    assert "  reason    kept what it should have let go\n" in written(a_run(a_result(Verdict.LEAK, reason="")))


def test_a_contrast_without_a_place_has_none() -> None:
    told = written(a_run(a_result(Verdict.FAIL, reason="found 1, expected 2"))).partition("Failures")[2]
    assert "  found     1\n" in told
    assert "  in  " not in told


def test_a_known_issue_that_passes_is_a_failure_and_names_the_entry() -> None:
    told = written(a_run(a_result(Verdict.XPASS))).partition("Failures")[2]
    assert "  known     answers late\n" in told
    told = written(a_run(a_result(Verdict.XPASS, reason=""))).partition("Failures")[2]
    assert "known issue: answers late (https://example.org/1)" in told


def test_only_the_end_of_a_long_log_is_shown_unless_asked() -> None:
    log = [Exchange(seconds=n, connection=0, direction="sent", text=f"message {n}") for n in range(20)]
    result = a_result(Verdict.FAIL, log=log)

    def shown(*, whole: bool) -> list[str]:
        lines = ["".join(piece.text for piece in line) for line in failure_lines(result, whole_log=whole)]
        return [line for line in lines if "message " in line]

    assert [line.split()[-1] for line in shown(whole=False)] == [str(n) for n in range(12, 20)]
    assert len(shown(whole=True)) == 20


def test_the_last_line_counts() -> None:
    assert written(a_run(a_result(Verdict.PASS), a_result(Verdict.FAIL))).splitlines()[-1] == (
        "2 results: 1 PASS, 1 FAIL; 12.5 s"
    )


def test_an_interrupted_run_says_so_even_without_results() -> None:
    text = written(Run(target="", interrupted=True))
    assert "0 results: nothing was run; 0.0 s; INTERRUPTED before the end" in text


def test_several_runs_follow_each_other() -> None:
    text = written(a_run(a_result(Verdict.PASS), target="one"), a_run(a_result(Verdict.PASS), target="two"))
    assert text.index("one") < text.index("1 PASS") < text.index("two")


@pytest.mark.parametrize("verdict", Verdict)
def test_lines_fit_a_terminal(verdict: Verdict) -> None:
    case = a_case(title="word " * 40, provoke="word " * 40)
    text = written(a_run(a_result(verdict, case, reason="word " * 40, log=[], replay="", shutdown=Grade.SLOW)))
    assert max(map(len, text.splitlines())) <= 80


def test_nothing_a_target_prints_reaches_the_terminal() -> None:
    text = written(a_hostile_run())
    assert not {each for each in text if not each.isprintable()} - {"\n"}
    assert "\\x1b[2J\\x00\\u202e\\udc80" in text
    assert HOSTILE not in text
