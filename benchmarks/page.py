"""The generated part of docs/benchmarks.md, between two marks; the prose around it is people's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.pictures import busy_picture, depths_picture
from benchmarks.tables import NOTHING, TABLES
from benchmarks.targets import Target, targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.sample import Results

BEGIN = "<!-- figures: made by `make bench`, not by hand -->"
END = "<!-- end of figures -->"
PICTURES = {"128 requests in flight": "benchmarks-busy.svg", "By depth": "benchmarks-depths.svg"}
"""By the title of the table that each stands above."""


class NoMarks(ValueError):
    """The page does not say where figures belong."""


def renew(page: Path, results: Results) -> None:
    """Put ``results`` into ``page``, and its pictures beside it.

    Raises:
        NoMarks: it has no place for them.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise NoMarks(f"{page}: expected one line {BEGIN} and one line {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    drawn = dict(zip(PICTURES, (busy_picture(results), depths_picture(results)), strict=True))
    shown = [title for title, picture in drawn.items() if picture]
    for title in shown:
        (page.parent / PICTURES[title]).write_text(drawn[title])
    page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(figures(results, shown)) + f"\n{END}{after}")


def figures(results: Results, drawn: Sequence[str]) -> Iterator[str]:
    """All of it, line by line; ``drawn`` are the tables that have a picture."""
    yield "### Measured on\n"
    yield from table(("", ""), [(name, value) for name, value in results.machine.items()])
    yield "### Targets\n"
    yield "Medians. Ratios should be at least what they must be; times at most.\n"
    yield from table(("", "compared with", "measured", "must", "aim", ""), [_target(t, results) for t in targets()])
    for title, rows in TABLES.items():
        found = list(rows(results))
        if found:
            yield f"### {title}\n"
            if title in drawn:
                yield f"![{title}]({PICTURES[title]})\n"
            yield from table(found[0], found[1:])
    if results.left_out:
        yield "### Not measured\n"
        yield from (f"- {subject}: {why}" for subject, why in results.left_out.items())
        yield ""


def target_lines(results: Results) -> Iterator[str]:
    """The targets as plain lines, for a terminal."""
    for target in targets():
        what, compared, found, must, aim, verdict = _target(target, results)
        yield f"{what:54} {compared:18} {found:>7}  must {must:>4}  aim {aim:>4}  {verdict}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table, and an empty line."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join('---' if number == 0 else '---:' for number in range(len(head)))}|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _target(target: Target, results: Results) -> tuple[str, ...]:
    found = target.measured(results)
    return (
        target.what,
        target.compared,
        NOTHING if found is None else f"{found.median:.3g}",
        f"{target.must:g}",
        f"{target.aim:g}",
        target.verdict(found),
    )
