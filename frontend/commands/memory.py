"""``vhost-user memory``: what of a guest's memory a back-end could have, and why not the rest."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from frontend.commands.options import json_option, pcram, pcram_option
from frontend.commands.outcome import ExitStatus

if TYPE_CHECKING:
    from frontend.commands.memory_show import Shown

EPILOG = """\b
Exit status:
  0    all of the guest's memory can be shared
  1    not all of it can be, or the memory cannot be made
  2    called wrongly
  3    no such process, or it may not be looked at"""


class NoProcess(click.ClickException):
    """There is no process to look at, or it does not let us."""

    exit_code = ExitStatus.NO_BACKEND


@click.command(epilog=EPILOG, short_help="Show which memory a back-end could share, and why not.")
@click.option(
    "--object",
    "objects",
    multiple=True,
    metavar="TYPE,PROPERTY=VALUE,...",
    help="Make this memory backend, written as for QEMU, and show it; several make one guest.  help lists the types, "
    "TYPE,help a type's properties.",
)
@pcram_option
@click.option("--pid", type=click.IntRange(min=1), help="Look at the memory of a running QEMU, or of another process.")
@json_option
def memory(objects: tuple[str, ...], pcram_file: str | None, pid: int | None, as_json: bool) -> None:
    """Show which of a guest's memory a vhost-user back-end could map, and why it could not map the rest.

    \b
    Examples:
      vhost-user memory --object memory-backend-memfd,id=m0,size=64M
      vhost-user memory --object memory-backend-file,id=m1,size=1G,mem-path=/tmp/ram,share=off
      vhost-user memory --pcram-file /tmp/ram
      vhost-user memory --pid 4711

    A process is only looked at, through /proc, which is Linux's; it goes on as it was.
    """
    if pcram_file is not None:
        objects = (*objects, pcram(pcram_file).to_option())
    if bool(objects) == (pid is not None):
        raise click.UsageError("give either --object or --pcram-file, or --pid")
    shown = _process(pid) if pid is not None else _offer(objects)
    if as_json:
        click.echo(json.dumps(shown.json, indent=2))
    else:
        shown.print()
    click.get_current_context().exit(ExitStatus.OK if shown.shareable else ExitStatus.FAILED)


def _process(pid: int) -> Shown:
    from frontend.commands.memory_show import show_process
    from vhostuser.memory.proc import ProcessError, inspect_process

    try:
        return show_process(inspect_process(pid))
    except ProcessError as error:
        raise NoProcess(str(error)) from None


def _offer(objects: tuple[str, ...]) -> Shown:
    from frontend.commands.memory_offer import OfferError, asked_for_help, make_offer
    from frontend.commands.memory_show import show_offer

    try:
        if (text := asked_for_help(objects)) is not None:
            click.echo(text)
            click.get_current_context().exit()
        with make_offer(objects) as blocks:
            return show_offer(blocks)
    except OfferError as error:
        raise click.UsageError(str(error)) from None
