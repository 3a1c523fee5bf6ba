"""TAP 14, for ``prove`` and its kin: a line per result, with YAML under those that have something to tell.

A known issue is ``not ok`` with TODO.  A known issue that is none any more is ``not ok`` without: TAP would let it
pass, and then nobody takes it off the list.  Several targets are subtests.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from vhostuser.conformance.report.words import LOG_TAIL, ending, exchange_line, one_line, printable, title, why
from vhostuser.conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from vhostuser.conformance.result import Result, Run

_SPECIAL = re.compile(r"[\\#]")
_QUIET = frozenset({Verdict.PASS, Verdict.SKIP, Verdict.UNSUPPORTED})
_SKIPPED = frozenset({Verdict.SKIP, Verdict.UNSUPPORTED})


def write(runs: Sequence[Run], stream: TextIO) -> None:
    """Write ``runs``; one is the document itself, several are subtests of it."""
    stream.write("TAP version 14\n")
    lines = _run(runs[0]) if len(runs) == 1 else _subtests(runs)
    stream.writelines(f"{line}\n" for line in lines)


def _subtests(runs: Sequence[Run]) -> Iterator[str]:
    yield f"1..{len(runs)}"
    for number, run in enumerate(runs, start=1):
        name = _escaped(one_line(run.target))
        yield f"# Subtest: {name}"
        yield from (f"    {line}" for line in _run(run, bail_out=False))
        yield f"{'not ok' if run.exit_status else 'ok'} {number} - {name}"


def _run(run: Run, *, bail_out: bool = True) -> Iterator[str]:
    yield from (f"# {one_line(name)}: {one_line(value)}" for name, value in _facts(run).items() if value)
    yield f"1..{len(run.results)}" if run.results else "1..0 # SKIP nothing was run"
    for number, result in enumerate(run.results, start=1):
        yield _point(number, result)
        if result.verdict not in _QUIET or result.notes:
            yield from _diagnostics(result)
    if run.interrupted:
        # In a subtest "Bail out!" would end the document, and the targets behind it would be lost.
        yield "Bail out! interrupted" if bail_out else "# interrupted"


def _facts(run: Run) -> dict[str, str]:
    return {"target": run.target, **run.offered, "began": run.started, "by": run.program}


def _point(number: int, result: Result) -> str:
    ok = not result.verdict.bad and result.verdict is not Verdict.XFAIL
    line = f"{'ok' if ok else 'not ok'} {number} - {_escaped(title(result))}"
    if result.verdict in _SKIPPED:
        return f"{line} # SKIP {_escaped(one_line(why(result)))}"
    if result.verdict is Verdict.XFAIL:
        reason = result.known.reason if result.known else why(result)
        return f"{line} # TODO {_escaped(one_line(reason))}"
    return line


def _diagnostics(result: Result) -> Iterator[str]:
    yield "  ---"
    yield from (f"  {line}" for line in _yaml(_facts_of(result)))
    yield "  ..."


def _facts_of(result: Result) -> dict[str, str | list[str]]:
    case = result.case
    told: dict[str, str | list[str]] = {
        "verdict": result.verdict.value,
        "message": why(result),
        "level": case.level.value,
        "section": case.section,
        "provoked": case.provoke,
        "passes": case.passes,
        "target": ending(result),
        "notes": list(result.notes),
        "again": result.replay,
    }
    if result.verdict.bad:
        told["wire"] = [exchange_line(each) for each in result.log[-LOG_TAIL:]]
        told["stderr"] = printable(result.stderr).splitlines()[-LOG_TAIL:]
    return {name: value for name, value in told.items() if value}


def _yaml(told: dict[str, str | list[str]]) -> Iterator[str]:
    """YAML of which a string is written as JSON writes it: every JSON string without controls is one of YAML's too."""
    for name, value in told.items():
        if isinstance(value, str):
            yield f"{name}: {_scalar(value)}"
        else:
            yield f"{name}:"
            yield from (f"  - {_scalar(each)}" for each in value)


def _scalar(text: str) -> str:
    return json.dumps(printable(text), ensure_ascii=False)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: "\\" + found[0], text)
