"""What can be said of a case once it has run."""

from __future__ import annotations

from enum import Enum

__all__ = ["Grade", "Level", "Verdict"]


class Level(Enum):
    """How strongly the text asks for something."""

    MUST = "must"
    SHOULD = "should"
    MAY = "may"
    ROBUSTNESS = "robustness"
    """Not in the text, but a peer may be faulty or hostile, and the other end has to survive it."""


class Verdict(Enum):
    """The verdict on one case; `bad` and `wrecked` decide about the exit status of a run."""

    PASS = "PASS"
    REJECT = "REJECT"
    """It closed the connection in order, where that is allowed."""
    WARN = "WARN"
    """A rule that the text only recommends was not kept, or something odd was seen."""
    SKIP = "SKIP"
    """The target does not offer what the case is about."""
    UNSUPPORTED = "UNSUPPORTED"
    """This system, or this way to reach the target, does not let us look."""
    FAIL = "FAIL"
    LEAK = "LEAK"
    """It kept descriptors, mappings or memory that it should have let go."""
    WEDGED = "WEDGED"
    """It lives, and does nothing any more."""
    CRASH = "CRASH"
    """It ended when it should not have, or by a signal."""
    XFAIL = "XFAIL"
    """It failed, and the list of known issues said so."""
    XPASS = "XPASS"
    """It passed, and the list of known issues says otherwise: the list is out of date."""
    ERROR = "ERROR"
    """The suite itself failed: nothing is said of the target."""

    @property
    def bad(self) -> bool:
        """True for what makes a run fail."""
        return self in _BAD

    @property
    def wrecked(self) -> bool:
        """True when the target was no longer of use afterwards."""
        return self in (Verdict.WEDGED, Verdict.CRASH)


_BAD = frozenset({Verdict.FAIL, Verdict.LEAK, Verdict.WEDGED, Verdict.CRASH, Verdict.XPASS, Verdict.ERROR})


class Grade(Enum):
    """How a target ended when it was asked to, apart from the verdict on the case."""

    CLEAN = "clean"
    """It ended with status 0, or was not asked to end."""
    STATUS = "status"
    """It ended with another status."""
    SIGNAL = "signal"
    """A signal ended it that we did not send."""
    SLOW = "slow"
    """It did not end in time after SIGTERM, and was killed."""
    LITTER = "litter"
    """It ended, and left its socket or shared memory behind."""
