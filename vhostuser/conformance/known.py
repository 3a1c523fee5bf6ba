"""Failures that are expected: a list in a TOML file, with the reason for each.

::

    [[known]]
    cases = "B-SLOT-07"              # a glob over ids; "B-SPL-07[packed]" for one variant; or a list of those
    reason = "keeps the descriptor of a slot that it refused"
    link = "https://example.org/issue/1"
    until = 2027-06-30               # from then on the entry is void, and the case counts again
    flaky = true                     # it passes at times, and that says nothing: a race, for one
"""

from __future__ import annotations

import datetime
import tomllib
from typing import TYPE_CHECKING, Any

from vhostuser.conformance.result import Known
from vhostuser.conformance.selection import matches
from vhostuser.conformance.verdict import Verdict
from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.conformance.result import Result

__all__ = ["KnownIssues", "KnownIssuesError"]

FIELDS = {"cases", "reason", "link", "until", "flaky"}
EXPECTED_TO_FAIL = frozenset({Verdict.FAIL, Verdict.LEAK, Verdict.WEDGED, Verdict.CRASH})
"""An ERROR is ours, and no list of a target's faults hides it."""
PASSED = frozenset({Verdict.PASS, Verdict.REJECT, Verdict.WARN})
_WILD = set("*?")


class KnownIssuesError(VhostUserError):
    """This is no list of known issues."""


class KnownIssues:
    """The entries that count today.

    Args:
        entries: all of them.
        today: entries with an earlier or the same ``until`` are void.
    """

    def __init__(self, entries: Sequence[Known] = (), *, today: datetime.date | None = None) -> None:
        day = today or datetime.date.today()
        self.entries = [each for each in entries if not _void(each.until, day)]
        self.void = [each for each in entries if _void(each.until, day)]

    @classmethod
    def parse(cls, text: str, *, today: datetime.date | None = None) -> KnownIssues:
        """The list in a TOML document.

        Raises:
            KnownIssuesError: it is none; says where.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise KnownIssuesError(str(error)) from None
        listed = document.get("known", [])
        if set(document) - {"known"} or not isinstance(listed, list):
            raise KnownIssuesError(f"found {', '.join(sorted(document))}, expected an array of tables: [[known]]")
        entries = [entry for number, each in enumerate(listed, 1) for entry in _entries(number, each)]
        return cls(entries, today=today)

    def judge(self, result: Result) -> None:
        """Turn a failure that is expected into XFAIL, and a pass that is not into XPASS.

        A glob that means several cases expects that some of them fail: a pass among them says nothing.  Nor does one
        of a case that is listed as flaky.
        """
        entry = self._entry_for(result.name)
        if entry is None:
            return
        if result.verdict in EXPECTED_TO_FAIL:
            was = result.verdict.value
            result.verdict, result.known = Verdict.XFAIL, entry
            result.notes.append(f"known issue, {was} was expected: {entry.reason}")
        elif result.verdict in PASSED and not entry.flaky and not _WILD & set(entry.cases):
            result.verdict, result.known = Verdict.XPASS, entry
            result.reason = f"the list of known issues says that it fails: {entry.reason}"

    def _entry_for(self, name: str) -> Known | None:
        fitting = [each for each in self.entries if matches(name, each.cases)]
        return min(fitting, key=lambda each: bool(_WILD & set(each.cases)), default=None)


def _entries(number: int, fields: Any) -> list[Known]:
    """One for each glob of a table."""
    where = f"entry {number} of [[known]]"
    if not isinstance(fields, dict):
        raise KnownIssuesError(f"{where}: found {fields!r}, expected a table")
    if unknown := set(fields) - FIELDS:
        raise KnownIssuesError(f"{where}: found {', '.join(sorted(unknown))}, expected {', '.join(sorted(FIELDS))}")
    if not fields.get("cases") or not fields.get("reason"):
        raise KnownIssuesError(f"{where}: it needs `cases` and `reason`")
    flaky = fields.get("flaky", False)
    if not isinstance(flaky, bool):
        raise KnownIssuesError(f"{where}: found flaky = {flaky!r}, expected true or false")
    globs = fields["cases"] if isinstance(fields["cases"], list) else [fields["cases"]]
    texts = {name: str(value) for name, value in fields.items() if name not in ("cases", "flaky")}
    return [Known(cases=str(glob), **texts, flaky=flaky) for glob in globs]


def _void(until: str, today: datetime.date) -> bool:
    """Whether a date has come; what is no date, a version for one, is for people to look at."""
    try:
        return datetime.date.fromisoformat(until) <= today
    except ValueError:
        return False
