"""`Run`s as a table and as bars, for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from frontend.commands.printing import Printer
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from frontend.commands.bench_load import Load, Run

BAR = 44
MIB = 1 << 20


def show(load: Load, runs: Sequence[Run]) -> None:
    """Print all of it to stdout."""
    printer = Printer()
    queues = runs[0].queues
    printer.print(
        f"{load.rw}, {format_size(load.block_size)} at random places, {queues} {'queue' if queues == 1 else 'queues'}"
    )
    printer.print()
    printer.print(_table(runs))
    if len(runs) > 1:
        printer.print()
        printer.print(_bars("depth", "requests/s", {str(run.depth): run.iops for run in runs}, printer))
    for run in runs:
        latencies = {f"< {below} us": count * 100 / run.requests for below, count in run.histogram().items()}
        printer.print()
        printer.print(_bars(f"depth {run.depth}", "% of requests", latencies, printer))


def _table(runs: Sequence[Run]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for title in ("depth", "requests/s", "MiB/s", "p50 us", "p99 us", "p99.9 us"):
        table.add_column(title, justify="right")
    for run in runs:
        percentiles = (f"{run.percentile_us(percent):.1f}" for percent in (50, 99, 99.9))
        table.add_row(str(run.depth), f"{run.iops:.0f}", f"{run.bytes_per_second / MIB:.1f}", *percentiles)
    return table


def _bars(rows: str, values: str, figures: Mapping[str, float], printer: Printer) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column(rows, justify="right", no_wrap=True)
    table.add_column(values, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    mark, most = "█" if printer.unicode else "#", max(figures.values()) or 1
    for name, value in figures.items():
        shown = f"{value:.0f}" if value >= 1000 else f"{value:.2f}"
        table.add_row(escape(name), shown, mark * round(value / most * BAR))
    return table
