"""Reports of runs, for people, for CI and for machines.

Each reporter takes one run or several, of several targets, and writes text.  A run that was interrupted, or that has
no result at all, can be reported like any other, and the report says so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vhostuser.conformance.report.html import write as write_html
from vhostuser.conformance.report.json_report import write as write_json
from vhostuser.conformance.report.junit import write as write_junit
from vhostuser.conformance.report.markdown import write as write_markdown
from vhostuser.conformance.report.tap import write as write_tap
from vhostuser.conformance.report.text import write as write_text
from vhostuser.conformance.result import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

__all__ = ["REPORTERS", "Reporter", "save"]


class Reporter(Protocol):
    """Writes the report of ``runs`` to ``stream``, which has to take any Unicode text (UTF-8)."""

    def __call__(self, runs: Sequence[Run], stream: TextIO, /) -> None: ...


REPORTERS: Mapping[str, Reporter] = {
    "html": write_html,
    "json": write_json,
    "junit": write_junit,
    "markdown": write_markdown,
    "tap": write_tap,
    "text": write_text,
}
"""By the name that ``--report NAME=PATH`` has for them."""


def save(kind: str, runs: Run | Sequence[Run], path: str) -> None:
    """Write a report to a file, which is there whole or not at all; ``-`` is stdout.

    Args:
        kind: a key of `REPORTERS`.
        runs: one, or several.
        path: replaced if it exists.

    Raises:
        OSError: it cannot be written.
    """
    runs = [runs] if isinstance(runs, Run) else runs
    if path == "-":
        REPORTERS[kind](runs, sys.stdout)
        sys.stdout.flush()
        return
    if Path(path).exists() and not Path(path).is_file():
        with open(path, "w", encoding="utf-8") as stream:  # a pipe, a terminal: nothing to put in its place
            REPORTERS[kind](runs, stream)
        return
    beside = f"{path}.{os.getpid()}"
    try:
        with open(beside, "w", encoding="utf-8") as stream:
            REPORTERS[kind](runs, stream)
        os.replace(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)
