"""What commands that move data share: how fast it went, a bar that shows it, and whole reads from slow files."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from frontend.commands.running import Patience
    from frontend.drivers.blk import BlkDriver

    Advance = Callable[[int], None]

MIB = 1 << 20
CHUNK = 4 * MIB
"""Bytes that a command holds in memory at a time: many requests, so that all of the queue is in use."""


@dataclass
class Rate:
    """How much went over the queue, and in what time; time spent on files and pipes does not count."""

    size: int = 0
    seconds: float = 0.0
    requests: int = 0

    @contextmanager
    def measured(self, disk: BlkDriver, size: int) -> Iterator[None]:
        """The block moves ``size`` bytes to or from ``disk``."""
        began, before = time.perf_counter(), disk.requests
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
            self.requests += disk.requests - before
        self.size += size

    def __str__(self) -> str:
        return (
            f"{self.size / MIB:.4g} MiB in {self.seconds:.3f} s: "
            f"{self._per_second(self.size) / MIB:.0f} MiB/s, {self._per_second(self.requests):.0f} requests/s"
        )

    def to_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "bytes": self.size,
            "seconds": round(self.seconds, 6),
            "requests": self.requests,
            "mib_per_second": round(self._per_second(self.size) / MIB, 1),
            "requests_per_second": round(self._per_second(self.requests)),
        }

    def _per_second(self, count: int) -> float:
        return count / self.seconds if self.seconds else 0.0


@contextmanager
def progress_bar(title: str, total: int | None) -> Iterator[Advance]:
    """A function to tell of each piece that is done; it draws on stderr, if that is a terminal.

    Args:
        title: what is being done.
        total: bytes in all, if that is known.
    """
    if not sys.stderr.isatty():
        yield lambda _size: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(title), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda size: progress.advance(task, size)


# --- files that may make us wait: a pipe whose other end is a person -------------------------------------------------


async def read_file(file: io.RawIOBase, size: int, patience: Patience) -> bytes:
    """``size`` bytes, fewer only at the end of the file."""
    found = bytearray()
    with patience.suspended():
        while len(found) < size:
            piece = await trio.to_thread.run_sync(file.read, size - len(found), abandon_on_cancel=True)
            if not piece:
                break
            found += piece
    return bytes(found)


async def write_file(file: io.RawIOBase, data: memoryview, patience: Patience) -> None:
    """All of ``data``."""
    with patience.suspended():
        while data:
            written = await trio.to_thread.run_sync(file.write, data, abandon_on_cancel=True)
            data = data[written or 0 :]
