"""A run as lines of text, each piece of which has a style; who prints them decides what a style looks like.

`write` prints them as they are.  The command line gives the same lines colours, and shows each case as it ends.
"""

from __future__ import annotations

import textwrap
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from vhostuser.conformance.report.words import (
    LOG_TAIL,
    STDERR_TAIL,
    by_group,
    contrast,
    ending,
    exchange_line,
    group_title,
    one_line,
    printable,
    requirement,
    summary,
    title,
    why,
)
from vhostuser.conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from vhostuser.conformance.result import Result, Run

WIDTH = 80
VERDICT_WIDTH = max(len(each.value) for each in Verdict)


class Style(Enum):
    """What a piece of a line is; the value is a style that rich understands."""

    PLAIN = ""
    HEADING = "bold"
    GOOD = "green"
    ODD = "yellow"
    BAD = "bold red"
    QUIET = "dim"


class Piece(NamedTuple):
    """Some text of one style, without control characters."""

    text: str
    style: Style = Style.PLAIN


Line: TypeAlias = tuple[Piece, ...]
BLANK: Line = ()


def style_of(verdict: Verdict) -> Style:
    """How a verdict is to look."""
    if verdict.bad:
        return Style.BAD
    if verdict in (Verdict.WARN, Verdict.XFAIL):
        return Style.ODD
    return Style.GOOD if verdict in (Verdict.PASS, Verdict.REJECT) else Style.QUIET


def write(runs: Sequence[Run], stream: TextIO) -> None:
    """Write ``runs`` for people, in plain text."""
    for line in report_lines(runs):
        stream.write("".join(piece.text for piece in line).rstrip() + "\n")


def report_lines(runs: Sequence[Run], *, width: int = WIDTH) -> Iterator[Line]:
    """All of several runs, one after the other."""
    for number, run in enumerate(runs):
        if number:
            yield BLANK
        yield from head_lines(run, width=width)
        for group, results in by_group(run.results):
            yield BLANK
            yield heading_line(group)
            for result in results:
                yield from result_lines(result, width=width)
        yield from recap_lines(run, width=width)


def head_lines(run: Run, *, width: int = WIDTH) -> Iterator[Line]:
    """What was tested, by what, and when."""
    yield (Piece(f"Conformance of a {run.role}", Style.HEADING),)
    facts = {"target": run.target, **run.offered, "began": run.started, "by": run.program}
    told = {name: one_line(value) for name, value in facts.items() if value}
    column = max(map(len, told), default=0)
    for name, value in told.items():
        yield from _field(one_line(name), value, column=column, indent=2, width=width)


def heading_line(group: str) -> Line:
    """The line above the results of a group."""
    return (Piece(f"{group:<5}", Style.HEADING), Piece(group_title(group), Style.HEADING))


def result_lines(result: Result, *, width: int = WIDTH) -> Iterator[Line]:
    """A result in one line, and under it what is worth knowing of one that did not pass."""
    verdict = Piece(f"{result.verdict.value:<{VERDICT_WIDTH}}", style_of(result.verdict))
    first, *rest = _wrapped(title(result), width - VERDICT_WIDTH - 4)
    yield (Piece("  "), verdict, Piece("  "), Piece(first))
    indent = " " * (VERDICT_WIDTH + 4)
    for more in rest:
        yield (Piece(indent), Piece(more))
    if result.verdict is not Verdict.PASS and not result.verdict.bad:
        for more in _wrapped(one_line(why(result)), width - len(indent) - 2):
            yield (Piece(indent + "  "), Piece(more, Style.QUIET))


def recap_lines(run: Run, *, width: int = WIDTH, whole_log: bool = False) -> Iterator[Line]:
    """What failed, with all that helps to find out why, and the counts."""
    bad = [result for result in run.results if result.verdict.bad]
    if bad:
        yield BLANK
        yield (Piece("Failures", Style.HEADING),)
    for result in bad:
        yield BLANK
        yield from failure_lines(result, width=width, whole_log=whole_log)
    yield BLANK
    yield from _in_style(summary(run), Style.BAD if run.exit_status else Style.GOOD, width)


def failure_lines(result: Result, *, width: int = WIDTH, whole_log: bool = False) -> Iterator[Line]:
    """One failure: what was found and expected, the end of the log and of stderr, and how to see it again."""
    verdict = Piece(result.verdict.value, style_of(result.verdict))
    first, *rest = _wrapped(title(result), width - len(verdict.text) - 2)
    yield (verdict, Piece(f"  {first}", Style.HEADING))
    for more in rest:
        yield (Piece(f"{' ' * len(verdict.text)}  {more}", Style.HEADING),)
    yield (Piece(f"  {requirement(result.case)}", Style.QUIET),)
    parts = contrast(result.reason)
    fields = {"found": parts.found, "expected": parts.expected} if parts else {"reason": why(result)}
    if parts and parts.what:
        fields = {"in": parts.what, **fields}
    if result.known is not None and parts:
        fields["known"] = result.known.reason
    fields |= {"provoked": result.case.provoke, "passes": result.case.passes}
    if end := ending(result):
        fields["target"] = end
    for name, value in fields.items():
        yield from _field(name, value, column=8, indent=2, width=width)
    for note in result.notes:
        yield from _field("note", note, column=8, indent=2, width=width)
    yield from _tail("wire", [exchange_line(each) for each in result.log], LOG_TAIL, whole=whole_log)
    yield from _tail("stderr", printable(result.stderr).splitlines(), STDERR_TAIL, whole=whole_log)
    if result.replay:
        yield (Piece("  again     ", Style.QUIET), Piece(one_line(result.replay)))


def _tail(name: str, lines: Sequence[str], most: int, *, whole: bool) -> Iterator[Line]:
    """The last lines of something long, indented as they are."""
    shown = lines if whole else lines[-most:]
    if shown:
        part = "" if len(shown) == len(lines) else f", the last {len(shown)} of {len(lines)} lines"
        yield (Piece(f"  {name}{part}", Style.QUIET),)
    for line in shown:
        yield (Piece(f"    {line.expandtabs()}"),)


def _field(name: str, value: str, *, column: int, indent: int, width: int) -> Iterator[Line]:
    """A name and a value that may take several lines."""
    lines = [line for part in printable(value).splitlines() for line in _wrapped(part, width - indent - column - 2)]
    for number, line in enumerate(lines):
        yield (
            Piece(" " * indent),
            Piece(f"{'' if number else name:<{column}}  ", Style.QUIET),
            Piece(line),
        )


def _in_style(text: str, style: Style, width: int) -> Iterator[Line]:
    for line in _wrapped(text, width):
        yield (Piece(line, style),)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 20), break_on_hyphens=False) or [""]
