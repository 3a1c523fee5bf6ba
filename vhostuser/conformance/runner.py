"""Runs cases, one after the other, and judges each by what it raised and by what became of the target.

Nothing that a target does ends a run early but one thing: that it cannot be started again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from vhostuser.conformance import oracle
from vhostuser.conformance.deadline import Deadline
from vhostuser.conformance.judging import judge
from vhostuser.conformance.result import Result
from vhostuser.conformance.target import NotStarted
from vhostuser.conformance.verdict import Level, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vhostuser.conformance.known import KnownIssues
    from vhostuser.conformance.selection import Turn
    from vhostuser.conformance.stage import Stage
    from vhostuser.conformance.target import Subject

__all__ = ["Options", "Runner", "Watcher"]

GOOD = frozenset({Verdict.PASS, Verdict.REJECT, Verdict.WARN, Verdict.SKIP, Verdict.UNSUPPORTED})
LOOKED_AT = frozenset({Verdict.PASS, Verdict.REJECT, Verdict.WARN})
"""After these it is worth looking for leaks: nobody asks a target that failed to be tidy."""
STARTS = 2
"""Times in a row that the target may fail to start before the rest is given up."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run.

    Attributes:
        seconds: that a case may take, if it has no deadline of its own.
        strict: what the text only recommends is demanded.
        reuse: one program for many cases.  A case that does not pass on a used program is run again on a fresh one,
            and that counts, so that no result depends on the order.
    """

    seconds: float = 20.0
    strict: bool = False
    reuse: bool = False


class Watcher(Protocol):
    """Is told how a run proceeds."""

    def begins(self, turn: Turn, number: int, total: int) -> None:
        """Turn ``number``, from 1, of ``total`` is begun."""

    def ends(self, result: Result) -> None:
        """It has its verdict."""


class Runner:
    """Runs cases against one target.

    Args:
        subject: the target.
        stage: the role that we play.
        options: how.
        known: failures that are expected.
        watcher: is told.
        replay: the command that runs one turn alone, for people.
    """

    def __init__(
        self,
        subject: Subject,
        stage: Stage,
        options: Options,
        *,
        known: KnownIssues,
        watcher: Watcher,
        replay: Callable[[Turn], str] = lambda turn: "",
    ) -> None:
        self._subject, self._stage, self._options = subject, stage, options
        self._known, self._watcher, self._replay = known, watcher, replay
        self._not_started = 0
        self._used = 0

    async def run(self, turns: Sequence[Turn], results: list[Result]) -> None:
        """Run ``turns``; each result is appended as soon as it is there, so that an end before the end leaves those."""
        for number, turn in enumerate(turns, 1):
            self._watcher.begins(turn, number, len(turns))
            result = await self._one(turn)
            results.append(result)
            self._known.judge(result)
            self._watcher.ends(result)
        await self._stop(results[-1] if results else None)

    async def _one(self, turn: Turn) -> Result:
        result = Result(case=turn.case, variant=turn.variant, replay=self._replay(turn))
        if turn.case.manual is not None:
            result.verdict, result.reason = Verdict.UNSUPPORTED, f"not tested from outside: {turn.case.manual}"
        elif missing := self._stage.missing(turn.case, turn.variant):
            result.verdict, result.reason = Verdict.SKIP, f"not offered: {', '.join(missing)}"
        elif self._not_started >= STARTS:
            result.verdict, result.reason = Verdict.UNSUPPORTED, "not run: the target cannot be started any more"
        else:
            began = trio.current_time()
            await self._perform(turn, result)
            result.seconds = trio.current_time() - began
        return result

    async def _perform(self, turn: Turn, result: Result) -> None:
        """The case, all the looks around it, and once more on a fresh program if it failed on a used one."""
        used = self._used
        await self._attempt(turn, result)
        if result.verdict in GOOD and self._options.reuse:
            return
        await self._stop(result)
        if used and result.verdict not in GOOD:
            again = f"on a program that had run {used} cases before: {result.verdict.value}, {result.reason}"
            result.notes, result.shutdown, result.exit_status = [again], None, None
            await self._attempt(turn, result)
            await self._stop(result)

    async def _attempt(self, turn: Turn, result: Result) -> None:
        try:
            await self._subject.begin()
        except NotStarted as error:
            self._not_started += 1
            result.verdict, result.reason = Verdict.ERROR, f"the target did not start: {error}"
            return
        self._not_started = 0
        self._used += 1
        pid, before = self._subject.pid, self._subject.vitals()
        result.verdict, result.reason = await self._check(turn, result)
        may_end = turn.case.level is Level.ROBUSTNESS or result.verdict is Verdict.REJECT
        finding = await oracle.alive(self._subject, self._stage, result.notes, may_end=may_end)
        if finding is None and result.verdict in LOOKED_AT and self._subject.pid == pid:
            finding = await self._leak(turn, before) or await self._spin(result)
        if finding is not None:
            result.reason = "\n".join(filter(None, [finding[1], result.reason]))
            result.verdict = finding[0]
        result.stderr = self._subject.printed()

    async def _check(self, turn: Turn, result: Result | None) -> tuple[Verdict, str]:
        """What the case itself says; what it noted and logged goes into ``result``."""
        deadline = Deadline(turn.case.seconds or self._options.seconds)
        self._subject.uncounted = deadline.uncounted
        assert turn.case.check is not None
        said: Verdict | None = None
        try:
            async with self._stage.scene(turn.case, turn.variant) as scene:
                try:
                    with deadline.scope:
                        said = await turn.case.check(scene.peer)
                finally:
                    if result is not None:
                        result.notes += scene.notes()
                        result.log = scene.log()
        except Exception as error:
            return judge(error, turn.case.level, strict=self._options.strict)
        if deadline.scope.cancelled_caught:
            return Verdict.WEDGED, f"nothing came of it within {deadline.seconds:g} s"
        return said or Verdict.PASS, ""

    async def _leak(self, turn: Turn, before: object) -> oracle.Finding | None:
        """LEAK, if the target holds more after the case, and more again after a second time.

        Once is no leak: programs open and map things when they are first needed, and keep them.
        """
        subject = self._subject
        if await oracle.settled(subject, before):  # type: ignore[arg-type]
            return None
        first, held = subject.vitals(), subject.held()
        verdict, _ = await self._check(turn, None)
        if verdict not in LOOKED_AT or await oracle.settled(subject, first):
            return None
        kept = oracle.grown(subject.held(), held)
        return Verdict.LEAK, f"each time it is done, the target keeps: {kept or 'more than it had'}"

    async def _spin(self, result: Result) -> oracle.Finding | None:
        if not await oracle.spins(self._subject):
            return None
        text = "with nobody connected, the target keeps a processor busy"
        if self._options.strict:
            return Verdict.FAIL, text
        result.notes.append(text)
        return Verdict.WARN, text

    async def _stop(self, result: Result | None) -> None:
        """End the program, and write into ``result`` how it ended."""
        self._used = 0
        stopped = await self._subject.stop()
        if stopped is None or result is None:
            return
        result.shutdown, result.exit_status = stopped.grade, stopped.status
        if stopped.litter:
            result.notes.append(f"at its end the target left behind: {', '.join(stopped.litter)}")
