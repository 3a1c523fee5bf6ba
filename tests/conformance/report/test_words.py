"""Text that is safe to show, and the same words in all reports."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.conformance.fake_runs import a_case, a_result
from vhostuser.conformance import Run, Verdict
from vhostuser.conformance.report.words import MEANINGS, contrast, ending, labels, one_line, printable, why


@given(st.text(st.characters(exclude_categories=())))
def test_printable_text_can_be_encoded_and_acts_on_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert all(each.isprintable() or each in "\n\t" or each.isspace() for each in shown)
    assert "\x1b" not in shown
    assert len(one_line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext é 字 😀", "plain\n\ttext é 字 😀"),
        ("\x1b[0m\r\x7f\x9b", "\\x1b[0m\\x0d\\x7f\\x9b"),
        ("\u202e\u2028\udc80\ufffe", "\\u202e\\u2028\\udc80\\ufffe"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_acts_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_reason_is_taken_apart_where_it_contrasts() -> None:
    assert contrast("ring 2: found 3; expected 4") == ("ring 2", "3", "4")
    assert contrast("found a,\nb, expected c") == ("", "a,\nb", "c")
    assert contrast("it ended") is None
    assert contrast("found 3") is None


def test_every_verdict_has_its_words() -> None:
    assert set(MEANINGS) == set(Verdict)
    assert why(a_result(Verdict.PASS)) == ""
    assert why(a_result(Verdict.SKIP, reason="")) == "not offered, so not checked"


def test_a_known_issue_comes_before_what_was_seen() -> None:
    assert why(a_result(Verdict.XFAIL, reason="late")) == "known issue: answers late (https://example.org/1)\nlate"
    result = a_result(Verdict.PASS)
    result.known = a_result(Verdict.XFAIL).known
    assert why(result) == "known issue: answers late (https://example.org/1)"


@pytest.mark.parametrize(("status", "words"), [(None, ""), (3, "ended with status 3"), (-9, "ended by signal 9")])
def test_how_a_target_ended(status: int | None, words: str) -> None:
    assert ending(a_result(Verdict.PASS, a_case(), exit_status=status)) == words


def test_targets_have_short_names_that_differ() -> None:
    long = "/usr/bin/qemu-storage-daemon --export type=vhost-user-blk,addr.path={socket}"
    targets = [long, long, "passt {socket}", "", " " * 30, "x" * 30]
    assert labels([Run(target=target) for target in targets]) == [
        *("qemu-storage-daemon (1)", "qemu-storage-daemon (2)", "passt {socket}", "target", " " * 23 + "…"),
        "x" * 23 + "…",
    ]
