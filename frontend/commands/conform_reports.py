"""``--report KIND=PATH``: checked before anything is run, written when it is over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from frontend.commands.outcome import Failed
from vhostuser.conformance.report import REPORTERS, save
from vhostuser.conformance.report.json_report import NotAReport, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from vhostuser.conformance import Run


class Wanted(NamedTuple):
    """A report that somebody wants."""

    kind: str
    path: str


def wanted(asked: Sequence[str]) -> list[Wanted]:
    """What ``--report`` asks for.

    Raises:
        click.UsageError: there is no such kind, or there is no way to write there.
    """
    return [_wanted(each) for each in asked]


def write(reports: Sequence[Wanted], runs: Sequence[Run]) -> None:
    """Write them all, even if one of them cannot be written.

    Raises:
        Failed: that one.
    """
    failures = []
    for kind, path in reports:
        try:
            save(kind, runs, path)
        except OSError as error:
            failures.append(f"cannot write {path}: {error.strerror}")
    if failures:
        raise Failed("; ".join(failures))


def again(files: Sequence[TextIO], asked: Sequence[str]) -> None:
    """Read runs out of JSON reports, and report them once more."""
    reports = wanted(asked)
    runs: list[Run] = []
    for file in files:
        try:
            runs += read(file)
        except NotAReport as error:
            raise click.UsageError(f"{file.name}: {error}") from None
    write(reports, runs)


def _wanted(asked: str) -> Wanted:
    kind, equals, path = asked.partition("=")
    if kind not in REPORTERS or not equals or not path:
        raise click.UsageError(f"--report {asked}: expected KIND=PATH, where KIND is one of {', '.join(REPORTERS)}")
    folder = Path(path).absolute().parent
    if path != "-" and not os.access(folder, os.W_OK):
        raise click.UsageError(f"--report {asked}: cannot write into {folder}")
    return Wanted(kind, path)
