"""What is measured at a disk, and what came of it, whichever engine makes the requests."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frontend.commands.blk_copy import check_blocks, check_writable
from frontend.commands.outcome import Failed
from vhostuser.wire.virtio.blk import SECTOR_SIZE

if TYPE_CHECKING:
    from frontend.commands.latencies import Latencies
    from frontend.drivers.blk import BlkDriver

WARM_UP = 0.1
"""Of the time that is measured: connections, caches and the processor's clock find their pace."""
_WORDS = SECTOR_SIZE // 8


@dataclass(frozen=True)
class Load:
    """What to do to the disk.

    Attributes:
        rw: ``read``, ``write`` or ``mix``.
        block_size: bytes in a request.
        seconds: for how long.
        depth: requests in flight.
        pattern: first 64-bit word of the disk, which is written all over before and then expected: each word is one
            more than the word before it.  0: what is read is not looked at.
        watch_us: microseconds for which a compiled loop looks at the ring before it sleeps.
    """

    rw: str
    block_size: int
    seconds: float
    depth: int = 1
    pattern: int = 0
    watch_us: int = 0

    def block(self, sector: int) -> bytes:
        """What the pattern wants at a sector; `pattern` is not 0."""
        first = self.pattern + sector * _WORDS
        return array("Q", range(first, first + self.block_size // 8)).tobytes()


@dataclass(frozen=True)
class Run:
    """What one depth gave.

    Attributes:
        depth: requests in flight.
        queues: that were used.
        block_size: bytes in a request.
        seconds: that it took.
        latencies: of every request.
    """

    depth: int
    queues: int
    block_size: int
    seconds: float
    latencies: Latencies

    @property
    def requests(self) -> int:
        """All of them."""
        return self.latencies.count

    @property
    def iops(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Data moved."""
        return self.iops * self.block_size

    def percentile_us(self, percent: float) -> float:
        """So many of a hundred requests took no longer than this."""
        return self.latencies.percentile_us(percent)

    def histogram(self) -> dict[int, int]:
        """How many requests took less than so many microseconds, a power of two, and no less than half of that."""
        return self.latencies.histogram()

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "depth": self.depth,
            "queues": self.queues,
            "seconds": self.seconds,
            "requests": self.requests,
            "iops": self.iops,
            "bytes_per_second": self.bytes_per_second,
            "p50_us": self.percentile_us(50),
            "p99_us": self.percentile_us(99),
            "p99_9_us": self.percentile_us(99.9),
            "histogram_us": {str(below): count for below, count in self.histogram().items()},
        }


def check_disk(disk: BlkDriver, load: Load) -> None:
    """Raises `Failed` when ``load`` cannot be put on this disk."""
    check_blocks(disk)
    if load.rw != "read" or load.pattern:
        check_writable(disk)
    if disk.size < load.block_size:
        raise Failed(f"the disk has {disk.size} bytes, less than a block of {load.block_size}")


def wrong_blocks(wrong: int, requests: int) -> Failed:
    """What to raise when blocks came back other than they were written."""
    return Failed(f"{wrong} of {requests} blocks came back other than they were written")
