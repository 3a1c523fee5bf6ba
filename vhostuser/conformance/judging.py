"""From what a case raised, or returned, to a verdict and its reason."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from vhostuser.conformance.case import CaseError, Skip, Unsupported, Wedged
from vhostuser.conformance.verdict import Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["judge"]

_SEVERITY: tuple[type[CaseError], ...] = (Skip, Unsupported, CaseError, Wedged)
"""Of errors that came together, the last of these kinds counts."""
SOFT = frozenset({Level.SHOULD, Level.MAY})


def judge(error: Exception, level: Level, *, strict: bool) -> tuple[Verdict, str]:
    """The verdict on a case that raised ``error``.

    Args:
        error: a group, if tasks of the case raised together.
        level: of the case.
        strict: what is only recommended counts as much as what is demanded.
    """
    ours = [each for each in _leaves(error) if isinstance(each, CaseError)]
    if not ours:
        return Verdict.ERROR, "".join(traceback.format_exception(error)).rstrip()
    worst = max(ours, key=_severity)
    match worst:
        case Skip():
            return Verdict.SKIP, str(worst)
        case Unsupported():
            return Verdict.UNSUPPORTED, str(worst)
        case Wedged():
            return Verdict.WEDGED, str(worst)
    return (Verdict.WARN if level in SOFT and not strict else Verdict.FAIL), str(worst)


def _severity(error: CaseError) -> int:
    return sum(isinstance(error, kind) * number for number, kind in enumerate(_SEVERITY, 1))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
