"""Writes random data over a disk, reads it back, compares.

The data comes from a seed, so it need not be remembered: what is expected at an offset can be made again.  SHAKE-128
makes it, 400 MiB/s here; every sector is different from every other, so one that went to the wrong place is found too.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from frontend.commands.blk_copy import block_of, check_blocks, check_writable
from frontend.commands.outcome import Failed
from frontend.commands.running import open_target, run_at
from frontend.commands.transfer import CHUNK, Rate, progress_bar
from frontend.drivers.blk import BlkDriver
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.commands.options import BlkTarget
    from frontend.commands.running import Patience

SHOWN_MISMATCHES = 5
SEED_BITS = 32


@dataclass(frozen=True)
class Mismatch:
    """A sector that does not hold what was written to it.

    Attributes:
        offset: of its first wrong byte, from the beginning of the disk.
        expected: what that byte should be.
        found: what it is.
    """

    offset: int
    expected: int
    found: int

    def __str__(self) -> str:
        return f"byte {self.offset} (sector {self.offset // SECTOR_SIZE}): {self.found:#04x}, not {self.expected:#04x}"


@dataclass
class Verdict:
    """What came out."""

    size: int
    seed: int
    write: Rate = field(default_factory=Rate)
    read: Rate = field(default_factory=Rate)
    mismatches: int = 0
    first: list[Mismatch] = field(default_factory=list)

    def add(self, found: list[Mismatch]) -> None:
        """Count sectors that differ, and remember the first of them."""
        self.mismatches += len(found)
        self.first += found[: SHOWN_MISMATCHES - len(self.first)]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "size": self.size,
            "seed": self.seed,
            "write": self.write.to_json(),
            "read": self.read.to_json(),
            "mismatching_sectors": self.mismatches,
            "first_mismatches": [asdict(each) for each in self.first],
        }


def verify(target: BlkTarget, size: int | None, seed: int | None) -> Verdict:
    """Overwrite the first ``size`` bytes of the disk (None: all of it) and say what came back."""

    async def action(patience: Patience) -> Verdict:
        async with open_target(target, BlkDriver, feature_names=BlkFeature) as disk:
            verdict = Verdict(_checked_size(disk, size), random.getrandbits(SEED_BITS) if seed is None else seed)
            await _fill(disk, verdict, patience)
            await _compare(disk, verdict, patience)
            return verdict

    return run_at(target, action)


def pattern(seed: int, offset: int, length: int) -> bytes:
    """What belongs to ``offset``."""
    return hashlib.shake_128(f"{seed} {offset}".encode()).digest(length)


def differences(expected: bytes, found: bytes | bytearray, offset: int) -> list[Mismatch]:
    """The sectors in which both differ; the first byte of both lies at ``offset``."""
    if found == expected:
        return []
    return [
        _mismatch(expected, found, at, offset)
        for at in range(0, len(expected), SECTOR_SIZE)
        if found[at : at + SECTOR_SIZE] != expected[at : at + SECTOR_SIZE]
    ]


def _mismatch(expected: bytes, found: bytes | bytearray, sector: int, offset: int) -> Mismatch:
    at = next(at for at in range(sector, sector + SECTOR_SIZE) if found[at] != expected[at])
    return Mismatch(offset + at, expected[at], found[at])


def _checked_size(disk: BlkDriver, size: int | None) -> int:
    check_blocks(disk)
    check_writable(disk)
    wanted = disk.size if size is None else size
    if wanted > disk.size or not wanted:
        raise Failed(f"{wanted} bytes asked for, the disk has {disk.size}; nothing was written")
    if wanted % block_of(disk):
        raise Failed(f"{wanted} bytes are no multiple of the disk's blocks of {block_of(disk)}; nothing was written")
    return wanted


def _chunks(size: int) -> Iterator[tuple[int, int]]:
    return ((offset, min(CHUNK, size - offset)) for offset in range(0, size, CHUNK))


async def _fill(disk: BlkDriver, verdict: Verdict, patience: Patience) -> None:
    with progress_bar("write", verdict.size) as advance:
        for offset, length in _chunks(verdict.size):
            data = await trio.to_thread.run_sync(pattern, verdict.seed, offset, length)
            with verdict.write.measured(disk, length):
                await disk.write(offset // SECTOR_SIZE, data)
            patience.progress()
            advance(length)
        with verdict.write.measured(disk, 0):
            await disk.flush()


async def _compare(disk: BlkDriver, verdict: Verdict, patience: Patience) -> None:
    with progress_bar("read", verdict.size) as advance:
        for offset, length in _chunks(verdict.size):
            found = bytearray(length)
            with verdict.read.measured(disk, length):
                await disk.run(disk.reads(offset // SECTOR_SIZE, memoryview(found)))
            expected = await trio.to_thread.run_sync(pattern, verdict.seed, offset, length)
            verdict.add(differences(expected, found, offset))
            patience.progress()
            advance(length)
