"""Printing for people: rich's tables and colours, without the blanks that it fills lines up with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType


class Printer:
    """Prints to stdout; in colour only on a terminal, and 80 columns wide where there is none.

    Args:
        silent: print nothing.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self._console = Console(highlight=False)
        self._silent = silent

    @property
    def unicode(self) -> bool:
        """Whether an arrow can be printed."""
        return self._console.encoding.lower().startswith("utf")

    def print(self, what: RenderableType = "") -> None:
        """One thing, and the end of the line."""
        if self._silent:
            return
        with self._console.capture() as capture:
            self._console.print(what)
        for line in capture.get().splitlines():
            click.echo(line.rstrip())
