"""Reports in files."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conformance.fake_runs import a_hostile_run, a_result, a_run
from vhostuser.conformance import Run, Verdict
from vhostuser.conformance.report import REPORTERS, save

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", REPORTERS)
@pytest.mark.parametrize("run", [a_run(), a_hostile_run(), Run(target="", interrupted=True)], ids=["run", "bad", "cut"])
def test_every_kind_can_be_saved(tmp_path: Path, kind: str, run: Run) -> None:
    path = tmp_path / "report"
    save(kind, run, str(path))
    assert path.read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["report"]


def test_a_report_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old")
    save("text", [a_run()], str(path))
    assert path.read_text().startswith("Conformance of a backend")


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save("text", a_run(), str(tmp_path / "missing" / "report"))
    broken = a_run(a_result(Verdict.PASS, seconds="soon"))
    path = tmp_path / "report"
    path.write_text("old")
    with pytest.raises(ValueError, match="Unknown format code"):
        save("junit", broken, str(path))
    assert (os.listdir(tmp_path), path.read_text()) == (["report"], "old")


def test_a_dash_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    save("tap", a_run(), "-")
    assert capsys.readouterr().out.startswith("TAP version 14\n")


def test_a_report_can_go_into_a_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    save("tap", a_run(), str(path))
    reader.join()
    assert read[0].startswith("TAP version 14\n")
    assert path.is_fifo()
