"""``--list`` and ``--explain``: what there is to run, and what it is about."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import click

from frontend.conformance.suite import load
from vhostuser.conformance.report.json_needs import need_words
from vhostuser.conformance.report.words import group_title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.conformance import Case
    from vhostuser.conformance.selection import Turn


def listed(turns: Sequence[Turn], *, as_json: bool) -> str:
    """A line for each turn, or all as a JSON array."""
    if as_json:
        return json.dumps([_as_json(turn) for turn in turns], indent=2) + "\n"
    width = max(len(turn.name) for turn in turns)
    return "".join(f"{turn.name:<{width}}  {_level(turn.case):<10}  {turn.case.title}\n" for turn in turns)


def explained(name: str) -> str:
    """All that is to be said of one case.

    Raises:
        click.UsageError: there is no such case.
    """
    cases = load().cases
    case = cases.get(name.partition("[")[0].upper())
    if case is None:
        raise click.UsageError(f"there is no case {name}; --list shows those there are")
    needs = [need_words(need) for need in case.needs]
    fields = {
        "group": group_title(case.group),
        "level": case.level.value,
        "section": case.section,
        "needs": ", ".join(needs),
        "without": ", ".join(need_words(need) for need in case.absent),
        "provoked": case.provoke,
        "passes": case.passes,
        "variants": ", ".join(case.variants),
        "tags": ", ".join(sorted(case.tags)),
        "deadline": f"{case.seconds:g} s" if case.seconds else "",
        "beware": "may change the data behind the device" if case.destructive else "",
        "not run": case.manual or "",
    }
    lines = [f"{case.id}  {case.title}", ""]
    for title, text in fields.items():
        if text:
            lines += textwrap.wrap(text, 80, initial_indent=f"  {title:<10}", subsequent_indent=" " * 12)
    lines += ["", *textwrap.wrap(" ".join(case.rationale.split()), 80)]
    return "\n".join(lines)


def _level(case: Case) -> str:
    return "manual" if case.manual is not None else case.level.value


def _as_json(turn: Turn) -> dict[str, object]:
    case = turn.case
    return {
        "name": turn.name,
        "id": case.id,
        "variant": turn.variant or None,
        "level": case.level.value,
        "title": case.title,
        "section": case.section,
        "needs": [need_words(need) for need in case.needs],
        "tags": sorted(case.tags),
        "destructive": case.destructive,
        "manual": case.manual,
    }
