"""Runs through JSON and back, and files that are no reports."""

from __future__ import annotations

import copy
import io
import json
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tests.conformance.fake_runs import a_case, a_hostile_run, a_needy_case, a_result, a_run
from vhostuser.conformance import Case, Exchange, Grade, Known, Level, Need, Result, Run, Verdict
from vhostuser.conformance.report.json_needs import need_words
from vhostuser.conformance.report.json_report import NotAReport, read, to_data, write
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
SECONDS = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
NEEDS = st.one_of(
    st.sampled_from(Need),
    st.integers(0, 2**64 - 1).map(VirtioFeature),
    st.integers(0, 2**64 - 1).map(ProtocolFeature),
)
CASES = st.builds(
    Case,
    id=st.tuples(st.sampled_from(["B-HDR", "F-MEM", "B-QQQ"]), st.integers(0, 99)).map(
        lambda parts: f"{parts[0]}-{parts[1]:02}"
    ),
    level=st.sampled_from(Level),
    title=TEXT,
    section=TEXT,
    rationale=TEXT,
    provoke=TEXT,
    passes=TEXT,
    needs=st.lists(NEEDS, max_size=3).map(tuple),
    absent=st.lists(NEEDS, max_size=3).map(tuple),
    tags=st.frozensets(TEXT, max_size=3),
    destructive=st.booleans(),
    seconds=st.none() | SECONDS,
    variants=st.lists(TEXT, max_size=2).map(tuple),
    manual=st.none() | TEXT,
    check=st.none(),
)
EXCHANGES = st.builds(
    Exchange,
    seconds=SECONDS,
    connection=st.integers(),
    direction=st.sampled_from(["sent", "received", "note"]),
    text=TEXT,
    data=st.binary(max_size=20),
    size=st.integers(0),
    fds=st.lists(TEXT, max_size=2).map(tuple),
)


def results(cases: list[Case]) -> st.SearchStrategy[Result]:
    return st.builds(
        Result,
        case=st.sampled_from(cases),
        variant=TEXT,
        verdict=st.sampled_from(Verdict),
        reason=TEXT,
        notes=st.lists(TEXT, max_size=2),
        log=st.lists(EXCHANGES, max_size=3),
        seconds=SECONDS,
        shutdown=st.none() | st.sampled_from(Grade),
        exit_status=st.none() | st.integers(),
        stderr=TEXT,
        replay=TEXT,
        known=st.none() | st.builds(Known, cases=TEXT, reason=TEXT, link=TEXT, until=TEXT),
    )


@st.composite
def runs(draw: st.DrawFn) -> Run:
    cases = draw(st.lists(CASES, min_size=1, max_size=3, unique_by=lambda case: case.id))
    return draw(
        st.builds(
            Run,
            target=TEXT,
            role=TEXT,
            offered=st.dictionaries(TEXT, TEXT, max_size=3),
            started=TEXT,
            seconds=SECONDS,
            results=st.lists(results(cases), max_size=3),
            interrupted=st.booleans(),
            program=TEXT,
        )
    )


def through_json(found: list[Run]) -> list[Run]:
    stream = io.StringIO()
    write(found, stream)
    assert stream.getvalue().isascii()
    stream.seek(0)
    return read(stream)


@settings(max_examples=25)  # each is a document of many parts
@given(st.lists(runs(), max_size=2))
def test_what_was_written_is_read_back(found: list[Run]) -> None:
    assert through_json(found) == found


def test_a_hostile_run_is_read_back() -> None:
    assert through_json([a_hostile_run()]) == [a_hostile_run()]


def test_counts_and_status_are_there_for_scripts() -> None:
    (told,) = to_data([a_run(a_result(Verdict.PASS), a_result(Verdict.WEDGED))])["runs"]
    assert (told["counts"], told["exit_status"]) == ({"PASS": 1, "WEDGED": 1}, 4)


def test_needs_have_names_in_files_and_words_for_people() -> None:
    case = a_needy_case()
    told = to_data([a_run(a_result(Verdict.PASS, case))])["runs"][0]["cases"]["B-SPL-07"]
    assert told["needs"] == [
        *("virtio:RING_PACKED", "virtio:EVENT_IDX|IN_ORDER", "protocol:MQ", "virtio:bit 55", "need:PROGRAM"),
    ]
    assert [need_words(each) for each in (*case.needs[1:3], *case.needs[4:])] == [
        *("feature EVENT_IDX, IN_ORDER", "protocol feature MQ", "a program that we start ourselves (--exec)"),
    ]


# --- what is no report -----------------------------------------------------------------------------------------------

GOOD = to_data([a_run(a_result(Verdict.XFAIL, a_needy_case()))])


def spoilt(change: Callable[[Any], object]) -> str:
    data = copy.deepcopy(GOOD)
    change(data)
    return refusal(json.dumps(data))


def refusal(text: str) -> str:
    with pytest.raises(NotAReport) as caught:
        read(io.StringIO(text))
    return str(caught.value)


def test_the_good_one_is_good() -> None:
    assert len(read(io.StringIO(json.dumps(GOOD)))) == 1


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": \x00}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    assert refusal(text).startswith("no JSON")


def test_another_document_is_refused() -> None:
    assert refusal("[]") == "the document: found [], expected an object"
    assert refusal("{}") == "the document: found no 'format', expected one"
    assert spoilt(lambda data: data.update(format="junit")) == (
        "format: found 'junit', expected 'vhost-user-conformance'"
    )
    assert spoilt(lambda data: data.update(version=2)) == "version: found 2, expected 1"
    assert spoilt(lambda data: data.update(version=True)) == "the document.version: found True, expected a whole number"


def run_of(data: Any) -> Any:
    return data["runs"][0]


RUN = "the document.runs[0]"
RESULT = f"{RUN}.results[0]"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: run.pop("target"), f"{RUN}: found no 'target', expected one"),
        (lambda run: run.update(results=None), f"{RUN}.results: found None, expected a list"),
        (lambda run: run.update(results=[1]), f"{RESULT}: found 1, expected an object"),
        (lambda run: run.update(seconds="1"), f"{RUN}.seconds: found '1', expected a number"),
        (lambda run: run.update(interrupted=0), f"{RUN}.interrupted: found 0, expected true or false"),
        (lambda run: run.update(offered=[]), f"{RUN}.offered: found [], expected an object"),
        (lambda run: run.update(offered={"a": 1}), f"{RUN}.offered.a: found 1, expected a string"),
        (
            lambda run: run["cases"].update(X=run["cases"]["B-SPL-07"]),
            "case X: found id 'X', expected one like B-HDR-01",
        ),
        (lambda run: run["cases"]["B-SPL-07"].update(needs=[1]), "case B-SPL-07.needs: found 1, expected strings only"),
        (
            lambda run: run["results"][0].update(case="B-X-01"),
            f"{RESULT}: found case 'B-X-01', expected one of those in",
        ),
        (
            lambda run: run["results"][0].update(verdict="GOOD"),
            f"{RESULT}.verdict: found 'GOOD', expected one of PASS, ",
        ),
        (lambda run: run["results"][0].update(known=1), f"{RESULT}.known: found 1, expected an object"),
        (lambda run: run["results"][0]["log"][1].update(data="x"), f"{RESULT}.log[1].data: non-hexadecimal"),
        (lambda run: run.update(target=["x" * 99]), f"{RUN}.target: found ['{'x' * 38}…, expected a string"),
    ],
)
def test_a_report_with_a_wrong_member_is_refused_and_the_place_is_named(
    change: Callable[[Any], object], said: str
) -> None:
    assert spoilt(lambda data: change(run_of(data))).startswith(said)


@pytest.mark.parametrize("need", ["", "virtio", "virtio:FOO", "need:FOO", "virtio:bit 64", "other:MQ", "virtio:bit x"])
def test_a_need_that_we_do_not_know_is_refused(need: str) -> None:
    def change(data: Any) -> None:
        run_of(data)["cases"]["B-SPL-07"]["needs"] = [need] if need else ["x"]

    assert "expected virtio:NAME, protocol:NAME or need:NAME" in spoilt(change)


def test_members_that_we_do_not_know_are_ignored() -> None:
    data = copy.deepcopy(GOOD)
    run_of(data)["colour"] = "red"
    assert read(io.StringIO(json.dumps(data)))[0].target == "disk {socket}"


def test_a_case_without_a_function_can_be_compared() -> None:
    assert through_json([a_run(a_result(Verdict.PASS, a_case()))])[0].results[0].case == a_case()
