"""JUnit XML, read back by a parser that knows nothing of us."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.conformance.fake_runs import a_hostile_run, a_result, a_run
from vhostuser.conformance import Run, Verdict
from vhostuser.conformance.report.junit import write

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def parsed(*runs: Run) -> Element:
    stream = io.StringIO()
    write(runs, stream)
    return ElementTree.fromstring(stream.getvalue().encode())


def only_case(run: Run) -> Element:
    (case,) = parsed(run).iter("testcase")
    return case


def test_counts_are_those_of_the_elements() -> None:
    root = parsed(a_run())
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "12",
        "5",
        "1",
        "3",
    )
    assert {name: root.get(name) for name in ("tests", "failures")} == {"tests": "12", "failures": "5"}


OUTCOMES = {
    Verdict.PASS: None,
    Verdict.REJECT: None,
    Verdict.WARN: None,
    Verdict.SKIP: "skipped",
    Verdict.UNSUPPORTED: "skipped",
    Verdict.FAIL: "failure",
    Verdict.LEAK: "failure",
    Verdict.WEDGED: "failure",
    Verdict.CRASH: "failure",
    Verdict.XFAIL: "skipped",
    Verdict.XPASS: "failure",
    Verdict.ERROR: "error",
}


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_becomes_what_junit_has_for_it(verdict: Verdict) -> None:
    case = only_case(a_run(a_result(verdict)))
    tags = [child.tag for child in case if not child.tag.startswith("system-")]
    assert tags == ([OUTCOMES[verdict]] if OUTCOMES[verdict] else [])


def test_a_failure_says_what_kind_and_how_to_see_it_again() -> None:
    failure = only_case(a_run(a_result(Verdict.WEDGED))).find("failure")
    assert failure is not None
    assert failure.get("type") == "WEDGED"
    assert failure.get("message") == "reply to GET_FEATURES: found WEDGED, expected 0x5"
    assert "again: vhost-user conform backend" in (failure.text or "")
    bare = only_case(a_run(a_result(Verdict.FAIL, replay=""))).find("failure")
    assert bare is not None
    assert "again" not in (bare.text or "")


def test_a_warning_passes_and_is_told() -> None:
    assert "WARN: reply to GET_FEATURES" in (only_case(a_run(a_result(Verdict.WARN))).findtext("system-out") or "")


def test_what_a_target_printed_and_how_it_ended_is_kept() -> None:
    case = only_case(a_run(a_result(Verdict.CRASH, notes=["odd"])))
    assert case.findtext("system-err") == "disk: assertion failed\n"
    out = case.findtext("system-out") or ""
    assert "note: odd\ntarget: shutdown signal, ended by signal 11\n" in out
    assert "> GET_FEATURES" in out


def test_a_run_is_described_by_properties() -> None:
    properties = {each.get("name"): each.get("value") for each in parsed(a_run()).iter("property")}
    assert properties["role"] == "backend"
    assert properties["offered.device type"] == "blk"
    assert properties["interrupted"] == "false"


def test_an_interrupted_run_has_an_error() -> None:
    case = only_case(Run(target="", interrupted=True))
    assert [child.get("type") for child in case] == ["INTERRUPTED"]
    assert parsed(Run(target="", interrupted=True))[0].get("timestamp") is None


def test_each_target_is_a_suite() -> None:
    assert [suite.get("name") for suite in parsed(a_run(target="one"), a_run(target="two"))] == ["one", "two"]


def test_hostile_text_stays_text() -> None:
    root = parsed(a_hostile_run())
    assert {element.tag for element in root.iter()} == {
        *("testsuites", "testsuite", "properties", "property", "testcase"),
        *("failure", "error", "skipped", "system-out", "system-err"),
    }
    assert "\\x1b[2J\\x00" in (root.findtext(".//system-err") or "")


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_makes_xml(text: str) -> None:
    parsed(a_run(a_result(Verdict.FAIL, reason=text, stderr=text, notes=[text], variant=text), target=text))
