"""Conformance: cases, verdicts, runs and reports, for either role.

The cases themselves live where their scripted peer lives: those for back-ends in ``frontend.conformance``.
"""

from vhostuser.conformance.case import Case, CaseError, Failure, Need, Skip, Suite, Unsupported, Wedged
from vhostuser.conformance.result import Exchange, Known, Result, Run
from vhostuser.conformance.verdict import Grade, Level, Verdict

__all__ = [
    "Case",
    "CaseError",
    "Exchange",
    "Failure",
    "Grade",
    "Known",
    "Level",
    "Need",
    "Result",
    "Run",
    "Skip",
    "Suite",
    "Unsupported",
    "Verdict",
    "Wedged",
]
