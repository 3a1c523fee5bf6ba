"""Random requests at a disk for some time, and what they took.

The load is closed: `depth` requests are in flight, and each that ends makes room for the next one.  So requests per
second and latency are two views of one thing (depth = rate times mean latency), and a slow front-end shows in both.
"""

from __future__ import annotations

import math
import os
import random
import time
from array import array
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from frontend.commands.blk_copy import check_blocks, check_writable
from frontend.commands.outcome import Failed
from frontend.commands.running import open_target, run_at
from frontend.drivers.blk import BlkDriver, Request
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature, BlkType

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.commands.options import BlkTarget
    from frontend.commands.running import Patience

WARM_UP = 0.1
"""Of the time that is measured: connections, caches and the processor's clock find their pace."""
_BETWEEN_LOOKS = 16
"""Requests between two looks at the clock."""


@dataclass(frozen=True)
class Load:
    """What to do to the disk.

    Attributes:
        rw: ``read``, ``write`` or ``mix``.
        block_size: bytes in a request.
        seconds: for how long.
    """

    rw: str
    block_size: int
    seconds: float


@dataclass(frozen=True)
class Run:
    """What one depth gave.

    Attributes:
        depth: requests in flight.
        queues: that were used.
        block_size: bytes in a request.
        seconds: that it took.
        latencies: of every request, in nanoseconds, in ascending order.
    """

    depth: int
    queues: int
    block_size: int
    seconds: float
    latencies: array[int]

    @property
    def iops(self) -> float:
        """Requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Data moved."""
        return self.iops * self.block_size

    def percentile_us(self, percent: float) -> float:
        """So many of a hundred requests took no longer than this."""
        rank = math.ceil(len(self.latencies) * percent / 100)
        return self.latencies[rank - 1] / 1000

    def histogram(self) -> dict[int, int]:
        """How many requests took less than so many microseconds, a power of two, and no less than half of that."""
        counts: dict[int, int] = {}
        for latency in self.latencies:
            bits = (latency // 1000).bit_length()
            counts[bits] = counts.get(bits, 0) + 1
        return {1 << bits: counts.get(bits, 0) for bits in range(min(counts), max(counts) + 1)}

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "depth": self.depth,
            "queues": self.queues,
            "seconds": self.seconds,
            "requests": len(self.latencies),
            "iops": self.iops,
            "bytes_per_second": self.bytes_per_second,
            "p50_us": self.percentile_us(50),
            "p99_us": self.percentile_us(99),
            "p99_9_us": self.percentile_us(99.9),
            "histogram_us": {str(below): count for below, count in self.histogram().items()},
        }


def measure(target: BlkTarget, load: Load) -> Run:
    """Put ``load`` on the disk, over a connection of its own."""

    async def action(patience: Patience) -> Run:
        async with open_target(target, BlkDriver, feature_names=BlkFeature) as disk:
            _check(disk, load)
            await disk.run(_requests(disk, load, load.seconds * WARM_UP, array("q"), patience))
            latencies = array("q")
            began = time.perf_counter()
            await disk.run(_requests(disk, load, load.seconds, latencies, patience))
            seconds = time.perf_counter() - began
            return Run(target.depth, len(disk.link.queues), load.block_size, seconds, array("q", sorted(latencies)))

    return run_at(target, action)


def _check(disk: BlkDriver, load: Load) -> None:
    check_blocks(disk)
    if load.rw != "read":
        check_writable(disk)
    if disk.size < load.block_size:
        raise Failed(f"the disk has {disk.size} bytes, less than a block of {load.block_size}")


def _requests(
    disk: BlkDriver, load: Load, seconds: float, latencies: array[int], patience: Patience
) -> Iterator[Request]:
    """Requests until ``seconds`` have passed; each adds its own time to ``latencies``."""
    blocks, sectors = disk.size // load.block_size, load.block_size // SECTOR_SIZE
    data = os.urandom(load.block_size)
    share_of_writes = {"read": 0.0, "mix": 0.5, "write": 1.0}[load.rw]
    now, chance = time.perf_counter_ns, random.random

    def ended(began: int, _data: memoryview) -> None:
        latencies.append(now() - began)

    end = now() + int(seconds * 1e9)
    while now() < end:
        patience.progress()
        for _ in range(_BETWEEN_LOOKS):
            sector = int(chance() * blocks) * sectors
            done = partial(ended, now())
            if chance() < share_of_writes:
                yield Request(BlkType.OUT, sector, data=data, done=done)
            else:
                yield Request(BlkType.IN, sector, wanted=load.block_size, done=done)
