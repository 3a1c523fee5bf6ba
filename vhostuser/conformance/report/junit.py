"""JUnit XML, as Jenkins, GitLab and GitHub's actions read it: a suite per target, a test case per result.

JUnit knows failed, errors and skipped, so what we tell apart is in ``type``.  A failure is one of the target, an
error is one of ours.  A known issue counts as skipped, with its reason.  An interrupted run has an error of its own,
so that nobody takes the green part for the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from vhostuser.conformance.report.words import ending, exchange_line, one_line, printable, requirement, title, why
from vhostuser.conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from vhostuser.conformance.result import Result, Run

_SKIPPED = frozenset({Verdict.SKIP, Verdict.UNSUPPORTED, Verdict.XFAIL})


def write(runs: Sequence[Run], stream: TextIO) -> None:
    """Write ``runs`` as one XML document."""
    root = Element("testsuites", name="vhost-user conformance", time=_seconds(sum(run.seconds for run in runs)))
    for run in runs:
        _suite(root, run)
    _count(root)
    indent(root)
    stream.write("<?xml version='1.0' encoding='UTF-8'?>\n")
    ElementTree(root).write(stream, encoding="unicode")
    stream.write("\n")


def _suite(root: Element, run: Run) -> None:
    suite = SubElement(root, "testsuite", name=one_line(run.target), time=_seconds(run.seconds))
    if run.started:
        suite.set("timestamp", one_line(run.started))
    _properties(suite, run)
    for result in run.results:
        _case(suite, run, result)
    if run.interrupted:
        case = SubElement(suite, "testcase", classname=f"{run.role}.run", name="the run came to its end", time="0")
        SubElement(case, "error", type="INTERRUPTED", message="the run was interrupted before its end")
    _count(suite)


def _properties(suite: Element, run: Run) -> None:
    facts = {"role": run.role, "program": run.program, "interrupted": str(run.interrupted).lower()}
    properties = SubElement(suite, "properties")
    for name, value in {**facts, **{f"offered.{name}": value for name, value in run.offered.items()}}.items():
        SubElement(properties, "property", name=one_line(name), value=one_line(value))


def _case(suite: Element, run: Run, result: Result) -> None:
    case = SubElement(
        suite,
        "testcase",
        classname=f"{run.role}.{result.case.group}",
        name=title(result),
        time=_seconds(result.seconds),
    )
    _outcome(case, result)
    if out := _output(result):
        SubElement(case, "system-out").text = out
    if result.stderr:
        SubElement(case, "system-err").text = printable(result.stderr)


def _outcome(case: Element, result: Result) -> None:
    verdict = result.verdict
    message = one_line(why(result))
    if verdict in _SKIPPED:
        SubElement(case, "skipped", message=f"{verdict.value}: {message}")
    elif verdict.bad:
        element = SubElement(case, "error" if verdict is Verdict.ERROR else "failure", type=verdict.value)
        element.set("message", message)
        element.text = printable(_story(result))


def _story(result: Result) -> str:
    case = result.case
    lines = [why(result), f"required: {case.title} ({requirement(case)})"]
    lines += [f"provoked by: {case.provoke}", f"passes: {case.passes}"]
    lines += [f"again: {result.replay}"] if result.replay else []
    return "\n".join(lines)


def _output(result: Result) -> str:
    """What is worth telling of any result, a warning too."""
    lines = [f"{result.verdict.value}: {why(result)}"] if result.verdict in (Verdict.WARN, Verdict.REJECT) else []
    lines += [f"note: {note}" for note in result.notes]
    lines += [f"target: {end}"] if (end := ending(result)) else []
    if result.verdict.bad:
        lines += map(exchange_line, result.log)
    return printable("\n".join(lines))


def _count(element: Element) -> None:
    """Write how many cases below ``element`` ended how, as attributes of it."""
    element.set("tests", str(sum(1 for _ in element.iter("testcase"))))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(1 for _ in element.iter(tag))))


def _seconds(value: float) -> str:
    return f"{value:.3f}"
