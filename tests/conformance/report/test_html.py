"""The page: what is in it, and that nothing in it is taken for something else."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from tests.conformance.fake_runs import HOSTILE, a_case, a_hostile_run, a_needy_case, a_result, a_run
from vhostuser.conformance import Run, Verdict
from vhostuser.conformance.report.html import write
from vhostuser.conformance.report.words import printable


class Page(HTMLParser):
    """What a browser would make of a page, as far as it matters here.

    Attributes:
        elements: tag and attributes of each, in order.
        texts: what stands in each kind of element.
    """

    def __init__(self, *runs: Run) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        stream = io.StringIO()
        write(runs, stream)
        self.source = stream.getvalue()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = "data" if dict(attrs).get("id") == "data" else tag

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    @property
    def data(self) -> Any:
        return json.loads(self.texts["data"])

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def test_the_page_needs_nothing_from_anywhere() -> None:
    page = Page(a_run())
    assert not [attributes for _, attributes in page.elements if {"src", "srcset"} & attributes.keys()]
    assert {attributes["href"] for _, attributes in page.elements if "href" in attributes} == {"#results"}
    assert "@import" not in page.source
    assert "url(" not in page.texts["style"]


def test_the_policy_allows_this_script_and_this_style_and_no_other() -> None:
    page = Page(a_run())
    (policy,) = [a["content"] for t, a in page.elements if t == "meta" and a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_the_script_never_makes_markup_out_of_text() -> None:
    script = Page(a_run()).texts["script"]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script)


def test_hostile_text_makes_no_elements() -> None:
    ordinary, hostile = Page(a_run()), Page(a_hostile_run())
    assert hostile.tags == ordinary.tags
    assert HOSTILE not in hostile.source
    told = hostile.data["runs"][0]["results"][0]
    assert told["stderr"] == told["log"][0]["text"] == printable(HOSTILE)


def test_markers_in_texts_are_not_filled_in() -> None:
    page = Page(a_run(target="{{script}}{{data}}"))
    assert page.texts["title"] == "Conformance: {{script}}{{data}}"


def test_the_data_has_what_the_script_cannot_know() -> None:
    page = Page(a_run(a_result(Verdict.CRASH, a_needy_case()), a_result(Verdict.PASS, a_case("B-QQQ-01"))))
    run = page.data["runs"][0]
    crashed, passed = run["results"]
    assert crashed["contrast"] == {"what": "reply to GET_FEATURES", "found": "CRASH", "expected": "0x5"}
    assert crashed["ending"] == "shutdown signal, ended by signal 11"
    assert passed["contrast"] is None
    assert run["cases"]["B-SPL-07"]["needs"][0] == "feature RING_PACKED"
    assert page.data["groups"] == {"SPL": "Split virtqueues", "QQQ": ""}
    assert {each["name"]: each["kind"] for each in page.data["verdicts"]}["XPASS"] == "bad"


def test_without_scripts_the_failures_are_text() -> None:
    text = Page(a_run()).texts["pre"]
    assert "FAIL  B-MEM-05 A reply repeats the request's number" in text
    assert "12 results: " in text


@pytest.mark.parametrize("runs", [[], [Run(target="", interrupted=True)], [a_run(interrupted=True), a_run()]])
def test_a_run_that_is_not_whole_makes_a_page(runs: list[Run]) -> None:
    assert [run["interrupted"] for run in Page(*runs).data["runs"]] == [run.interrupted for run in runs]
