"""Which cases are run, and in which order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from vhostuser.conformance.case import Case, Suite
    from vhostuser.conformance.verdict import Level

__all__ = ["Selection", "Turn", "matches"]

_VARIANT: Final = re.compile(r"\[[a-z][a-z_-]+\]$")


@dataclass(frozen=True, slots=True)
class Turn:
    """A case, or one variant of it, to be run once."""

    case: Case
    variant: str = ""

    @property
    def name(self) -> str:
        """As `Result.name`."""
        return f"{self.case.id}[{self.variant}]" if self.variant else self.case.id


def matches(name: str, pattern: str) -> bool:
    """Whether a glob means this id or name; without a variant it means all of them.

    A word in brackets at the end is a variant, as in a name; other brackets are a choice of letters.
    """
    variant = _VARIANT.search(pattern)
    if variant is not None:
        pattern = f"{pattern[: variant.start()]}[[]{variant[0][1:]}"
    return fnmatchcase(name, pattern) or fnmatchcase(name.partition("[")[0], pattern)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What somebody asked for.

    Attributes:
        patterns: globs over ids ("B-MEM-*") and names ("B-SPL-07[packed]"); "no:…" leaves out; () for all.
        levels: only these; () for all.
        tags: cases with one of these, or of one of these groups; "no:…" leaves out; () for all.
        destructive: those that may harm the data behind the device too.
        first: names to begin with, those that failed last time.
        groups: the order of the groups; others follow as the suite has them.
    """

    patterns: Sequence[str] = ()
    levels: Collection[Level] = ()
    tags: Sequence[str] = ()
    destructive: bool = False
    first: Collection[str] = ()
    groups: Sequence[str] = ()

    def turns(self, suite: Suite) -> list[Turn]:
        """What is to be run: group by group, and by number within a group."""
        turns = [turn for case in self._in_order(suite.cases.values()) if self._wants(case) for turn in _variants(case)]
        wanted = [turn for turn in turns if self._named(turn.name)]
        return sorted(wanted, key=lambda turn: turn.name not in self.first)

    def _in_order(self, cases: Iterable[Case]) -> list[Case]:
        groups: dict[str, list[Case]] = {group: [] for group in self.groups}
        for case in cases:
            groups.setdefault(case.group, []).append(case)
        return [case for group in groups.values() for case in sorted(group, key=lambda case: case.sort_key)]

    def _wants(self, case: Case) -> bool:
        tags = {*case.tags, case.group}
        return (
            (not self.levels or case.level in self.levels)
            and (self.destructive or not case.destructive)
            and _chosen(self.tags, lambda tag: tag in tags)
        )

    def _named(self, name: str) -> bool:
        return _chosen(self.patterns, lambda pattern: matches(name, pattern))


def _chosen(asked: Sequence[str], applies: Callable[[str], bool]) -> bool:
    without = [each.removeprefix("no:") for each in asked if each.startswith("no:")]
    wanted = [each for each in asked if not each.startswith("no:")]
    return not any(map(applies, without)) and (not wanted or any(map(applies, wanted)))


def _variants(case: Case) -> list[Turn]:
    return [Turn(case, variant) for variant in case.variants] or [Turn(case)]
