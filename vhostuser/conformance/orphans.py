"""Processes that a program under test left behind, having sent them away from itself.

A program that goes into the background leaves its process group, its session and its parent, so that nobody who
started it can find it again.  On Linux there is a way: whoever asks for it becomes the parent of such orphans.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["adopt", "end"]

_SET_CHILD_SUBREAPER: Final = 36
"""``PR_SET_CHILD_SUBREAPER`` of Linux's prctl(2)."""
_TASKS: Final = Path("/proc/self/task")


def adopt() -> None:
    """From now on orphans among our descendants are our children; does nothing where the system cannot do it."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end() -> int:
    """Kill every child that is left, until there is none; how many there were.

    Only for a process that has waited for all children of its own.
    """
    ended: set[int] = set()
    while found := _children():
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
        ended |= found
    return len(ended)


def _children() -> set[int]:
    found: set[int] = set()
    with suppress(OSError):
        for task in _TASKS.iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return found
