"""`Finding`s as a table, for a terminal of 80 columns, with the next steps below it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from frontend.commands.printing import Printer
from frontend.doctor import Level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.doctor import Finding

STYLES = {Level.OK: "green", Level.HINT: "yellow", Level.BROKEN: "bold red"}


def show(findings: Sequence[Finding]) -> None:
    """Print all of it to stdout."""
    Printer().print(_table(findings))
    for level, title in ((Level.BROKEN, "To be repaired"), (Level.HINT, "What would do more")):
        steps = [finding for finding in findings if finding.level is level]
        if steps:
            click.echo(f"\n{title}:")
        for each in steps:
            click.echo(f"  {each.name}: {each.advice}")  # not wrapped: there are commands in it, to be copied
    if all(finding.level is Level.OK for finding in findings):
        click.echo("\nEverything is there.")


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    topic = ""
    for each in findings:
        table.add_row(
            each.topic if each.topic != topic else "",
            each.name,
            Text(each.level.value, style=STYLES[each.level]),
            Text(each.found),
        )
        topic = each.topic
    return table
