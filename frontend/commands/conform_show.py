"""A run on the screen: a line that says what is under way, a line for each case that has ended, and the recap.

The lines are those of the text report; here they get their colours.  Without a terminal they are printed as they are,
and nothing is ever rewritten.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vhostuser.conformance.report.text import BLANK, head_lines, heading_line, recap_lines, result_lines
from vhostuser.conformance.report.words import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from vhostuser.conformance import Result, Run
    from vhostuser.conformance.report.text import Line
    from vhostuser.conformance.selection import Turn

WIDEST = 120
"""Columns that are used at most: longer lines are hard to read."""


class Screen:
    """Shows a run; a watcher of the runner, and a context around the run.

    Args:
        verbose: the recap shows logs whole.
        stderr: print there, because a report goes to stdout.
    """

    def __init__(self, *, verbose: bool = False, stderr: bool = False) -> None:
        self._console = Console(highlight=False, stderr=stderr)
        self._width = min(self._console.width, WIDEST)
        self._verbose = verbose
        self._group = ""
        # Drawn when something happens, and by no thread of its own: a quick case costs no more than its line.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def head(self, run: Run) -> None:
        """What is tested."""
        self._print(head_lines(run, width=self._width))

    def begins(self, turn: Turn, number: int, total: int) -> None:
        """Say what is under way, on a terminal."""
        if self._live.is_started:
            words = one_line(f"{number} of {total}  {turn.name}  {turn.case.title}")
            text = Text(words, style="dim", no_wrap=True, overflow="ellipsis")
            self._live.update(text, refresh=True)

    def ends(self, result: Result) -> None:
        """Print its line, under the heading of its group."""
        if result.case.group != self._group:
            self._group = result.case.group
            self._print([BLANK, heading_line(self._group)])
        self._print(result_lines(result, width=self._width))

    def recap(self, run: Run) -> None:
        """What failed, and the counts; after the run."""
        self._live.stop()
        self._print(recap_lines(run, width=self._width, whole_log=self._verbose))

    def _print(self, lines: Iterable[Line]) -> None:
        for line in lines:
            text = Text()
            for piece in line:
                text.append(piece.text, piece.style.value)
            text.rstrip()
            # Long lines are left to the terminal: a command that was wrapped cannot be copied.
            self._console.print(text, soft_wrap=True)
