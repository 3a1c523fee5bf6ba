"""``vhost-user blk``: a disk behind any vhost-user-blk back-end, looked at, read, written and verified."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from frontend.commands.options import SECTOR, blk_options, json_option
from frontend.commands.outcome import EPILOG, Failed
from vhostuser.cli.parameters import SIZE, SizeType

if TYPE_CHECKING:
    from frontend.commands.blk_verify import Verdict
    from frontend.commands.options import BlkTarget
    from frontend.commands.transfer import Rate

STREAM = "-"

_offset_option = click.option(
    "--offset", type=SIZE, default=0, show_default=True, help="Where on the disk to begin, in bytes."
)


@click.group(epilog=EPILOG, short_help="Look at, read, write and verify a disk.")
def blk() -> None:
    """Look at, read, write and verify a disk of any vhost-user-blk back-end.

    \b
    Examples:
      vhost-user blk info   --socket-path disk.sock
      vhost-user blk read   --socket-path disk.sock --size 1M first.img
      vhost-user blk write  --socket-path disk.sock first.img
      vhost-user blk verify --socket-path disk.sock
    """


@blk.command(epilog=EPILOG)
@blk_options
@json_option
def info(target: BlkTarget, as_json: bool) -> None:
    """What the back-end offers and what the disk says of itself."""
    from frontend.commands.blk_info import disk_info

    found = disk_info(target)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        from frontend.commands.blk_show import show

        show(found)


@blk.command(epilog=EPILOG)
@blk_options
@_offset_option
@click.option("--size", type=SIZE, help="Bytes to read.  [default: to the end of the disk]")
@json_option
@click.argument("file", default=STREAM, type=click.Path(dir_okay=False, allow_dash=True))
def read(target: BlkTarget, offset: int, size: int | None, as_json: bool, file: str) -> None:
    """Copy from the disk to FILE, or to stdout.

    Any offset and size will do: whole blocks are read, and what is too much is cut off.  How fast it was is told on
    stderr.
    """
    from frontend.commands.blk_copy import copy_from_disk

    if file == STREAM and sys.stdout.isatty():
        raise click.UsageError("will not print a disk to a terminal: give a FILE, or pipe the output somewhere")
    rate = copy_from_disk(target, file, offset, size)
    _tell_rate("read", rate, as_json=as_json, stdout_is_free=file != STREAM)


@blk.command(epilog=EPILOG)
@blk_options
@_offset_option
@click.option("--size", type=SIZE, help="Bytes to write.  [default: all of FILE]")
@json_option
@click.argument("file", default=STREAM, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
def write(target: BlkTarget, offset: int, size: int | None, as_json: bool, file: str) -> None:
    """Copy FILE, or stdin, to the disk, and flush.

    Any offset and size will do: a block of the disk that is written only in part is read first, and its other bytes
    are written back as they were.  How fast it was is told on stderr.
    """
    from frontend.commands.blk_copy import copy_to_disk

    _tell_rate("wrote", copy_to_disk(target, file, offset, size), as_json=as_json, stdout_is_free=True)


@blk.command(epilog=EPILOG)
@blk_options
@click.option("--size", type=SizeType(least=SECTOR, unit=SECTOR), help="Only the first bytes.  [default: all of it]")
@click.option("--seed", type=click.IntRange(min=0), help="Makes the data.  [default: random; it is printed]")
@json_option
def verify(target: BlkTarget, size: int | None, seed: int | None, as_json: bool) -> None:
    """Write random data over the disk, read it back and compare.

    THIS DESTROYS WHAT IS ON THE DISK, without asking.  A read-only disk is refused.
    """
    from frontend.commands.blk_verify import verify as run_verify

    verdict = run_verify(target, size, seed)
    if as_json:
        click.echo(json.dumps(verdict.to_json(), indent=2))
    else:
        _tell_verdict(verdict)
    if verdict.mismatches:
        raise Failed(f"{verdict.mismatches} sectors differ; to see it again: --seed {verdict.seed}")


def _tell_rate(verb: str, rate: Rate, *, as_json: bool, stdout_is_free: bool) -> None:
    """Talk goes to stderr.  JSON was asked for, and goes to stdout unless data does."""
    if as_json:
        click.echo(json.dumps(rate.to_json(), indent=2), err=not stdout_is_free)
    else:
        click.echo(f"{verb} {rate}", err=True)


def _tell_verdict(verdict: Verdict) -> None:
    click.echo(f"seed   {verdict.seed}")
    click.echo(f"write  {verdict.write}")
    click.echo(f"read   {verdict.read}")
    for each in verdict.first:
        click.echo(f"differs at {each}")
    if verdict.mismatches > len(verdict.first):
        click.echo(f"... and in {verdict.mismatches - len(verdict.first)} more sectors")
    click.echo(f"{verdict.mismatches} mismatches in {verdict.size // SECTOR} sectors")
