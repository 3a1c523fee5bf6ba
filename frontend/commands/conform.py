"""``vhost-user conform``: where a back-end breaks the protocol, found out in one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from frontend.commands.probe import DeviceTypeName

if TYPE_CHECKING:
    from collections.abc import Callable

EPILOG = """\b
Exit status, whatever reports are written:
  0    nothing failed
  1    something failed, or a known issue does not fail any more
  2    called wrongly, or no case was selected
  3    the target did not start, or does not answer
  4    the target crashed, or hung
  130  interrupted"""

_TARGET = [
    click.option(
        "--exec",
        "command",
        metavar="COMMAND",
        help="Start this program; {socket} in it is the path to listen at, {fd} the number of a listening socket to "
        "inherit, {scratch} a folder that is removed in the end.",
    ),
    click.option("--socket-path", type=click.Path(), help="Somebody else runs it, and it listens here."),
    click.option("--fd", type=click.IntRange(min=0), help="An inherited connected socket: one session, so one case."),
    click.option(
        "--targets",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE.toml",
        help="Where targets are defined.",
    ),
    click.option("--target", metavar="NAME", help="One of those."),
    click.option("--type", "device_type", type=DeviceTypeName(), help="What it is: blk, net, ...  [default: a guess]"),
]
_SELECTION = [
    click.option(
        "--level",
        "levels",
        multiple=True,
        type=click.Choice(["must", "should", "may", "robustness"]),
        help="Only cases of this level; may be given again.",
    ),
    click.option(
        "--tag", "tags", multiple=True, metavar="TAG", help="Only cases with this tag, or of this group: MEM."
    ),
    click.option("--destructive", is_flag=True, help="Also those that may change the data behind the device."),
    click.option("--failed-first", is_flag=True, help="Begin with what failed last time."),
    click.option("--list", "as_list", is_flag=True, help="Show what is selected, and run nothing."),
    click.option("--json", "as_json", is_flag=True, help="With --list: as JSON."),
    click.option("--explain", metavar="ID", help="What this case is about, and how it is provoked; runs nothing."),
]
_RUNNING = [
    click.option("--strict", is_flag=True, help="What is only recommended is demanded."),
    click.option(
        "--known-issues",
        type=click.Path(exists=True, dir_okay=False),
        metavar="FILE.toml",
        help="Failures that are expected, with the reason for each.",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="For a case that has no limit of its own.  [default: 20]",
    ),
    click.option(
        "--reuse/--fresh",
        default=None,
        help="One program for many cases, as long as they pass; or a fresh one for each.  [default: fresh]",
    ),
    click.option("--alone", is_flag=True, help="Never start the next program before the last has ended."),
    click.option(
        "--report",
        "reports",
        multiple=True,
        metavar="KIND=PATH",
        help="Write a report: html, json, junit, markdown, tap or text; - is stdout.  May be given again.",
    ),
    click.option("--verbose", is_flag=True, help="Show the whole wire log of what failed."),
]


@click.group(epilog=EPILOG, short_help="Test where a back-end breaks the protocol.")
def conform() -> None:
    """Test where a back-end breaks the protocol: black box, without a VM, without root.

    \b
    Examples:
      vhost-user conform backend --exec 'my-daemon --socket-path {socket}'
      vhost-user conform backend --explain B-MEM-07
      vhost-user conform coverage
    """


def _options(*groups: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate


@conform.command(epilog=EPILOG)
@click.argument("cases", nargs=-1, metavar="[CASES]...")
@_options(_TARGET, _SELECTION, _RUNNING)
@click.pass_context
def backend(ctx: click.Context, /, explain: str | None, as_list: bool, as_json: bool, **asked: Any) -> None:
    """Run the cases for back-ends against one.

    CASES are globs over ids, as 'B-MEM-*', or single variants, as 'B-SPL-07[packed]'; no:GLOB leaves out.

    A program under --exec is expected to be a scratch one: it gets every malformed message there is, is killed and
    started again.  Cases that write to the device run only with --destructive.

    \b
    Examples:
      vhost-user conform backend --exec 'vhost-user backend rng --socket-path {socket}'
      vhost-user conform backend --socket-path /run/disk.sock --level must 'B-HDR-*'
      vhost-user conform backend --targets targets.toml --target qsd --report html=report.html
    """
    if explain is not None:
        from frontend.commands.conform_list import explained

        click.echo(explained(explain))
        return
    from frontend.commands.conform_plan import plan_of

    plan = plan_of(**asked)
    if as_list:
        from frontend.commands.conform_list import listed

        click.echo(listed(plan.turns, as_json=as_json), nl=False)
        return
    from frontend.commands.conform_run import run

    try:
        status = run(plan)
    except KeyboardInterrupt:  # before it had begun, or while it wrote its reports
        status = 130
    ctx.exit(status)


@conform.command(epilog=EPILOG)
@click.argument("report", required=False, type=click.File())
@click.option("--json", "as_json", is_flag=True, help="Say it as one JSON object.")
def coverage(report: Any, as_json: bool) -> None:
    """Which requirements there are, and which are tested; with a REPORT in JSON also which were run, and passed."""
    from frontend.commands.conform_coverage import covered

    click.echo(covered(report, as_json=as_json), nl=False)


@conform.command(epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.File(), metavar="RUN.json...")
@click.option("--report", "reports", multiple=True, required=True, metavar="KIND=PATH", help="What to write.")
def report(runs: tuple[Any, ...], reports: tuple[str, ...]) -> None:
    """Write other reports of runs that were reported as JSON; of several targets together, as a matrix.

    \b
    Example:
      vhost-user conform report qsd.json passt.json --report html=matrix.html
    """
    from frontend.commands.conform_reports import again

    again(runs, reports)
