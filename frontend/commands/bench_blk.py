"""Random requests at a disk for some time, and what they took.

The load is closed: `depth` requests are in flight, and each that ends makes room for the next one.  So requests per
second and latency are two views of one thing (depth = rate times mean latency), and a slow front-end shows in both.
"""

from __future__ import annotations

import os
import random
import time
from array import array
from functools import partial
from typing import TYPE_CHECKING

from frontend.commands import bench_native
from frontend.commands.bench_load import WARM_UP, Run, check_disk, wrong_blocks
from frontend.commands.latencies import Exact
from frontend.commands.running import open_target, run_at
from frontend.drivers.blk import BlkDriver, Request
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature, BlkType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.commands.bench_load import Load
    from frontend.commands.options import BlkTarget
    from frontend.commands.running import Patience
    from vhostuser.virtqueue.engine import Engine

_BETWEEN_LOOKS = 16
"""Requests between two looks at the clock."""


def measure(target: BlkTarget, load: Load, engine: Engine) -> Run:
    """Put ``load`` on the disk, over a connection of its own."""

    async def action(patience: Patience) -> Run:
        async with open_target(target, BlkDriver, feature_names=BlkFeature) as disk:
            return await (bench_native.measure if engine == "native" else _measure)(disk, load, patience)

    return run_at(target, action)


async def _measure(disk: BlkDriver, load: Load, patience: Patience) -> Run:
    check_disk(disk, load)
    blocks = _Blocks(disk, load, patience)
    if load.pattern:
        await disk.run(blocks.all_written())
    await disk.run(blocks.at_random(load.seconds * WARM_UP))
    blocks.latencies = array("q")
    began = time.perf_counter()
    await disk.run(blocks.at_random(load.seconds))
    seconds = time.perf_counter() - began
    if blocks.wrong:
        raise wrong_blocks(blocks.wrong, len(blocks.latencies))
    return Run(load.depth, len(disk.link.queues), load.block_size, seconds, Exact(blocks.latencies))


class _Blocks:
    """Requests, one for a block, each of which adds its own time to `latencies`."""

    def __init__(self, disk: BlkDriver, load: Load, patience: Patience) -> None:
        self._load, self._patience = load, patience
        self._count, self._sectors = disk.size // load.block_size, load.block_size // SECTOR_SIZE
        self._noise = os.urandom(load.block_size)
        self.latencies = array("q")
        self.wrong = 0

    def all_written(self) -> Iterator[Request]:
        """The pattern, all over the disk."""
        for block in range(self._count):
            self._patience.progress()
            yield self._write(block * self._sectors)

    def at_random(self, seconds: float) -> Iterator[Request]:
        """Until ``seconds`` have passed, however soon that is: a few are always made."""
        share_of_writes = {"read": 0.0, "mix": 0.5, "write": 1.0}[self._load.rw]
        now, chance = time.perf_counter_ns, random.random
        end = now() + int(seconds * 1e9)
        while True:
            self._patience.progress()
            for _ in range(_BETWEEN_LOOKS):
                sector = int(chance() * self._count) * self._sectors
                yield self._write(sector) if chance() < share_of_writes else self._read(sector)
            if now() >= end:
                return

    def _write(self, sector: int) -> Request:
        data = self._load.block(sector) if self._load.pattern else self._noise
        return Request(BlkType.OUT, sector, data=data, done=partial(self._ended, time.perf_counter_ns(), -1))

    def _read(self, sector: int) -> Request:
        expected = sector if self._load.pattern else -1
        done = partial(self._ended, time.perf_counter_ns(), expected)
        return Request(BlkType.IN, sector, wanted=self._load.block_size, done=done)

    def _ended(self, began: int, expected: int, data: memoryview) -> None:
        self.latencies.append(time.perf_counter_ns() - began)
        if expected >= 0 and data != self._load.block(expected):
            self.wrong += 1
