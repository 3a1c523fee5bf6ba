"""``vhost-user conform coverage``: which requirements there are, and what becomes of each."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from frontend.conformance.catalogue import requirements
from frontend.conformance.suite import load
from vhostuser.conformance.report.json_report import NotAReport, read
from vhostuser.conformance.report.words import group_title
from vhostuser.conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from vhostuser.conformance import Suite

NOT_RUN = frozenset({Verdict.SKIP, Verdict.UNSUPPORTED})
PASSED = frozenset({Verdict.PASS, Verdict.REJECT, Verdict.WARN})
COLUMNS = ("there", "tested", "manual", "missing")
RUN_COLUMNS = ("run", "passed")


def covered(report: TextIO | None, *, as_json: bool) -> str:
    """A table by group, or all by id as JSON.

    Args:
        report: JSON of one run or several: adds which cases were run in any of them, and passed in all that ran them.
        as_json: see above.

    Raises:
        click.UsageError: the report is none.
    """
    states = _states(load())
    outcomes = {} if report is None else _outcomes(report)
    if as_json:
        found = {id_: {"state": state, **outcomes.get(id_, {})} for id_, state in states.items()}
        return json.dumps({"requirements": found, "total": dict(Counter(states.values()))}, indent=2) + "\n"
    columns = [*COLUMNS, *(RUN_COLUMNS if report is not None else ())]
    counts: dict[str, Counter[str]] = {}
    for id_, state in states.items():
        outcome = outcomes.get(id_, {})
        told = ["there", state, *(name for name in RUN_COLUMNS if outcome.get(name))]
        counts.setdefault(id_.split("-")[1], Counter()).update(told)
    return _table(columns, counts)


def _states(suite: Suite) -> dict[str, str]:
    """``tested``, ``manual`` or ``missing``, by id, of every requirement of the catalogue and of every case."""
    states = dict.fromkeys(requirements(), "missing")
    for id_, case in suite.cases.items():
        states[id_] = "tested" if case.manual is None else "manual"
    return states


def _outcomes(report: TextIO) -> dict[str, dict[str, bool]]:
    try:
        runs = read(report)
    except NotAReport as error:
        raise click.UsageError(f"{report.name}: {error}") from None
    found: dict[str, dict[str, bool]] = {}
    for result in (each for run in runs for each in run.results):
        outcome = found.setdefault(result.case.id, {"run": False, "passed": True})
        if result.verdict not in NOT_RUN:
            outcome["run"] = True
            outcome["passed"] &= result.verdict in PASSED
    return {id_: {**outcome, "passed": outcome["run"] and outcome["passed"]} for id_, outcome in found.items()}


def _table(columns: list[str], counts: Mapping[str, Counter[str]]) -> str:
    def line(name: str, title: str, values: list[Any]) -> str:
        return f"{name:<5}{title:<30}" + "".join(f"{value:>9}" for value in values) + "\n"

    total: Counter[str] = Counter()
    lines = [line("", "", columns)]
    for group, count in counts.items():
        total.update(count)
        lines.append(line(group, group_title(group), [count[column] for column in columns]))
    return "".join([*lines, line("", "all", [total[column] for column in columns])])
