"""One well-tested package does not pay for another."""

import json
from pathlib import Path

import pytest

from tests.tools.coverage_floor import PACKAGES, main


def report(path: Path, **missing_branches: int) -> Path:
    """A report in which every package has 100 lines, all covered, and 100 branches, some not."""
    files = {
        f"vhostuser/{package}/x.py": {
            "summary": {
                "num_statements": 100,
                "covered_lines": 100,
                "num_branches": 100,
                "covered_branches": 100 - missing_branches.get(package, 0),
            }
        }
        for package in PACKAGES
        if missing_branches.get(package) != 100
    }
    files["vhostuser/cli/x.py"] = {"summary": {"num_statements": 100, "covered_lines": 0}}
    path.write_text(json.dumps({"files": files}))
    return path


def test_packages_at_their_floor_pass_whatever_the_others_do(tmp_path: Path) -> None:
    assert main(report(tmp_path / "coverage.json", memory=5)) == 0


def test_a_package_whose_branches_are_below_the_floor_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(report(tmp_path / "coverage.json", memory=6)) == 1
    assert "below the floor of 95 %: vhostuser.memory\n" in capsys.readouterr().err


def test_a_package_that_was_not_measured_is_below_the_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(report(tmp_path / "coverage.json", wire=100)) == 1
    assert "vhostuser.wire" in capsys.readouterr().err
