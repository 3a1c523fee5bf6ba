"""What is to be run, against what, and what is to be written of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from frontend.commands.conform_reports import Wanted, wanted
from frontend.commands.conform_state import failed_before
from frontend.commands.conform_target import Definition, definition
from frontend.conformance.catalogue import GROUPS
from frontend.conformance.suite import load
from vhostuser.conformance.known import KnownIssues
from vhostuser.conformance.selection import Selection, Turn
from vhostuser.conformance.verdict import Level

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run to be.

    Attributes:
        target: against what.
        turns: what, in this order.
        reports: to be written.
        strict: recommendations are demands.
        verbose: show whole logs.
        options: those that a replay needs besides the target's.
    """

    target: Definition
    turns: Sequence[Turn]
    reports: Sequence[Wanted]
    strict: bool
    verbose: bool
    options: Sequence[str]

    def replay(self, turn: Turn) -> str:
        """The command that runs one turn alone."""
        words = ["vhost-user", "conform", "backend", *self.target.options, *self.options]
        words += ["--destructive"] if turn.case.destructive else []
        return shlex.join([*words, turn.name])


def plan_of(
    *,
    cases: Sequence[str],
    levels: Sequence[str],
    tags: Sequence[str],
    destructive: bool,
    failed_first: bool,
    strict: bool,
    reports: Sequence[str],
    verbose: bool,
    **target: Any,
) -> Plan:
    """The plan that the options mean.

    Raises:
        click.UsageError: they contradict each other, or nothing is left to run.
    """
    listing = all(target[name] is None for name in ("command", "socket_path", "fd", "targets", "target"))
    meant = _nothing() if listing else definition(**target)
    selection = Selection(
        patterns=cases,
        levels=[Level(each) for each in levels],
        tags=tags,
        destructive=destructive,
        first=failed_before(meant.name) if failed_first else (),
        groups=list(GROUPS),
    )
    turns = selection.turns(load())
    if not turns:
        raise click.UsageError("no case is selected: --list shows what there is, --destructive adds some")
    if meant.fd is not None and len(turns) > 1:
        raise click.UsageError(f"a connected socket is one session: name one case, found {len(turns)}")
    options = ["--strict"] if strict else []
    if target["timeout"]:
        options += ["--timeout", f"{target['timeout']:g}"]
    if target["device_type"] is not None:
        options += ["--type", str(target["device_type"])]
    return Plan(target=meant, turns=turns, reports=wanted(reports), strict=strict, verbose=verbose, options=options)


def _nothing() -> Definition:
    return Definition(name="", options=(), known=KnownIssues())
