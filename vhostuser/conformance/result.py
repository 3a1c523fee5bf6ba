"""What a run leaves behind: a result per case, and the whole as plain data for the reporters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vhostuser.conformance.verdict import Grade, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vhostuser.conformance.case import Case

__all__ = ["Exchange", "Known", "Result", "Run"]


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One thing that happened on a connection, for the log of a case.

    Attributes:
        seconds: since the case began.
        connection: which of its connections, from 0.
        direction: "sent", "received", or "note" for something that was done or seen beside the socket.
        text: the message decoded, in one line.
        data: its bytes, header included; shortened when long, then ``size`` is larger.
        size: bytes it had.
        fds: its descriptors, each described ("memfd 00:01 1234").
    """

    seconds: float
    connection: int
    direction: str
    text: str
    data: bytes = b""
    size: int = 0
    fds: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Known:
    """An entry of the list of known issues.

    Attributes:
        cases: glob over ids ("B-SLOT-*") with an optional variant ("B-SPL-07[packed]").
        reason: what is wrong, in a sentence.
        link: where it is reported or explained; "" for none.
        until: date or version from which on the entry is void; "" for none.
        flaky: they pass at times, and that says nothing.
    """

    cases: str
    reason: str
    link: str = ""
    until: str = ""
    flaky: bool = False


@dataclass(kw_only=True)
class Result:
    """The verdict on one case, or on one variant of it, and why.

    Attributes:
        case: what was checked.
        variant: "split", "packed", …; "" without variants.
        verdict: the verdict.
        reason: what was found and expected, in a few lines; "" when it passed.
        notes: what was seen and is worth telling, whatever the verdict.
        log: what went over the wire.
        seconds: how long it took.
        shutdown: how the target ended when it was stopped after this case; None when it was not.
        exit_status: of the target, if it ended; negative for a signal.
        stderr: what the target printed meanwhile, the end of it.
        replay: the command that runs this case alone.
        known: the entry that turned it into XFAIL or XPASS.
    """

    case: Case
    variant: str = ""
    verdict: Verdict = Verdict.ERROR
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    log: list[Exchange] = field(default_factory=list)
    seconds: float = 0.0
    shutdown: Grade | None = None
    exit_status: int | None = None
    stderr: str = ""
    replay: str = ""
    known: Known | None = None

    @property
    def name(self) -> str:
        """The id, with the variant: ``B-SPL-07[packed]``."""
        return f"{self.case.id}[{self.variant}]" if self.variant else self.case.id


@dataclass(kw_only=True)
class Run:
    """A whole run.

    Attributes:
        target: its name, or the command that starts it.
        role: "backend" or "frontend", what is under test.
        offered: what the target said of itself, for people: virtio features, protocol features, queues, device type.
        started: when, ISO 8601 in UTC.
        seconds: how long it took.
        results: in the order of the run.
        interrupted: the run was ended before its end.
        program: our name and version.
    """

    target: str
    role: str = "backend"
    offered: Mapping[str, str] = field(default_factory=dict)
    started: str = ""
    seconds: float = 0.0
    results: list[Result] = field(default_factory=list)
    interrupted: bool = False
    program: str = ""

    def counts(self) -> dict[Verdict, int]:
        """How many results have each verdict; those that nobody has are left out."""
        return {each: n for each in Verdict if (n := sum(result.verdict is each for result in self.results))}

    @property
    def exit_status(self) -> int:
        """0 all is well, 1 something failed, 4 the target crashed or wedged, 130 interrupted."""
        if self.interrupted:
            return 130
        if any(result.verdict.wrecked for result in self.results):
            return 4
        return int(any(result.verdict.bad for result in self.results))
