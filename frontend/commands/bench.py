"""``vhost-user bench``: how fast a back-end is, seen from our front-end."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import click

from frontend.commands.options import MAX_DEPTH, MIB, SECTOR, BlkTarget, device_options, json_option
from frontend.commands.outcome import EPILOG
from vhostuser.cli.parameters import SizeType

if TYPE_CHECKING:
    from frontend.commands.options import Target
    from vhostuser.virtqueue.engine import Engine

FIRST_WORD = 0x5EC7_0000_0001
"""Where the pattern of --verify begins: no word of it is 0."""


@click.group(epilog=EPILOG, short_help="Measure how fast a back-end is.")
def bench() -> None:
    """Measure how fast a back-end is."""


@bench.command(epilog=EPILOG)
@device_options
@click.option(
    "--depth",
    "depths",
    type=click.IntRange(1, MAX_DEPTH),
    multiple=True,
    default=(1, 32),
    show_default=True,
    help="Requests in flight; several are measured one after the other.",
)
@click.option(
    "--queues",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Queues to use, if the back-end has as many.",
)
@click.option(
    "--block-size",
    type=SizeType(least=SECTOR, most=MIB, unit=SECTOR),
    default="4K",
    show_default=True,
    help="Bytes in a request.",
)
@click.option(
    "--rw",
    type=click.Choice(["read", "write", "mix"]),
    default="read",
    show_default=True,
    help="What to do; a mix is half reads, half writes.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.01, max=3600),
    default=3.0,
    show_default=True,
    help="How long to measure each depth, after a tenth of that to warm up.",
)
@click.option("--packed", is_flag=True, help="Use packed rings instead of split ones.")
@click.option(
    "--engine",
    type=click.Choice(["python", "native"]),
    help="What makes the requests: trio and Python, or a compiled loop.  [default: native where it is built]",
)
@click.option(
    "--poll-us",
    type=click.IntRange(0, 1_000_000),
    default=0,
    show_default=True,
    help="Watch the ring this long before sleeping, which spares the back-end notifications; the compiled loop only.",
)
@click.option(
    "--verify", is_flag=True, help="OVERWRITE THE DISK with a pattern first, and check each block that is read."
)
@json_option
def blk(
    target: Target,
    depths: tuple[int, ...],
    queues: int,
    block_size: int,
    rw: str,
    seconds: float,
    packed: bool,
    engine: str | None,
    poll_us: int,
    verify: bool,
    as_json: bool,
) -> None:
    """Requests per second and their latency, at random places of a disk.

    WRITE AND MIX DESTROY WHAT IS ON THE DISK, without asking.

    A request's time runs from its making to its end in our front-end, so it counts the time in which it waits to be
    published with others.  In JSON the figures of the fastest depth stand at the top, and those of every depth in
    "runs".
    """
    from frontend.commands.bench_blk import measure
    from frontend.commands.bench_load import Load

    chosen = _engine(engine)
    if poll_us and chosen == "python":
        raise click.UsageError("--poll-us: trio sleeps; only the compiled engine can watch a ring")
    load = Load(rw, block_size, seconds, pattern=FIRST_WORD if verify else 0, watch_us=poll_us)
    common = {**asdict(target), "queues": queues, "block_size": block_size, "packed": packed}
    runs = [measure(BlkTarget(**common, depth=depth), replace(load, depth=depth), chosen) for depth in depths]
    if as_json:
        best = max(runs, key=lambda run: run.iops)
        asked = {
            "socket_path": target.socket_path,
            "rw": rw,
            "block_size": block_size,
            "packed": packed,
            "engine": chosen,
        }
        told = {**asked, **best.to_json(), "runs": [run.to_json() for run in runs]}
        click.echo(json.dumps(told, indent=2))
    else:
        from frontend.commands.bench_show import show

        show(load, runs)


def _engine(asked: str | None) -> Engine:
    from vhostuser.virtqueue.engine import ENGINE, why_not_native

    if asked == "native" and ENGINE != "native":
        raise click.ClickException(f"the compiled engine does not run here: {why_not_native()}")
    return "python" if asked == "python" else ENGINE
