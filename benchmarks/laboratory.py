"""Where measurements are made: images, the back-ends that serve them, and rounds.

A round measures each case once, beginning with another one each time, so that neither a machine that becomes slower nor
the neighbour before has always the same victim.
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from benchmarks.backends import Backend, Running, running
from benchmarks.clients import Failed, Load, by_libblkio
from benchmarks.sample import Results, Sample, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from types import TracebackType

    from benchmarks.programs import Programs

MIB = 1 << 20
WARM_UP = Load(depth=16, seconds=0.02)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to measure: where its samples go, and how to make one.

    Raises in ``measure``:
        Failed: it cannot be measured; then it is left out from then on.
    """

    experiment: str
    subject: str
    x: int
    measure: Callable[[], Values]


@dataclass
class Laboratory:
    """Owns images and running back-ends until it is closed; `results` stay.

    Attributes:
        folder: for all files; short, because sockets' paths are.
        programs: the clients.
    """

    folder: Path
    programs: Programs
    results: Results = field(default_factory=Results)
    _running: dict[tuple[str, int], Running | None] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def image(self, size: int) -> Path:
        """A file of ``size`` bytes, in the page cache."""
        path = self.folder / f"{size // MIB}M.img"
        if not path.exists():
            piece = random.randbytes(MIB)
            with path.open("wb") as file:
                for _ in range(size // MIB):
                    file.write(piece)
                os.fsync(file.fileno())  # else it is brought to the disk while somebody is measured
        return path

    def backend(self, backend: Backend, size: int) -> Running | None:
        """``backend`` over an image, started the first time; None if it cannot be, which is written down."""
        key = (backend.name, size)
        if key not in self._running:
            self._running[key] = self._start(backend, size)
        return self._running[key]

    def release(self) -> None:
        """End all back-ends."""
        self._running.clear()
        self._stack.close()

    def rounds(self, title: str, cases: Iterable[Case], count: int) -> None:
        """Measure all cases ``count`` times."""
        waiting = list(cases)
        began = time.monotonic()
        for number in range(count):
            for case in _from(waiting, number):
                _say(f"{title}, round {number + 1} of {count}: {case.subject} {case.x}")
                try:
                    sample = Sample(case.experiment, case.subject, case.x, number, case.measure())
                except Failed as error:
                    self.results.left_out[f"{case.subject} in {case.experiment}"] = str(error)
                    waiting.remove(case)
                else:
                    self.results.samples.append(sample)
        _say(f"{title}: {time.monotonic() - began:.0f} s\n")

    def _start(self, backend: Backend, size: int) -> Running | None:
        if (why_not := backend.why_not()) is None:
            started = self._stack.enter_context(running(backend, self.image(size), self.folder))
            try:
                by_libblkio(self.programs, started, WARM_UP)
            except Failed as error:
                why_not = f"{error}; it said: {started.log.read_text(errors='replace').strip()[-300:]}"
            else:
                return started
        self.results.left_out[backend.name] = why_not
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _from(cases: Sequence[Case], number: int) -> list[Case]:
    """All of them, beginning with the one whose turn it is."""
    begin = number * 7 % len(cases) if cases else 0
    return [*cases[begin:], *cases[:begin]]


def _say(text: str) -> None:
    """One line on stderr that changes, if somebody watches."""
    if sys.stderr.isatty() or text.endswith("\n"):
        print(f"\r\x1b[K{text}" if sys.stderr.isatty() else text, end="", file=sys.stderr, flush=True)
