"""The ``vhost-user`` command.

Subcommands are entry points in the group ``vhostuser.commands``: anybody's package can add one, and this file, which
stands above the library, need not import what stands above it.  A command's module imports nothing heavy at its top,
so that ``vhost-user --help`` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import entry_points

import click

from vhostuser import __version__

GROUP = "vhostuser.commands"


class _EntryPoints(click.Group):
    """A group whose commands are the entry points of `GROUP`, loaded when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({point.name for point in entry_points(group=GROUP)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for point in entry_points(group=GROUP, name=cmd_name):
            command = point.load()
            if not isinstance(command, click.Command):
                raise click.ClickException(f"{point.value}, which calls itself {cmd_name}, is not a click command")
            return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not self.list_commands(ctx):
            ctx.fail(f"no command is registered as {GROUP}; a checkout has to be installed: pip install -e .")
        return super().resolve_command(ctx, args)


@click.group(cls=_EntryPoints, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-v", "--verbose", count=True, help="Log more, to stderr; twice for each message that passes.")
@click.version_option(__version__, prog_name="vhost-user")
def command(verbose: int) -> None:
    """Serve, drive and look at vhost-user devices.

    \b
    Examples:
      vhost-user demo
      vhost-user backend blk --socket-path disk.sock --blk-file disk.img
      vhost-user blk verify --socket-path disk.sock

    \b
    Environment:
      VHOST_USER_LOG=debug        as -vv
      VHOST_USER_NOTIFIER=pipe    pipes where eventfds would do
    """
    logging.basicConfig(level=_level(verbose), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def main() -> None:
    """Entry point of the console script."""
    command(prog_name="vhost-user")


def _level(verbose: int) -> int:
    named = os.environ.get("VHOST_USER_LOG", "")
    level = logging.getLevelNamesMapping().get(named.upper())
    if named and level is None:
        raise click.UsageError(f"VHOST_USER_LOG={named}: expected debug, info, warning or error")
    return min(level or logging.WARNING, logging.WARNING - 10 * min(verbose, 2))
