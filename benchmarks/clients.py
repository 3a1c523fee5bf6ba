"""Whoever asks: libblkio, our own front-end, and, for the machine's limits, nobody but the machine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.backends import PROGRAM, Running, environment

if TYPE_CHECKING:
    from benchmarks.programs import Programs
    from benchmarks.sample import Values

BLOCK = 4096
WATCH_US = 10_000
"""Longer than any back-end takes that has something to do: a front-end that watches so long never sleeps."""
PATIENCE = 30
"""Seconds that a client may take longer than it was asked to."""


class Failed(Exception):
    """A client did not get through; says what it said."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the client does.

    Attributes:
        depth: requests in flight on each queue.
        seconds: for how long.
        sleeping: the client waits for notifications instead of watching the ring.
        write: instead of reading.
        queues: with a thread each.
    """

    depth: int
    seconds: float
    sleeping: bool = False
    write: bool = False
    queues: int = 1

    @property
    def arguments(self) -> list[str]:
        """For ``native/blkio_load.c``, behind the socket."""
        words = ("sleep" if self.sleeping else "poll", "write" if self.write else "read")
        return [*words, str(self.depth), str(self.queues), str(BLOCK), str(self.seconds)]


def by_libblkio(programs: Programs, backend: Running, load: Load) -> Values:
    """Rate, latencies, time to the first request's end, and the back-end's processor time a request.

    Raises:
        Failed: it ended with an error.
    """
    before = backend.cpu_seconds()
    found = _told([*programs.load, str(backend.socket_path), *load.arguments], load.seconds)
    found["cpu_ns"] = (backend.cpu_seconds() - before) * 1e9 / found.pop("served")
    return found


def by_us(backend: Running, load: Load, engine: str) -> Values:
    """Rate and latencies with our front-end.

    Raises:
        Failed: it ended with an error.
    """
    chosen = ["--engine", engine] if has_option("--engine") else []
    watching = [] if load.sleeping or not has_option("--poll-us") else ["--poll-us", str(WATCH_US)]
    options = ["--depth", str(load.depth), "--queues", str(load.queues), "--seconds", str(load.seconds)]
    command = [
        *PROGRAM,
        "bench",
        "blk",
        "--socket-path",
        str(backend.socket_path),
        "--json",
        *options,
        *chosen,
        *watching,
    ]
    found = _told(command, load.seconds, engine)
    return {name: found[name] for name in ("iops", "p50_us", "p99_us")}


def by_the_machine(programs: Programs, image: Path, seconds: float) -> Values:
    """What ``native/limits.c`` finds, each a second.

    Raises:
        Failed: it ended with an error.
    """
    return _told([*programs.limits, str(image), str(BLOCK), str(seconds)], 4 * seconds)


@cache
def has_option(name: str) -> bool:
    """Whether our front-end knows it: earlier versions are measured too."""
    asked = subprocess.run([*PROGRAM, "bench", "blk", "--help"], capture_output=True, text=True, check=True)
    return name in asked.stdout


def time_of_command(*command: str) -> float:
    """Milliseconds of processor time and waiting, from start to end."""
    script = (
        "import subprocess, sys, time; began = time.perf_counter(); "
        "subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True); "
        "print((time.perf_counter() - began) * 1000)"
    )
    return float(_run([sys.executable, "-c", script, *command], 0))


def time_of_import(module: str) -> float:
    """Milliseconds that importing it takes in a new interpreter, without starting that."""
    script = f"import time; began = time.perf_counter(); import {module}; print((time.perf_counter() - began) * 1000)"
    return float(_run([sys.executable, "-c", script], 0))


def _told(command: list[str], seconds: float, engine: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_run(command, seconds, engine))
    return found


def _run(command: list[str], seconds: float, engine: str = "") -> str:
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE,
            env=environment(engine),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"no end within {seconds + PATIENCE:.0f} s: {' '.join(command)}") from None
    if ran.returncode:
        raise Failed(f"{Path(command[0]).name}: {ran.stderr.strip()[-400:]}")
    return ran.stdout
