"""How long requests took: each of them remembered, or counted in buckets where there are too many to remember."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator, Sequence


class Latencies(Protocol):
    """Of all requests of a run."""

    @property
    def count(self) -> int:
        """Requests."""

    def percentile_us(self, percent: float) -> float:
        """So many of a hundred requests took no longer than this."""

    def histogram(self) -> dict[int, int]:
        """How many requests took less than so many microseconds, a power of two, and no less than half of that."""


class Exact:
    """Every one of them.

    Args:
        nanoseconds: in any order.
    """

    def __init__(self, nanoseconds: Sequence[int]) -> None:
        self._sorted = sorted(nanoseconds)

    @property
    def count(self) -> int:
        return len(self._sorted)

    def percentile_us(self, percent: float) -> float:
        return self._sorted[_rank(self.count, percent) - 1] / 1000

    def histogram(self) -> dict[int, int]:
        return _powers_of_two((latency, 1) for latency in self._sorted)


class Counted:
    """By buckets, as the compiled loop counts them: no figure is off by more than a 64th.

    Args:
        buckets: how many requests took as long as ``ends`` says.
        ends: most nanoseconds of each bucket, ascending.
    """

    def __init__(self, buckets: array[int], ends: Sequence[int]) -> None:
        self._buckets = [(end, count) for end, count in zip(ends, buckets, strict=True) if count]
        self._count = sum(buckets)

    @property
    def count(self) -> int:
        return self._count

    def percentile_us(self, percent: float) -> float:
        rank = _rank(self._count, percent)
        for end, count in self._buckets:
            rank -= count
            if rank <= 0:
                return end / 1000
        raise ValueError("no requests at all")

    def histogram(self) -> dict[int, int]:
        return _powers_of_two(self._buckets)


def _rank(count: int, percent: float) -> int:
    return math.ceil(count * percent / 100)


def _powers_of_two(latencies: Iterator[tuple[int, int]] | Sequence[tuple[int, int]]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for latency, count in latencies:
        bits = (latency // 1000).bit_length()
        counts[bits] = counts.get(bits, 0) + count
    return {1 << bits: counts.get(bits, 0) for bits in range(min(counts), max(counts) + 1)}
