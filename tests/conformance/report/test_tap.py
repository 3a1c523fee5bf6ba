"""TAP, checked line by line against the grammar of version 14."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.conformance.fake_runs import a_case, a_hostile_run, a_result, a_run
from vhostuser.conformance import Run, Verdict
from vhostuser.conformance.report.tap import write

POINT = re.compile(
    r"(?P<ok>ok|not ok) (?P<number>\d+) - (?P<name>(?:[^\\#]|\\[\\#])*?)"
    r"(?: # (?P<directive>SKIP|TODO)(?: (?P<reason>(?:[^\\#]|\\[\\#])*))?)?"
)
PLAN = re.compile(r"1\.\.(?P<count>\d+)(?: # SKIP .*)?")


@dataclass
class Point:
    ok: bool
    name: str
    directive: str | None
    reason: str | None
    told: dict[str, object] = field(default_factory=dict)


@dataclass
class Document:
    planned: int = -1
    points: list[Point] = field(default_factory=list)
    subtests: list[Document] = field(default_factory=list)
    bailed_out: bool = False


def parsed(*runs: Run) -> Document:
    stream = io.StringIO()
    write(runs, stream)
    first, *lines = stream.getvalue().removesuffix("\n").split("\n")
    assert first == "TAP version 14"
    return document(lines)


def document(lines: list[str]) -> Document:
    """A document or subtest out of its lines; fails at one that the grammar has not."""
    found = Document()
    while lines:
        line = lines.pop(0)
        if plan := PLAN.fullmatch(line):
            assert found.planned < 0
            found.planned = int(plan["count"])
        elif point := POINT.fullmatch(line):
            assert int(point["number"]) == len(found.points) + 1
            unescaped = re.sub(r"\\(.)", r"\1", point["name"])
            found.points.append(Point(point["ok"] == "ok", unescaped, point["directive"], point["reason"]))
        elif line == "  ---":
            end = lines.index("  ...")
            found.points[-1].told = yaml([each[2:] for each in lines[:end]])
            del lines[: end + 1]
        elif line.startswith("    "):
            inner = [line, *(lines.pop(0) for _ in range(leading(lines)))]
            found.subtests.append(document([each[4:] for each in inner]))
        elif line.startswith("Bail out!"):
            found.bailed_out = True
            assert not lines
        else:
            assert line.startswith("#"), line
    assert found.planned == len(found.points)
    return found


def yaml(lines: list[str]) -> dict[str, object]:
    """Of YAML no more than we need: a mapping of strings, and of lists of strings, each as JSON writes it."""
    told: dict[str, object] = {}
    items: list[str] = []
    for line in lines:
        if item := re.fullmatch(r'  - (".*")', line):
            items.append(json.loads(item[1]))
        elif entry := re.fullmatch(r'([a-z]+): (".*")', line):
            told[entry[1]] = json.loads(entry[2])
        else:
            head = re.fullmatch(r"([a-z]+):", line)
            assert head is not None, line
            items = []
            told[head[1]] = items
    return told


def leading(lines: list[str]) -> int:
    return next((n for n, line in enumerate(lines) if not line.startswith("    ")), len(lines))


DIRECTIVES = {Verdict.SKIP: "SKIP", Verdict.UNSUPPORTED: "SKIP", Verdict.XFAIL: "TODO"}


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_is_ok_or_not(verdict: Verdict) -> None:
    (point,) = parsed(a_run(a_result(verdict))).points
    assert point.ok is not (verdict.bad or verdict is Verdict.XFAIL)
    assert point.directive == DIRECTIVES.get(verdict)


def test_a_failure_is_told_in_yaml() -> None:
    (point,) = parsed(a_run(a_result(Verdict.CRASH, notes=["odd: #1"]))).points
    assert point.told["verdict"] == "CRASH"
    assert point.told["message"] == "reply to GET_FEATURES: found CRASH, expected 0x5"
    assert point.told["notes"] == ["odd: #1"]
    assert point.told["target"] == "shutdown signal, ended by signal 11"
    assert point.told["stderr"] == ["disk: assertion failed"]
    assert isinstance(point.told["wire"], list)


def test_a_quiet_pass_is_one_line_and_one_with_a_note_is_not() -> None:
    quiet, noted = parsed(a_run(a_result(Verdict.PASS), a_result(Verdict.PASS, notes=["odd"]))).points
    assert quiet.told == {}
    assert noted.told["notes"] == ["odd"]
    assert "wire" not in noted.told


def test_a_known_issue_gives_its_reason() -> None:
    (point,) = parsed(a_run(a_result(Verdict.XFAIL))).points
    assert point.reason == "answers late"
    (point,) = parsed(a_run(a_result(Verdict.XFAIL, known=None, reason="too late"))).points
    assert point.reason == "too late"


def test_an_interrupted_run_bails_out_and_an_empty_one_has_a_plan() -> None:
    assert parsed(a_run(a_result(Verdict.PASS), interrupted=True)).bailed_out
    empty = parsed(Run(target=""))
    assert (empty.planned, empty.bailed_out) == (0, False)


def test_several_targets_are_subtests() -> None:
    failed = a_run(a_result(Verdict.FAIL), target="one")
    cut = a_run(a_result(Verdict.PASS), target="two", interrupted=True)
    found = parsed(failed, cut, a_run(a_result(Verdict.PASS), target="three"))
    assert [(point.ok, point.name) for point in found.points] == [(False, "one"), (False, "two"), (True, "three")]
    assert [subtest.planned for subtest in found.subtests] == [1, 1, 1]


def test_a_name_is_escaped() -> None:
    (point,) = parsed(a_run(a_result(Verdict.PASS, a_case(title="bit #5 \\ # TODO no")))).points
    assert (point.name, point.directive) == ("B-HDR-01 bit #5 \\ # TODO no", None)


def test_hostile_text_makes_no_lines() -> None:
    found = parsed(a_hostile_run())
    assert found.planned == len(Verdict)


@settings(max_examples=30)  # each with all verdicts
@given(st.text(st.characters(exclude_categories=())))
def test_any_text_makes_tap(text: str) -> None:
    results = [a_result(verdict, a_case(title=text), reason=text, stderr=text, notes=[text]) for verdict in Verdict]
    assert len(parsed(a_run(*results, target=text)).points) == len(Verdict)
