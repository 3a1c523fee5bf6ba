"""The page with every requirement."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from frontend.conformance.catalogue import requirements
from frontend.conformance.coverage_page import main, page
from frontend.conformance.suite import load

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def rows() -> dict[str, list[str]]:
    return {row[0]: row for line in page().splitlines() if (row := line.strip("| ").split(" | "))[0].startswith("B-")}


def test_every_requirement_has_its_row() -> None:
    found = rows()
    assert list(found) == requirements()
    assert found["B-HDR-02"] == ["B-HDR-02", "must", "A reply has bit 2 of the flags set", "Header"]


def test_what_is_not_tested_says_why() -> None:
    manual = [case for case in load().cases.values() if case.manual is not None]
    assert manual
    for case in manual:
        assert "<br>*by hand:* " in rows()[case.id][2]


def test_the_numbers_of_the_summary_add_up() -> None:
    total = re.search(r"^\|  \| all \| (\d+) \| (\d+) \| (\d*) \|( (\d*) \|)?$", page(), re.MULTILINE)
    assert total is not None
    counts = [int(each or 0) for each in (total[1], total[2], total[3], total[5])]
    assert counts[0] == len(requirements()) == sum(counts[1:])


def test_a_page_that_is_not_fresh_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == page()
    assert main(["--check", f"{tmp_path}/none.md"]) == 1
    assert "is stale: python -m frontend.conformance.coverage_page" in capsys.readouterr().err
    assert main(["what"]) == 2
