"""What is looked at around every case: is the target alive, does it spin, does it hold more than before?

A case asks about one requirement; a target that crashes a moment later, or that keeps a descriptor of every
connection, would pass it.  These looks need a target that we started, or at least a process that we may look at.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import trio

from vhostuser.conformance.case import CaseError, Wedged
from vhostuser.conformance.verdict import Verdict
from vhostuser.conformance.vitals import wants_to_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.conformance.stage import Stage
    from vhostuser.conformance.target import Subject, Target, Vitals

__all__ = ["Finding", "alive", "grown", "more", "settled", "spins"]

Finding = tuple[Verdict, str]

DYING: Final = 1.0
"""Seconds from a broken connection to the end of the program, core dump included."""
PARTING: Final = 2.0
"""Seconds that a program for one front-end may take to end after that has left."""
SETTLING: Final = 1.0
"""Seconds that a target may take to let go of what a connection held."""
LOOK: Final = 0.01
SPIN_LOOK: Final = 0.05
SPIN_LOOKS: Final = 100
SPINS: Final = 1.0
"""Seconds of processor time, without a pause, that are too much for a target that has nothing to do."""

_REPORTS: Final = re.compile(
    r"^.*(?:ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error: |Assertion .* failed).*$", re.MULTILINE
)
_COMPLAINTS: Final = re.compile(r"^.*(?:panicked at|Traceback \(most recent call last\)).*$", re.MULTILINE)


async def alive(subject: Subject, stage: Stage, notes: list[str], *, may_end: bool) -> Finding | None:
    """CRASH or WEDGED, if the target is not ready for the next connection; every other one is closed.

    Args:
        subject: the target.
        stage: knows what to ask on a new connection.
        notes: gets what is odd, and no more.
        may_end: it was given bad input, or closed the connection where that is allowed: to end in order, whatever
            the status, is then a way to close it.
    """
    may_end |= subject.single_session
    if subject.single_session:
        await subject.ended(PARTING)
        return _ended(subject, notes, may_end)
    if subject.endings():
        return _ended(subject, notes, may_end)
    if (sock := await subject.knock()) is None:
        await subject.ended(DYING)
        return _ended(subject, notes, may_end) if subject.endings() else _silent(subject)
    try:
        await stage.answers(sock)
    except CaseError as error:
        await subject.ended(DYING)
        if subject.endings():
            return _ended(subject, notes, may_end)
        verdict = Verdict.WEDGED if isinstance(error, Wedged) else Verdict.CRASH
        return verdict, f"afterwards, a new connection is not served: {error}"
    return _reported(subject.printed(), notes)


def _ended(subject: Subject, notes: list[str], may_end: bool) -> Finding | None:
    """What to think of programs that have ended.

    Those that the case has dialled again after their end were seen by it, and it went on: that is its own verdict.
    """
    endings = subject.endings()
    unseen = len(endings) - (subject.exited() is not None)
    for number, ending in enumerate(endings):
        if ending.status < 0:
            return Verdict.CRASH, f"the target {ending}"
        if ending.status and (found := _COMPLAINTS.search(subject.printed())):
            return Verdict.CRASH, f"the target {ending}, having printed: {found[0].strip()}"
        if number >= unseen and not may_end:
            return Verdict.CRASH, f"the target {ending}, instead of serving the next connection"
        if ending.status or not subject.single_session:
            notes.append(f"the target {ending}")
    return _reported(subject.printed(), notes)


def _silent(subject: Subject) -> Finding | None:
    if subject.sessions is not None or (subject.ours and subject.pid is None):
        return None  # there is only one session, or the case has ended the program itself
    verdict = Verdict.WEDGED if subject.ours else Verdict.CRASH
    return verdict, "afterwards, the target accepts no connection"


def _reported(printed: str, notes: list[str]) -> Finding | None:
    if found := _REPORTS.search(printed):
        return Verdict.CRASH, f"the target printed: {found[0].strip()}"
    if found := _COMPLAINTS.search(printed):
        notes.append(f"the target printed: {found[0].strip()}")
    return None


def more(now: Vitals | None, before: Vitals | None) -> bool:
    """Whether the target holds more descriptors, or more shared mappings, than it did."""
    if now is None or before is None:
        return False
    return any((getattr(now, name) or 0) > (getattr(before, name) or 0) for name in ("fds", "shared"))


async def settled(subject: Subject, before: Vitals | None) -> bool:
    """Wait until the target holds no more than ``before``; False when it still does after its time to settle."""
    for _ in range(int(SETTLING / LOOK)):
        if not more(subject.vitals(), before):
            return True
        await trio.sleep(LOOK)
    return False


def grown(held: Sequence[str], before: Sequence[str]) -> str:
    """What is held now and was not, in words, each with how often."""
    found = Counter(map(_without_number, held)) - Counter(map(_without_number, before))
    return ", ".join(f"{number} x {what}" if number > 1 else what for what, number in sorted(found.items()))


def _without_number(what: str) -> str:
    return re.sub(r"(socket|pipe):\[\d+\]", r"\1", what)


async def spins(subject: Target) -> bool:
    """Whether the target, which has nothing to do, is busy without a pause.

    That is, whenever it is looked at it wants to run, until it has had so much processor time that there is nothing
    left for it to tidy up.  How long that takes says nothing: it depends on who else wants a processor.
    """
    before = _cpu(subject)
    for number in range(SPIN_LOOKS):
        await trio.sleep(SPIN_LOOK if number else LOOK)
        now, pid = _cpu(subject), subject.pid
        if before is None or now is None or pid is None or not wants_to_run(pid):
            return False
        if now - before > SPINS:
            return True
    return False


def _cpu(subject: Target) -> float | None:
    sample = subject.vitals()
    return None if sample is None else sample.cpu_seconds
