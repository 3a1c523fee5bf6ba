"""The load of ``bench_blk.py`` by a compiled loop: a thread without the GIL for each queue.

What is left to Python is to lend the rings, to watch over the back-end meanwhile, and to add up.
"""

from __future__ import annotations

import os
import random
import time
from array import array
from contextlib import AsyncExitStack
from itertools import chain
from typing import TYPE_CHECKING

import trio

from frontend.commands.bench_load import WARM_UP, Run, check_disk, wrong_blocks
from frontend.commands.latencies import Counted
from frontend.drivers.blk import BlkDriver, BlkError
from vhostuser.transport.notifier import event_pair
from vhostuser.wire.virtio.blk import BlkType

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.commands.bench_load import Load
    from frontend.commands.running import Patience
    from frontend.queue import Queue
    from vhostuser.virtqueue.engine.load import BlkLoad
    from vhostuser.virtqueue.queue import DriverQueue

LOOK_EVERY = 0.2
"""Seconds between two looks whether requests still come back."""
_SHARES = {"read": 0.0, "mix": 0.5, "write": 1.0}


async def measure(disk: BlkDriver, load: Load, patience: Patience) -> Run:
    """Put ``load`` on the disk; the queues are of the compiled engine.

    Raises:
        Failed: the disk is too small, cannot be written, or did not give back what was written.
        BlkError: a request was refused.
        QueueClosed: the back-end is gone.
    """
    check_disk(disk, load)
    async with AsyncExitStack() as stack:
        rings = [await stack.enter_async_context(queue.lent()) for queue in disk.link.queues]
        bench = _Bench(disk, load, rings, patience)
        if load.pattern:
            await bench.run(-1, share=1.0, queues=1)
        await bench.run(load.seconds * WARM_UP)
        bench.forget()
        began = time.perf_counter()
        await bench.run(load.seconds)
        seconds = time.perf_counter() - began
    return Run(load.depth, len(rings), load.block_size, seconds, bench.latencies())


class _Bench:
    def __init__(self, disk: BlkDriver, load: Load, rings: list[DriverQueue[object]], patience: Patience) -> None:
        self._disk, self._load, self._rings, self._patience = disk, load, rings, patience
        for buffer in chain.from_iterable(map(disk.buffers, disk.link.queues)):
            buffer.view[-load.block_size :] = os.urandom(load.block_size)  # what is written when there is no pattern
        self.forget()

    def forget(self) -> None:
        from vhostuser.virtqueue.engine.load import BUCKETS

        self._buckets = [array("Q", bytes(8 * BUCKETS)) for _ in self._rings]

    def latencies(self) -> Counted:
        from vhostuser.virtqueue.engine.load import BUCKETS, bucket_end

        total = array("Q", map(sum, zip(*self._buckets, strict=True)))
        return Counted(total, [bucket_end(index) for index in range(BUCKETS)])

    async def run(self, seconds: float, *, share: float | None = None, queues: int | None = None) -> None:
        """One loop for each queue; less than 0 seconds: the whole disk once."""
        share = _SHARES[self._load.rw] if share is None else share
        async with trio.open_nursery() as nursery:
            for queue, loop in list(self._loops(share))[:queues]:
                nursery.start_soon(self._run, queue, loop, seconds)

    def _loops(self, share: float) -> list[tuple[Queue, BlkLoad]]:
        from vhostuser.virtqueue.engine.load import BlkLoad

        return [
            (
                queue,
                BlkLoad(
                    ring,
                    [(buffer.addr, buffer.view) for buffer in self._disk.buffers(queue)],
                    block_size=self._load.block_size,
                    blocks=self._disk.size // self._load.block_size,
                    write_share=share,
                    pattern=self._load.pattern,
                    seed=random.getrandbits(63),
                    latencies=buckets,
                    watch_seconds=self._load.watch_us / 1e6,
                ),
            )
            for queue, ring, buckets in zip(self._disk.link.queues, self._rings, self._buckets, strict=True)
        ]

    async def _run(self, queue: Queue, loop: BlkLoad, seconds: float) -> None:
        alarm, stopped = event_pair()
        with alarm, stopped:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, queue, loop, alarm.notify)
                numbers = queue.kick.fileno(), queue.call.fileno(), stopped.fileno()
                await trio.to_thread.run_sync(loop.run, *numbers, seconds, limiter=trio.CapacityLimiter(1))
                nursery.cancel_scope.cancel()
        if loop.failure is not None:
            sector, status = loop.failure
            raise BlkError(BlkType.OUT.name if self._load.rw == "write" else "IN or OUT", sector, status)
        if loop.wrong:
            raise wrong_blocks(loop.wrong, loop.done)

    async def _watch(self, queue: Queue, loop: BlkLoad, wake: Callable[[], None]) -> None:
        """Stop the loop when the back-end is gone or nobody has patience any more."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(queue.until, trio.Event())
                done = -1
                while True:
                    if loop.done != done:
                        self._patience.progress()
                        done = loop.done
                    await trio.sleep(LOOK_EVERY)
        finally:
            loop.stop()
            wake()
