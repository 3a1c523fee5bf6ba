"""Puts what the conformance suite found into docs/interop.md:  interop_page.py RUN.json...

The runs are those of ``CONFORM_REPORTS=FOLDER python -m pytest tests/peers/test_conform.py``, or of the command line.
No test asks whether the page is fresh: what it says depends on the programs of others, and on luck where they race.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from vhostuser.conformance.report.json_report import read
from vhostuser.conformance.report.markdown import write

PAGE = Path(__file__).parents[2] / "docs/interop.md"
PLACE = re.compile(r"(<!-- [^\n]*: from here -->\n).*(<!-- to here -->\n)", re.DOTALL)


def with_runs(page: str, reports: list[str]) -> str:
    """``page`` with the chapter about the runs in these files between its marks."""
    chapter = io.StringIO()
    runs = []
    for report in reports:
        with open(report, encoding="utf-8") as file:
            runs += read(file)
    write(runs, chapter)
    text, count = PLACE.subn(lambda found: f"{found[1]}\n{chapter.getvalue()}\n{found[2]}", page)
    if count != 1:
        raise SystemExit(f"found {count} places for the runs, expected one between two marks")
    return text


if __name__ == "__main__":
    PAGE.write_text(with_runs(PAGE.read_text(encoding="utf-8"), sys.argv[1:]), encoding="utf-8")
