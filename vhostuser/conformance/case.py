"""A case: one requirement of the catalogue, how it is provoked, and what passes.

A case is a function with a name of the catalogue::

    @case(
        "B-HDR-02", level=Level.MUST, section="Header", title="A reply has bit 2 of the flags set",
        provoke="GET_FEATURES", passes="flags & 4",
    )
    async def reply_bit(peer: Peer) -> None:
        \"\"\"Whoever reads both requests and replies from one socket tells them apart by this bit alone.\"\"\"
        ...

Its docstring is the rationale, in a paragraph.  It returns when the target did as it should, and raises `Failure`,
`Wedged`, `Skip` or `Unsupported` when not.  It may also return a verdict, as REJECT, and note what it saw.  What the
function gets depends on the role under test: ``frontend.conformance`` hands out its ``Peer``.

A requirement that cannot be tested from outside has a `manual` entry, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from vhostuser.conformance.verdict import Level, Verdict
from vhostuser.errors import VhostUserError
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

__all__ = ["Case", "CaseError", "Check", "Failure", "Need", "Skip", "Suite", "Unsupported", "Wedged"]


class Need(Enum):
    """What a case needs besides feature bits; the value is what to say when it is missing."""

    CHANNEL = "BACKEND_REQ (bit 5) with a backend channel"
    PROGRAM = "a program that we start ourselves (--exec)"
    CONVENTIONS = "a program of the conventions for back-end programs (--exec with --socket-path or --fd)"
    OUR_PROCESS = "a process that we may look at (/proc)"
    TWO_QUEUES = "a device with two queues"
    SPLIT = "split rings"
    NO_PROTOCOL_FEATURES = "a target that works without PROTOCOL_FEATURES"


Requirement: TypeAlias = VirtioFeature | ProtocolFeature | Need
Check: TypeAlias = Callable[[Any], Awaitable[Verdict | None]]
F = TypeVar("F", bound=Check)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One requirement, and how it is checked.

    Attributes:
        id: the catalogue's, never renumbered and never reused.
        level: how strongly it is asked for.
        title: the requirement in one line.
        section: where the text has it; "V n" is section n of VIRTIO 1.3, all else a heading of the vhost-user document.
        rationale: a paragraph on why it matters.
        provoke: what is done to the target.
        passes: what it has to do then.
        needs: what the target has to offer; without it the case is skipped with the name of what is missing.
        absent: what the target must not have been given, in cases about messages without their feature.
        tags: for selection; the group, "ring", "hostile", "slow", …
        destructive: it may change the data behind the device, or leave the target unusable; only run when asked for.
        seconds: deadline of its own, if the run's is too short.
        variants: run once for each of these names, as "split" and "packed"; () for once.
        manual: why it cannot be checked from outside; None when it is checked.
        check: does it.
    """

    id: str
    level: Level
    title: str
    section: str
    rationale: str
    provoke: str
    passes: str
    needs: tuple[Requirement, ...] = ()
    absent: tuple[Requirement, ...] = ()
    tags: frozenset[str] = frozenset()
    destructive: bool = False
    seconds: float | None = None
    variants: tuple[str, ...] = ()
    manual: str | None = None
    check: Check | None = field(default=None, repr=False)

    @property
    def group(self) -> str:
        """The middle of the id: "HDR" of "B-HDR-02"."""
        return self.id.split("-")[1]

    @property
    def sort_key(self) -> tuple[str, int]:
        """Orders cases of one group by number."""
        head, _, number = self.id.rpartition("-")
        return head, int(number)


class CaseError(VhostUserError):
    """Why a case did not pass; the subclass decides the verdict."""


class Failure(CaseError):
    """The target did something else than it should; says what was found and what was expected."""


class Wedged(CaseError):
    """The target lives, but the answer or the completion never came."""


class Skip(CaseError):
    """The target does not offer what the case is about."""


class Unsupported(CaseError):
    """We cannot look, here."""


class Suite:
    """Cases by id, in the order in which they were declared, group by group."""

    def __init__(self) -> None:
        self._cases: dict[str, Case] = {}

    @property
    def cases(self) -> Mapping[str, Case]:
        """All of them."""
        return self._cases

    def case(
        self,
        id: str,  # noqa: A002
        *,
        level: Level,
        title: str,
        section: str,
        provoke: str,
        passes: str,
        needs: Iterable[Requirement] = (),
        absent: Iterable[Requirement] = (),
        tags: Iterable[str] = (),
        destructive: bool = False,
        seconds: float | None = None,
        variants: Iterable[str] = (),
    ) -> Callable[[F], F]:
        """Declare a case; the decorated function's docstring is its rationale."""

        def declare(check: F) -> F:
            self._add(
                Case(
                    id=id,
                    level=level,
                    title=title,
                    section=section,
                    rationale=inspect.cleandoc(check.__doc__ or ""),
                    provoke=provoke,
                    passes=passes,
                    needs=tuple(needs),
                    absent=tuple(absent),
                    tags=frozenset(tags),
                    destructive=destructive,
                    seconds=seconds,
                    variants=tuple(variants),
                    check=check,
                )
            )
            return check

        return declare

    def manual(
        self,
        id: str,  # noqa: A002
        *,
        level: Level,
        title: str,
        section: str,
        reason: str,
        provoke: str,
        passes: str,
    ) -> None:
        """Declare a requirement that cannot be checked from outside; ``reason`` says why."""
        self._add(
            Case(
                id=id,
                level=level,
                title=title,
                section=section,
                rationale=reason,
                provoke=provoke,
                passes=passes,
                manual=reason,
            )
        )

    def _add(self, case: Case) -> None:
        if case.id in self._cases:
            raise ValueError(f"{case.id} is declared twice: {self._cases[case.id].title!r} and {case.title!r}")
        if not case.rationale:
            raise ValueError(f"{case.id} has no rationale: give its function a docstring")
        self._cases[case.id] = case
