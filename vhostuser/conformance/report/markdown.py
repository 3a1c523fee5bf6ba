"""Runs as a chapter of Markdown: targets side by side by group, and what was found, with the known reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from vhostuser.conformance.report.words import GROUPS, group_title, labels, one_line
from vhostuser.conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    from vhostuser.conformance.result import Result, Run

__all__ = ["cells", "plain", "write"]

NOT_RUN: Final = frozenset({Verdict.SKIP, Verdict.UNSUPPORTED})
GOOD: Final = frozenset({Verdict.PASS, Verdict.REJECT, Verdict.WARN})
_MEANS_SOMETHING: Final = re.compile(r"([\\`*_\[\]|#~])")
_WEB: Final = re.compile(r"https?://[^\s<>()]+")


def write(runs: Sequence[Run], stream: TextIO) -> None:
    """Write ``runs`` as Markdown, in headings of the third level."""
    stream.write("".join(f"{line}\n" for line in _lines(runs)))


def plain(text: str) -> str:
    """``text`` in one line in which nothing means anything to Markdown or HTML."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MEANS_SOMETHING.sub(r"\\\1", escaped)


def cells(*values: object) -> str:
    """A line of a table, of Markdown as it is."""
    return f"| {' | '.join(map(str, values))} |"


def _lines(runs: Sequence[Run]) -> Iterator[str]:
    names = [plain(name) for name in labels(runs)]
    yield "### Targets by group"
    yield ""
    yield "As required of those that were run; what a target does not offer is not run."
    yield ""
    yield from _matrix(runs, names)
    for run, name in zip(runs, names, strict=True):
        yield ""
        yield f"### What {name} does"
        yield ""
        yield from _findings(run)


def _matrix(runs: Sequence[Run], names: Sequence[str]) -> Iterator[str]:
    found = [_by_group(run) for run in runs]
    ids = {group: None for each in found for group in each}
    yield cells("", "", *names)
    yield cells("---", "---", *("---:" for _ in names))
    for group in sorted(ids, key=_place):
        yield cells(plain(group), plain(group_title(group)), *(_score(each.get(group, [])) for each in found))
    yield cells("", "all", *(_score(run.results) for run in runs))


def _by_group(run: Run) -> Mapping[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in run.results:
        groups.setdefault(result.case.group, []).append(result)
    return groups


def _place(group: str) -> int:
    order = list(GROUPS)
    return order.index(group) if group in order else len(order)


def _score(results: Iterable[Result]) -> str:
    """``14``, or ``12 of 14`` where some are not as required; a dash where nothing was run."""
    ran = [result for result in results if result.verdict not in NOT_RUN]
    good = sum(result.verdict in GOOD for result in ran)
    if not ran:
        return "-"
    return str(good) if good == len(ran) else f"**{good} of {len(ran)}**"


def _findings(run: Run) -> Iterator[str]:
    """Results with the same known reason share a line; those that are odd come last."""
    lines: dict[str, list[str]] = {}
    for result in run.results:
        if result.verdict not in NOT_RUN | GOOD:
            lines.setdefault(_reason(result), []).append(plain(result.name))
    odd = [plain(result.name) for result in run.results if result.verdict is Verdict.WARN]
    if not lines:
        yield "- Everything that was run was as required."
    for reason, ids in lines.items():
        yield f"- {', '.join(ids)}: {reason}"
    if odd:
        yield f"- Not as recommended, or odd: {', '.join(odd)}"


def _reason(result: Result) -> str:
    known = result.known
    if known is None:
        return f"**{result.verdict.value}** {plain(result.reason.partition(chr(10))[0])}".rstrip()
    link = f" ([source]({known.link}))" if _WEB.fullmatch(known.link) else ""
    mark = "**XPASS** " if result.verdict is Verdict.XPASS else ""
    return mark + plain(known.reason) + (" (at times)" if known.flaky else "") + link
