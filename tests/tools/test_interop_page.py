"""What was found gets between the marks, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.fake_runs import a_run
from tests.tools.interop_page import PAGE, with_runs
from vhostuser.conformance.report import save

if TYPE_CHECKING:
    from pathlib import Path

MARKED = "before\n<!-- x: from here -->\nold\n<!-- to here -->\nafter\n"


def test_a_chapter_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    save("json", a_run(), str(tmp_path / "run.json"))
    once = with_runs(MARKED, [str(tmp_path / "run.json")])
    assert once.startswith("before\n<!-- x: from here -->\n\n### Targets by group\n")
    assert once.endswith("\n\n<!-- to here -->\nafter\n")
    assert "old" not in once
    assert with_runs(once, [str(tmp_path / "run.json")]) == once


def test_a_page_without_marks_is_left_alone() -> None:
    with pytest.raises(SystemExit, match="found 0 places"):
        with_runs("before\n", [])


def test_the_page_of_the_documentation_has_them() -> None:
    assert "### Targets by group" in with_runs(PAGE.read_text(encoding="utf-8"), [])
