"""A ring served by a thread of its own: for devices in Python that block, and as a frame for those that are compiled.

The thread sleeps in ``poll`` on the kick and on a descriptor of ours that says "stop".  It is stopped for whatever
changes, which is cheap (some 100 µs) and leaves nothing to lock: between two runs the ring belongs to trio's thread,
during one to this.  So a new memory map waits until the loops have let go of the old one.
"""

from __future__ import annotations

import logging
import select
import time
import traceback
from typing import TYPE_CHECKING

import trio

from vhostuser.backend.worker import POLL_INTERVAL, Worker
from vhostuser.transport.notifier import NotifierKind, event_pair

if TYPE_CHECKING:
    from vhostuser.backend.worker import Job
    from vhostuser.virtqueue.chain import Chain

log = logging.getLogger("vhostuser.backend")


class ThreadWorker(Worker):
    """Runs the device's `run_queue_on_thread`, and is the `vhostuser.device.BlockingChainSource` that it reads."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        # A front-end that uses pipes may do so because there are no eventfds where this is to run.
        kick = job.ends.kick
        pipes = kick is not None and kick.kind is NotifierKind.PIPE
        self._alarm, self._stopped = event_pair(NotifierKind.PIPE if pipes else None)
        self._complaints = False

    async def run(self) -> None:
        """See `Worker.run`."""
        with self._alarm, self._stopped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_when_cancelled)
                # A limiter of its own: one queue more than trio has threads for would never be served.
                await trio.to_thread.run_sync(
                    self._run, limiter=trio.CapacityLimiter(1), thread_name=f"vhost-user ring {self._index}"
                )
                nursery.cancel_scope.cancel()
        if self._complaints:
            self._ends.report()

    def wake(self) -> None:
        """See `Worker.wake`."""
        if not self._alarm.closed:
            self._alarm.notify()

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stop()

    # --- on the thread ---

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:
            # The device is at fault, the other rings live on.  As text: a traceback holds chains.
            log.error("ring %d: the device gave up\n%s", self._index, traceback.format_exc())
            self._report()

    def _serve(self) -> None:
        self._device.run_queue_on_thread(self._index, self)

    def _report(self) -> None:
        self._complaints = True  # trio's thread may be replacing err just now: it is told when this one has ended

    def __iter__(self) -> ThreadWorker:
        return self

    def __next__(self) -> list[Chain]:
        watch_until = time.perf_counter() + self._device.poll_seconds
        while not self.stopping:
            chains = self._take()
            if chains:
                return chains
            if time.perf_counter() >= watch_until:
                self._wait()
        raise StopIteration

    def _wait(self) -> None:
        if self.stopping or self._queue.arm():
            return
        kick, poll = self._ends.kick, select.poll()
        poll.register(self._stopped, select.POLLIN)
        if kick is None:
            poll.poll(POLL_INTERVAL * 1000)
            return
        poll.register(kick, select.POLLIN)
        poll.poll()
        try:
            kick.drain()
        except trio.EndOfChannel:
            # As in ``task.py``: nobody can kick any more.
            poll.unregister(kick)
            poll.poll()
