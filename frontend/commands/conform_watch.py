"""A run on the screen: a line for each case that ends and, on a terminal, one for the case under way."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.status import Status
from rich.text import Text

from vhostuser.conformance.report.text import BLANK, head_lines, heading_line, recap_lines, result_lines

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from vhostuser.conformance import Result, Run
    from vhostuser.conformance.report.text import Line
    from vhostuser.conformance.selection import Turn

WIDEST = 120


class Screen:
    """Shows a run; `vhostuser.conformance.runner.Watcher`.

    Args:
        aside: on stderr, because stdout has a report.
        verbose: show whole logs of failures.
    """

    def __init__(self, *, aside: bool, verbose: bool) -> None:
        self._err, self._verbose = aside, verbose
        self._console = Console(file=sys.stderr if aside else sys.stdout, highlight=False)
        self._width = min(self._console.width, WIDEST)
        self._status = Status("", console=self._console) if self._console.is_terminal else None
        self._group = ""

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def head(self, run: Run) -> None:
        """Before the first case."""
        self._show(head_lines(run, width=self._width))

    def begins(self, turn: Turn, number: int, total: int) -> None:
        """A case is under way."""
        if self._status is not None:
            self._status.update(Text(f"{number} of {total}  {turn.name}  {turn.case.title}"))

    def ends(self, result: Result) -> None:
        """It has its verdict."""
        if result.case.group != self._group:
            self._group = result.case.group
            self._show([BLANK, heading_line(self._group)])
        self._show(result_lines(result, width=self._width))

    def recap(self, run: Run) -> None:
        """After the last."""
        self._show(recap_lines(run, width=self._width, whole_log=self._verbose))

    def _show(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if self._console.is_terminal:
                text = Text.assemble(*((piece.text, piece.style.value) for piece in line))
                self._console.print(text, soft_wrap=True)
            else:
                click.echo("".join(piece.text for piece in line).rstrip(), err=self._err)
