"""Prints what the conformance suite makes of each mutant, as Markdown: ``mutant_table.py [NAME...]``.

The page docs/conformance-mutants.md is what this prints of all of them; the exit status is 1 when one survives.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.conformance.mutants import all_mutants
from tests.conformance.selftest import finding, hunt_all, survived
from tests.conformance.warm import forks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.conformance.mutants import Mutant
    from vhostuser.conformance import Result

HEAD = """# Mutants

The conformance suite is tested by back-ends with one fault each: every one of them has to be caught by the cases that
it names. `make test` does that; this page is what `python tests/tools/mutant_table.py` prints.

| mutant | deviation | killed by | verdict | seen |
|---|---|---|---|---|"""


async def table(mutants: Sequence[Mutant]) -> bool:
    """Print a line for each; whether all were caught."""
    with forks() as forked:
        found = await hunt_all(forked, mutants)
    good = True
    for each in mutants:
        print(line(each, found[each.name]))
        for case in survived(each, found[each.name]):
            good = False
            told = [f"{one.name} {one.verdict.value} {one.reason}" for one in found[each.name] if one.case.id == case]
            print(f"survived {case}: {'; '.join(told)}", file=sys.stderr)
    return good


def line(mutant: Mutant, results: Sequence[Result]) -> str:
    """A row of the table: what the first case that caught it saw."""
    found = [each for each in results if finding(mutant, each)]
    ids = ", ".join(sorted({each.case.id for each in found})) or "**survived**"
    verdict, seen = (finding(mutant, found[0]), seen_by(found[0])) if found else ("", "")
    return f"| {mutant.name} | {mutant.deviation} | {ids} | {verdict} | {seen} |"


def seen_by(result: Result) -> str:
    """The reason in a line that fits a cell."""
    text = " ".join((result.reason or "; ".join(result.notes)).split()).replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= 160 else f"{text[:157]}…"


def main(names: Sequence[str]) -> int:
    """Run the tool."""
    mutants: Mapping[str, Mutant] = all_mutants()
    print(HEAD)
    return 0 if trio.run(table, [mutants[name] for name in names or mutants]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
