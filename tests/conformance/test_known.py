"""Lists of known issues."""

from __future__ import annotations

import datetime

import pytest

from tests.conformance.runs import SUITE
from vhostuser.conformance import Result, Verdict
from vhostuser.conformance.known import KnownIssues, KnownIssuesError

TODAY = datetime.date(2026, 5, 1)
CASE = SUITE.cases["B-TST-10"]


def entry(cases: str, **more: str) -> str:
    fields = {"cases": cases, "reason": "because", **more}
    return "[[known]]\n" + "".join(f'{name} = "{value}"\n' for name, value in fields.items())


def judged(verdict: Verdict, text: str, variant: str = "packed") -> Result:
    result = Result(case=CASE, variant=variant, verdict=verdict, reason="found 1, expected 2")
    KnownIssues.parse(text, today=TODAY).judge(result)
    return result


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.LEAK, Verdict.WEDGED, Verdict.CRASH])
@pytest.mark.parametrize("cases", ["B-TST-10", "B-TST-10[packed]", "B-TST-*", "B-*"])
def test_a_failure_that_is_listed_is_expected(verdict: Verdict, cases: str) -> None:
    result = judged(verdict, entry(cases, link="https://example.org/1"))
    assert result.verdict is Verdict.XFAIL
    assert result.known is not None
    assert result.known.link == "https://example.org/1"
    assert result.notes == [f"known issue, {verdict.value} was expected: because"]


@pytest.mark.parametrize("cases", ["B-TST-10[split]", "B-TST-1", "B-OTHER-*"])
def test_a_failure_that_is_not_listed_stays_one(cases: str) -> None:
    assert judged(Verdict.FAIL, entry(cases)).verdict is Verdict.FAIL


def test_an_error_of_the_suite_is_never_expected() -> None:
    assert judged(Verdict.ERROR, entry("B-TST-10")).verdict is Verdict.ERROR


def test_a_pass_that_is_listed_shows_that_the_list_is_out_of_date() -> None:
    assert judged(Verdict.PASS, entry("B-TST-10")).verdict is Verdict.XPASS
    assert judged(Verdict.SKIP, entry("B-TST-10")).verdict is Verdict.SKIP


def test_a_glob_expects_only_that_some_fail() -> None:
    assert judged(Verdict.PASS, entry("B-TST-*")).verdict is Verdict.PASS


def test_one_reason_may_do_for_several_cases() -> None:
    text = "[[known]]\ncases = ['B-TST-10[split]', 'B-TST-10[packed]']\nreason = 'because'\n"
    assert judged(Verdict.FAIL, text).verdict is Verdict.XFAIL
    assert judged(Verdict.PASS, text).verdict is Verdict.XPASS


def test_what_is_flaky_may_pass_and_may_fail() -> None:
    text = entry("B-TST-10") + "flaky = true\n"
    assert judged(Verdict.PASS, text).verdict is Verdict.PASS
    assert judged(Verdict.FAIL, text).verdict is Verdict.XFAIL


def test_an_entry_for_one_case_goes_before_a_glob() -> None:
    text = entry("B-*", reason="all of it") + entry("B-TST-10", reason="this one")
    known = judged(Verdict.FAIL, text).known
    assert known is not None
    assert known.reason == "this one"


@pytest.mark.parametrize(
    ("until", "verdict"),
    [("2026-05-01", Verdict.FAIL), ("2026-05-02", Verdict.XFAIL), ("10.2", Verdict.XFAIL), ("", Verdict.XFAIL)],
)
def test_an_entry_is_void_from_its_day_on(until: str, verdict: Verdict) -> None:
    assert judged(Verdict.FAIL, entry("B-TST-10", until=until)).verdict is verdict
    assert bool(KnownIssues.parse(entry("B-TST-10", until=until), today=TODAY).void) is (verdict is Verdict.FAIL)


def test_a_date_may_be_a_date_of_toml() -> None:
    text = '[[known]]\ncases = "B-TST-10"\nreason = "x"\nuntil = 2026-04-30\n'
    assert judged(Verdict.FAIL, text).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[known]", "line 1"),
        ("[known]\ncases = 1", "expected an array of tables"),
        ("[issues]", "found issues, expected an array of tables"),
        ("[[known]]\ncases = 'B-*'", "entry 1 of [[known]]: it needs `cases` and `reason`"),
        (
            "[[known]]\nreason = 'B-*'\ncase = 'x'",
            "entry 1 of [[known]]: found case, expected cases, flaky, link, reason",
        ),
        ("[[known]]\ncases = 'x'\nreason = 'x'\nflaky = 1", "entry 1 of [[known]]: found flaky = 1, expected true"),
        ("known = [1]", "entry 1 of [[known]]: found 1, expected a table"),
    ],
)
def test_what_is_no_list_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(KnownIssuesError) as raised:
        KnownIssues.parse(text)
    assert said in str(raised.value)
