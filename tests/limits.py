"""What happens when an async test reaches its time limit.

pytest-timeout's signal method raises wherever the main thread is.  In a trio program that hangs, this is inside trio's
own event loop: the traceback says nothing about who waited for what, and the half-destroyed run disturbs the next
test.  So the first alarm writes down where each task waits and cancels the test, which then ends the ordinary way and
closes what it holds; should it not come to an end, a second alarm leaves it to pytest-timeout after all.
"""

from __future__ import annotations

import functools
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

GRACE_SECONDS = 2.0


class _Running:
    """The async test that is running, as far as a signal handler may touch it."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.token = trio.lowlevel.current_trio_token()
        self.expired = False

    def expire(self) -> None:
        self.expired = True
        print("\n".join(["the time is up, and these tasks wait:", *_waiting_tasks()]), file=sys.stderr)
        self.token.run_sync_soon(self.scope.cancel)  # one of the few things allowed in a signal handler


_running: list[_Running] = []  # at most one; a list, so that the signal handler sees the test's own


def cancelled_at_its_limit(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Wrap an async test function, so that an alarm can cancel it."""

    @functools.wraps(test)
    async def limited(*args: Any, **kwargs: Any) -> None:
        running = _Running()
        _running.append(running)
        try:
            with running.scope:
                await test(*args, **kwargs)
        finally:
            _running.clear()
        if running.expired:
            pytest.fail("the time limit is reached; stderr says where the tasks waited", pytrace=False)

    return limited


def cancel_before_raising() -> None:
    """Put ourselves in front of the alarm handler that pytest-timeout has just installed."""
    raising = signal.getsignal(signal.SIGALRM)

    def handler(number: int, frame: Any) -> None:
        if _running and not _running[0].expired:
            signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)
            _running[0].expire()
        elif callable(raising):
            raising(number, frame)

    signal.signal(signal.SIGALRM, handler)


def _waiting_tasks() -> Iterator[str]:
    root = trio.lowlevel.current_root_task()
    tasks = [root] if root else []
    while tasks:
        task = tasks.pop()
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        where = [
            f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
            for frame, line in task.iter_await_frames()
            if "/site-packages/" not in frame.f_code.co_filename and frame.f_code.co_filename != __file__
        ]
        if where:
            yield f"  {task.name}"
            yield from (f"    {line}" for line in where)
