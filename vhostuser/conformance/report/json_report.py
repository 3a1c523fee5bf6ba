"""Runs as JSON, without loss: what `write` wrote, `read` reads back.

One document holds one run or several::

    {"format": "vhost-user-conformance", "version": 1, "runs": [
        {"target": "qemu-storage-daemon …", "role": "backend", "offered": {"virtio features": "…"},
         "started": "2026-01-01T10:00:00Z", "seconds": 71.5, "interrupted": false, "program": "python-vhost-user 0.1",
         "counts": {"PASS": 400, "FAIL": 3}, "exit_status": 1,
         "cases": {"B-HDR-01": {"level": "must", "title": "…", "section": "…", "needs": ["virtio:RING_PACKED"], …}},
         "results": [{"case": "B-HDR-01", "variant": "", "verdict": "PASS", "reason": "", "log": […], …}]}]}

The members are the attributes of `Run`, `Case`, `Result`, `Exchange` and `Known`.  Enums are their values, bytes are
hexadecimal; a requirement is ``virtio:NAME``, ``protocol:NAME`` or ``need:NAME``, several bits at once are joined by
``|``.  ``counts`` and ``exit_status`` follow from the rest and are there for whoever does not want to compute them.
A case's function is not part of it.

``version`` changes when a member goes away or means something else.  New members do not change it: ignore what you do
not know.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vhostuser.conformance.case import Case
from vhostuser.conformance.report.json_fields import Fields, NotAReport
from vhostuser.conformance.report.json_needs import need_from_name, need_name
from vhostuser.conformance.result import Exchange, Known, Result, Run
from vhostuser.conformance.verdict import Grade, Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

__all__ = ["FORMAT", "VERSION", "NotAReport", "read", "to_data", "write"]

FORMAT = "vhost-user-conformance"
VERSION = 1


def write(runs: Sequence[Run], stream: TextIO) -> None:
    """Write ``runs`` as one document of ASCII."""
    json.dump(to_data(runs), stream, indent=1)
    stream.write("\n")


def read(stream: TextIO) -> list[Run]:
    """The runs that `write` wrote.

    Raises:
        NotAReport: it is something else; says where and what.
    """
    try:
        data = json.load(stream)
    except (ValueError, RecursionError) as error:
        raise NotAReport(f"no JSON: {error}") from None
    top = Fields(data, "the document")
    if (name := top.text("format")) != FORMAT:
        raise NotAReport(f"format: found {name!r}, expected {FORMAT!r}")
    if (version := top.integer("version")) != VERSION:
        raise NotAReport(f"version: found {version}, expected {VERSION}")
    return [_run_from(each) for each in top.objects("runs")]


# --- out -------------------------------------------------------------------------------------------------------------


def to_data(runs: Sequence[Run]) -> dict[str, Any]:
    """The document as Python has it before it is JSON."""
    return {"format": FORMAT, "version": VERSION, "runs": [_run_data(run) for run in runs]}


def _run_data(run: Run) -> dict[str, Any]:
    return {
        "target": run.target,
        "role": run.role,
        "offered": dict(run.offered),
        "started": run.started,
        "seconds": run.seconds,
        "interrupted": run.interrupted,
        "program": run.program,
        "counts": {verdict.value: count for verdict, count in run.counts().items()},
        "exit_status": run.exit_status,
        "cases": {result.case.id: _case_data(result.case) for result in run.results},
        "results": [_result_data(result) for result in run.results],
    }


def _case_data(case: Case) -> dict[str, Any]:
    return {
        "level": case.level.value,
        "title": case.title,
        "section": case.section,
        "rationale": case.rationale,
        "provoke": case.provoke,
        "passes": case.passes,
        "needs": [need_name(each) for each in case.needs],
        "absent": [need_name(each) for each in case.absent],
        "tags": sorted(case.tags),
        "destructive": case.destructive,
        "seconds": case.seconds,
        "variants": list(case.variants),
        "manual": case.manual,
    }


def _result_data(result: Result) -> dict[str, Any]:
    return {
        "case": result.case.id,
        "variant": result.variant,
        "verdict": result.verdict.value,
        "reason": result.reason,
        "notes": list(result.notes),
        "log": [_exchange_data(each) for each in result.log],
        "seconds": result.seconds,
        "shutdown": result.shutdown.value if result.shutdown else None,
        "exit_status": result.exit_status,
        "stderr": result.stderr,
        "replay": result.replay,
        "known": _known_data(result.known) if result.known else None,
    }


def _exchange_data(exchange: Exchange) -> dict[str, Any]:
    return {
        "seconds": exchange.seconds,
        "connection": exchange.connection,
        "direction": exchange.direction,
        "text": exchange.text,
        "data": exchange.data.hex(),
        "size": exchange.size,
        "fds": list(exchange.fds),
    }


def _known_data(known: Known) -> dict[str, Any]:
    return {
        "cases": known.cases,
        "reason": known.reason,
        "link": known.link,
        "until": known.until,
        "flaky": known.flaky,
    }


# --- in --------------------------------------------------------------------------------------------------------------


def _run_from(fields: Fields) -> Run:
    listed = fields.mapping("cases")
    cases = {name: _case_from(name, Fields(value, f"case {name}")) for name, value in listed.items()}
    offered = fields.mapping("offered")
    return Run(
        target=fields.text("target"),
        role=fields.text("role"),
        offered={name: Fields(offered, f"{fields.where}.offered").text(name) for name in offered},
        started=fields.text("started"),
        seconds=fields.number("seconds"),
        results=[_result_from(each, cases) for each in fields.objects("results")],
        interrupted=fields.flag("interrupted"),
        program=fields.text("program"),
    )


def _case_from(name: str, fields: Fields) -> Case:
    head, _, number = name.rpartition("-")
    if "-" not in head or not number.isdecimal():
        raise NotAReport(f"{fields.where}: found id {name!r}, expected one like B-HDR-01")
    return Case(
        id=name,
        level=fields.one_of("level", Level),
        title=fields.text("title"),
        section=fields.text("section"),
        rationale=fields.text("rationale"),
        provoke=fields.text("provoke"),
        passes=fields.text("passes"),
        needs=tuple(need_from_name(each, fields.where) for each in fields.texts("needs")),
        absent=tuple(need_from_name(each, fields.where) for each in fields.texts("absent")),
        tags=frozenset(fields.texts("tags")),
        destructive=fields.flag("destructive"),
        seconds=fields.optional("seconds", fields.number),
        variants=tuple(fields.texts("variants")),
        manual=fields.optional("manual", fields.text),
    )


def _result_from(fields: Fields, cases: dict[str, Case]) -> Result:
    name = fields.text("case")
    if name not in cases:
        raise NotAReport(f"{fields.where}: found case {name!r}, expected one of those in cases")
    return Result(
        case=cases[name],
        variant=fields.text("variant"),
        verdict=fields.one_of("verdict", Verdict),
        reason=fields.text("reason"),
        notes=fields.texts("notes"),
        log=[_exchange_from(each) for each in fields.objects("log")],
        seconds=fields.number("seconds"),
        shutdown=fields.optional("shutdown", lambda field: fields.one_of(field, Grade)),
        exit_status=fields.optional("exit_status", fields.integer),
        stderr=fields.text("stderr"),
        replay=fields.text("replay"),
        known=fields.optional("known", lambda field: _known_from(fields.object(field))),
    )


def _exchange_from(fields: Fields) -> Exchange:
    return Exchange(
        seconds=fields.number("seconds"),
        connection=fields.integer("connection"),
        direction=fields.text("direction"),
        text=fields.text("text"),
        data=fields.octets("data"),
        size=fields.integer("size"),
        fds=tuple(fields.texts("fds")),
    )


def _known_from(fields: Fields) -> Known:
    return Known(
        cases=fields.text("cases"),
        reason=fields.text("reason"),
        link=fields.text("link"),
        until=fields.text("until"),
        flaky=fields.flag("flaky"),
    )
