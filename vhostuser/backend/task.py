"""A ring served by a trio task: for devices in Python, which may wait for anything while they hold chains.

Such a device may keep a chain for as long as it likes, so memory, addresses and notifiers change under its hands, and
nothing stops for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from vhostuser.backend.worker import POLL_INTERVAL, Worker

if TYPE_CHECKING:
    from vhostuser.backend.worker import Job
    from vhostuser.virtqueue.chain import Chain


SHARE = 0.0005
"""Seconds that a ring with work in it may keep trio's thread before the other rings and the message loop get a turn.

A turn costs a system call and some 6 µs, as much as five small requests.
"""


class TaskWorker(Worker):
    """Runs the device's `run_queue`, and is the `vhostuser.device.ChainSource` that it reads."""

    stops_for_changes = False

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._idle: trio.CancelScope | None = None
        self._turn_ends = 0.0

    async def run(self) -> None:
        """See `Worker.run`."""
        await self._device.run_queue(self._index, self)

    def wake(self) -> None:
        """See `Worker.wake`."""
        if self._idle is not None:
            self._idle.cancel()

    def __aiter__(self) -> TaskWorker:
        return self

    async def __anext__(self) -> list[Chain]:
        now = time.perf_counter()
        if now >= self._turn_ends:
            await trio.lowlevel.checkpoint()
            self._turn_ends = time.perf_counter() + SHARE
        # A driver that waits for one request at a time comes back sooner than a sleeper wakes: 50 µs of watching give
        # 1.6 times the requests at depth 1, and cost a processor while they last.
        watch_until = now + self._device.poll_seconds
        while not self.stopping:
            chains = self._take()
            if chains:
                return chains
            if time.perf_counter() >= watch_until:
                await self._wait()
        raise StopAsyncIteration

    async def _wait(self) -> None:
        with trio.CancelScope() as self._idle:
            if self.stopping or self._queue.arm():
                return
            kick = self._ends.kick
            if kick is None:
                await trio.sleep(POLL_INTERVAL)
                return
            try:
                await kick.wait()
            except trio.EndOfChannel:
                # A pipe whose writer is gone; the socket will say so too.  Until then nobody can kick.
                await trio.sleep_forever()
            except trio.ClosedResourceError:
                return  # replaced meanwhile: go round with the new one
