"""What all reports say alike: groups and verdicts in words, found and expected, and text that is safe to show."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

from vhostuser.conformance.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vhostuser.conformance.case import Case
    from vhostuser.conformance.result import Exchange, Result, Run

GROUPS: Final[Mapping[str, str]] = {
    "HDR": "Header and framing",
    "FEAT": "Features",
    "PF": "Protocol features",
    "OWN": "Owner and session",
    "MEM": "Memory table",
    "SLOT": "Memory slots",
    "VR": "Setting up rings",
    "SPL": "Split virtqueues",
    "PKD": "Packed virtqueues",
    "NOT": "Kick, call, err",
    "STA": "Ring states",
    "ACK": "Acknowledgements",
    "CFG": "Configuration space",
    "MQ": "Several queues",
    "LOG": "Dirty log",
    "INF": "Inflight tracking",
    "STS": "Device status",
    "RST": "Reset",
    "CH": "Backend channel",
    "INB": "In-band notifications",
    "IOM": "IOMMU",
    "NET": "Network devices, byte order",
    "CRY": "Crypto sessions",
    "PC": "Postcopy",
    "DS": "Device state",
    "OBJ": "Shared objects",
    "SHM": "Shared memory regions",
    "XEN": "Xen",
    "PRG": "The program",
    "RCN": "Reconnecting",
    "HN": "Host notifiers",
    "HOS": "Hostile messages",
    "HOR": "Hostile rings",
}
"""What the middle of an id stands for."""

MEANINGS: Final[Mapping[Verdict, str]] = {
    Verdict.PASS: "as required",
    Verdict.REJECT: "closed the connection in order, which is allowed here",
    Verdict.WARN: "not as recommended, or odd",
    Verdict.SKIP: "not offered, so not checked",
    Verdict.UNSUPPORTED: "cannot be seen from here, so not checked",
    Verdict.FAIL: "not as required",
    Verdict.LEAK: "kept what it should have let go",
    Verdict.WEDGED: "alive, but did nothing any more",
    Verdict.CRASH: "ended when it should not have",
    Verdict.XFAIL: "failed, as the list of known issues says",
    Verdict.XPASS: "passed, though the list of known issues says otherwise",
    Verdict.ERROR: "the suite itself failed: nothing is said of the target",
}
"""A verdict in a few words."""

LOG_TAIL: Final = 8
STDERR_TAIL: Final = 5
"""How many exchanges, and lines of stderr, a report for a terminal shows of a failure."""

_LABEL: Final = 24
"""Characters of a target's name in a table."""

_DIRECTIONS: Final = {"sent": ">", "received": "<"}
_FOUND = re.compile(r"^(?P<what>.*?)\bfound (?P<found>.*?)[;,] expected (?P<expected>.*)$", re.DOTALL)
_SHOWN_AS_THEY_ARE: Final = frozenset("\n\t")


class Contrast(NamedTuple):
    """The reason of a failure, taken apart."""

    what: str
    found: str
    expected: str


def contrast(reason: str) -> Contrast | None:
    """What was found and what was expected, if ``reason`` says it as our errors do; None otherwise."""
    match = _FOUND.match(reason.strip())
    return Contrast(match["what"].strip(" :"), match["found"], match["expected"]) if match else None


def group_title(group: str) -> str:
    """The group in words; a group that we do not know is its own name."""
    return GROUPS.get(group, group)


def printable(text: str) -> str:
    r"""``text`` with all that a terminal or a parser would act on written out, as ``\x1b``; lines and tabs stay.

    What a target prints is not to be trusted: it may move the cursor, turn the direction of writing, or be no Unicode.
    """
    return "".join(each if each in _SHOWN_AS_THEY_ARE or not _acts(each) else _escaped(each) for each in text)


def one_line(text: str) -> str:
    """As `printable`, in one line."""
    return " ".join(printable(text).split())


def _acts(character: str) -> bool:
    """Control and format characters, separators, surrogates, and what has no meaning or none that all agree on."""
    if character.isascii():
        return character < " " or character == "\x7f"
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp")


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def title(result: Result) -> str:
    """One line that names a result: ``B-SPL-07[packed] Entry consumed and returned once``."""
    return one_line(f"{result.name} {result.case.title}")


def why(result: Result) -> str:
    """The reason, or what the verdict means; for known issues the entry of the list too."""
    told = result.reason or ("" if result.verdict is Verdict.PASS else MEANINGS[result.verdict])
    if result.known is None:
        return told
    known = f"known issue: {result.known.reason}" + (f" ({result.known.link})" if result.known.link else "")
    return f"{known}\n{told}" if told else known


def by_group(results: Sequence[Result]) -> Iterable[tuple[str, list[Result]]]:
    """Results under the group they belong to, in the order in which each group began."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.case.group, []).append(result)
    return groups.items()


def exchange_line(exchange: Exchange) -> str:
    """One exchange: time, connection, direction, words."""
    direction = _DIRECTIONS.get(exchange.direction, "-")
    return f"{exchange.seconds:9.4f} {exchange.connection} {direction} {one_line(exchange.text)}"


def ending(result: Result) -> str:
    """How the target ended, if it did; "" otherwise."""
    told = [] if result.shutdown is None else [f"shutdown {result.shutdown.value}"]
    if result.exit_status is not None:
        status = result.exit_status
        told.append(f"ended by signal {-status}" if status < 0 else f"ended with status {status}")
    return ", ".join(told)


def requirement(case: Case) -> str:
    """How strongly it is asked for, and where."""
    return f"{case.level.value}, {one_line(case.section)}"


def summary(run: Run) -> str:
    """Counts and duration in one line."""
    counts = ", ".join(f"{count} {verdict.value}" for verdict, count in run.counts().items()) or "nothing was run"
    return f"{len(run.results)} results: {counts}; {run.seconds:.1f} s" + (
        "; INTERRUPTED before the end" if run.interrupted else ""
    )


def labels(runs: Sequence[Run]) -> list[str]:
    """A short name for each target: itself, or the program of a long command; numbered where two would be alike."""
    short = [_label(run.target) for run in runs]
    return [
        f"{name} ({short[: number + 1].count(name)})" if short.count(name) > 1 else name
        for number, name in enumerate(short)
    ]


def _label(target: str) -> str:
    if len(target) <= _LABEL:
        return target or "target"
    program = PurePosixPath(target.split()[0]).name if target.split() else target
    return program if len(program) <= _LABEL else f"{program[: _LABEL - 1]}…"
