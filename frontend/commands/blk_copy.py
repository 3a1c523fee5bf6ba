"""Copies between a disk and a file, from any byte to any byte.

A disk moves whole blocks.  What a read gets too much is cut off.  A write that begins or ends inside a block first
reads that block, and writes it back with the other bytes as they were: nobody else may write to it meanwhile.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from frontend.commands.outcome import Failed
from frontend.commands.running import open_target, run_at
from frontend.commands.transfer import CHUNK, Rate, progress_bar, read_file, write_file
from frontend.drivers.blk import BlkDriver
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

    from frontend.commands.options import BlkTarget
    from frontend.commands.running import Patience
    from frontend.commands.transfer import Advance

STREAM = "-"


def copy_from_disk(target: BlkTarget, path: str, offset: int, size: int | None) -> Rate:
    """Read ``size`` bytes (None: all there are) from ``offset`` on into the file ``path``."""

    async def action(patience: Patience) -> Rate:
        async with open_target(target, BlkDriver, feature_names=BlkFeature) as disk:
            check_blocks(disk)
            wanted = _room(disk, offset) if size is None else size
            if wanted > _room(disk, offset):
                raise Failed(f"bytes {offset} to {offset + wanted}: the disk ends at {disk.size}; nothing was read")
            with _opened(path, "wb") as file, progress_bar("read", wanted) as advance:
                return await _read(disk, offset, wanted, file, patience, advance)

    return run_at(target, action)


def copy_to_disk(target: BlkTarget, path: str, offset: int, size: int | None) -> Rate:
    """Write the file ``path``, or its first ``size`` bytes, to the disk from ``offset`` on."""

    async def action(patience: Patience) -> Rate:
        async with open_target(target, BlkDriver, feature_names=BlkFeature) as disk:
            check_blocks(disk)
            check_writable(disk)
            with _opened(path, "rb") as file:
                wanted = _wanted(file, size)
                if wanted is not None and wanted > _room(disk, offset):
                    raise Failed(
                        f"bytes {offset} to {offset + wanted}: the disk ends at {disk.size}; nothing was written"
                    )
                with progress_bar("write", wanted) as advance:
                    rate = await _write(disk, offset, size, file, patience, advance)
            if size is not None and rate.size < size:
                raise Failed(f"the input ended after {rate.size} bytes, --size asked for {size}; they were written")
            return rate

    return run_at(target, action)


def check_blocks(disk: BlkDriver) -> None:
    """Raises `Failed` when requests of this size would cut the disk's blocks."""
    if disk.block_size % block_of(disk):
        raise Failed(f"the disk has blocks of {block_of(disk)} bytes: give --block-size a multiple of that")


def check_writable(disk: BlkDriver) -> None:
    """Raises `Failed` when the disk says that it is not."""
    if disk.read_only:
        raise Failed("the disk is read-only; nothing was written")


def block_of(disk: BlkDriver) -> int:
    """Bytes of the smallest piece that the disk reads or writes."""
    return max(SECTOR_SIZE, disk.config.blk_size if disk.link.features & BlkFeature.BLK_SIZE else 0)


async def _read(
    disk: BlkDriver, offset: int, size: int, file: io.RawIOBase, patience: Patience, advance: Advance
) -> Rate:
    rate, position, end = Rate(), offset, offset + size
    while position < end:
        first, last = _whole_blocks(disk, position, min(end, position + CHUNK))
        found = memoryview(bytearray(last - first))
        with rate.measured(disk, min(end, last) - position):
            await disk.run(disk.reads(first // SECTOR_SIZE, found))
        piece = found[position - first : min(end, last) - first]
        await write_file(file, piece, patience)
        advance(len(piece))
        position += len(piece)
    return rate


async def _write(
    disk: BlkDriver, offset: int, size: int | None, file: io.RawIOBase, patience: Patience, advance: Advance
) -> Rate:
    rate, position = Rate(), offset
    while size is None or rate.size < size:
        # The first piece ends where a block does, so that only the first and the last one are cut.
        wanted = CHUNK - position % block_of(disk)
        data = await read_file(file, wanted if size is None else min(wanted, size - rate.size), patience)
        if not data:
            break
        if len(data) > _room(disk, position):
            raise Failed(f"the disk is full: it ends at {disk.size}; {rate.size} bytes of the input were written")
        with rate.measured(disk, len(data)):
            await _put(disk, position, data)
        patience.progress()
        advance(len(data))
        position += len(data)
    with rate.measured(disk, 0):
        await disk.flush()
    return rate


async def _put(disk: BlkDriver, position: int, data: bytes) -> None:
    end = position + len(data)
    first, last = _whole_blocks(disk, position, end)
    if (first, last) != (position, end):
        whole = memoryview(bytearray(last - first))
        block = block_of(disk)
        for edge in {first, max(first, last - block)}:
            await disk.run(disk.reads(edge // SECTOR_SIZE, whole[edge - first : edge - first + block]))
        whole[position - first : end - first] = data
        data = bytes(whole)
    await disk.write(first // SECTOR_SIZE, data)


def _whole_blocks(disk: BlkDriver, start: int, end: int) -> tuple[int, int]:
    block = block_of(disk)
    return start // block * block, min(-(-end // block) * block, disk.size)


def _room(disk: BlkDriver, offset: int) -> int:
    return max(0, disk.size - offset)


def _wanted(file: io.RawIOBase, size: int | None) -> int | None:
    """How many bytes there will be to write, if the kind of file tells."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return size
    there = max(0, status.st_size - file.tell())
    return there if size is None else min(there, size)


@contextmanager
def _opened(path: str, mode: str) -> Iterator[io.RawIOBase]:
    """The file, or standard input or output, without a buffer: threads must not wait for one another's."""
    stream = sys.stdin.fileno() if mode == "rb" else sys.stdout.fileno()
    with open(stream if path == STREAM else path, mode, buffering=0, closefd=path != STREAM) as file:
        yield cast("io.RawIOBase", file)
