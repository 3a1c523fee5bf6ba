"""Writes the page of the documentation with every requirement for back-ends, and whether it is tested.

::

    python -m frontend.conformance.coverage_page > docs/conformance-coverage.md
    python -m frontend.conformance.coverage_page --check docs/conformance-coverage.md

The second form exits with 1 when the page no longer says what the code does.
"""

from __future__ import annotations

import sys
from collections import Counter
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.conformance.catalogue import GROUPS, requirements
from frontend.conformance.suite import load
from vhostuser.conformance.report.markdown import cells, plain
from vhostuser.conformance.report.words import group_title

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vhostuser.conformance import Case

INTRODUCTION = """
<!-- Generated: python -m frontend.conformance.coverage_page > docs/conformance-coverage.md -->

# Requirements for back-ends

Every requirement that the suite knows, and whether `vhost-user conform backend` tests it. `--explain ID` tells why it
matters, how it is provoked and what passes; [Conformance](conformance.md) how to run it, and
[Interoperability](interop.md) who passes. Sections that begin with V are those of VIRTIO 1.3, all others headings of
the vhost-user document.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION.strip(), "", *_summary(load().cases), *_groups(load().cases)]) + "\n"


def _summary(cases: Mapping[str, Case]) -> Iterator[str]:
    states = {id_: _state(cases.get(id_)) for id_ in requirements()}
    columns = ["tested", "by hand", *(["missing"] if "missing" in states.values() else [])]
    yield cells("", "", "requirements", *columns)
    yield cells("---", "---", *("---:" for _ in ("", *columns)))
    for group in GROUPS:
        counts = Counter(state for id_, state in states.items() if id_.split("-")[1] == group)
        yield cells(group, group_title(group), counts.total(), *(counts[each] or "" for each in columns))
    counts = Counter(states.values())
    yield cells("", "all", counts.total(), *(counts[each] or "" for each in columns))


def _groups(cases: Mapping[str, Case]) -> Iterator[str]:
    for group, count in GROUPS.items():
        yield from ["", f"## {group_title(group)}", "", cells("", "level", "requirement", "section")]
        yield cells("---", "---", "---", "---")
        for number in range(1, count + 1):
            id_ = f"B-{group}-{number:02}"
            yield _row(id_, cases.get(id_))


def _row(id_: str, case: Case | None) -> str:
    if case is None:
        return cells(id_, "", "not tested yet", "")
    title = plain(case.title)
    if case.manual is not None:
        title += f"<br>*by hand:* {plain(case.manual)}"
    return cells(id_, case.level.value, title, plain(case.section))


def _state(case: Case | None) -> str:
    if case is None:
        return "missing"
    return "tested" if case.manual is None else "by hand"


def main(arguments: Sequence[str]) -> int:
    """Print the page, or with ``--check FILE`` say whether that file is still it."""
    match arguments:
        case []:
            sys.stdout.write(page())
            return 0
        case ["--check", file]:
            if Path(file).exists() and Path(file).read_text(encoding="utf-8") == page():
                return 0
            print(f"{file} is stale: python -m frontend.conformance.coverage_page > {file}", file=sys.stderr)
            return 1
    print(cleandoc(__doc__ or ""), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
