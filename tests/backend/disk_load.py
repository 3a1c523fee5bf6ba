"""Load on a disk behind a scripted connection: each request is counted, and so is what it gave."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from frontend.queue import Segment
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.memory.map import GuestAddr
from vhostuser.wire.schema import codec
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkHeader, BlkStatus, BlkType

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.guest.memory import Buffer
    from frontend.queue import Queue
    from tests.backend.scripted import Script
    from vhostuser.device import Serving

SECTORS = 64
_header = codec(BlkHeader)
_DATA = 32
NO_STATUS = 0xEE


def content(sector: int) -> bytes:
    """What the disk of `memory_disk` holds there."""
    return sector.to_bytes(2, "little") * (SECTOR_SIZE // 2)


def memory_disk(serving: Serving, *, num_queues: int = 2, poll_seconds: float = 0.0) -> BlkDevice:
    """A disk in memory, every sector of which says its number."""
    storage = MemoryStorage(SECTORS * SECTOR_SIZE)
    storage.write(0, [b"".join(map(content, range(SECTORS)))], nowait=True)
    device = BlkDevice(storage, num_queues=num_queues)
    device.serving, device.poll_seconds = serving, poll_seconds
    return device


async def ask(queue: Queue, buffer: Buffer, kind: int, sector: int, data: bytes = b"", *, wanted: int = 0) -> int:
    """One request, whose parts lie in ``buffer``; its status."""
    view, addr = buffer.view, buffer.addr
    _header.pack_into(view, 0, kind, 0, sector)
    view[_header.size] = NO_STATUS
    view[_DATA : _DATA + len(data)] = data
    there = Segment(GuestAddr(addr + _DATA), len(data) or wanted)
    readable = [Segment(addr, _header.size), *([there] if data else [])]
    writable = [*([there] if wanted else []), Segment(GuestAddr(addr + _header.size), 1)]
    used = await queue.submit(readable, writable)
    status = view[_header.size]
    # Bytes from the start without a gap: a read that failed leaves one in front of its status.
    assert used == (wanted + 1 if status == BlkStatus.OK or not wanted else 0)
    return status


async def read_sector(script: Script, queue: Queue, sector: int) -> bytes:
    """One sector of the disk."""
    buffer = script.ram.buffer(_DATA + SECTOR_SIZE)
    buffer.view[_DATA:] = bytes(SECTOR_SIZE)
    assert await ask(queue, buffer, BlkType.IN, sector, wanted=SECTOR_SIZE) == BlkStatus.OK
    found = bytes(buffer.view[_DATA:])
    script.ram.release(buffer)
    return found


class Load:
    """Reads without pause, several at a time; whatever comes back wrong fails the test.

    Attributes:
        done: requests that came back.
    """

    def __init__(self, script: Script, queue: Queue) -> None:
        self._script = script
        self._queue = queue
        self.done = 0
        self.stopping = False
        self._came_back = trio.Event()

    async def until_more(self, count: int = 50) -> None:
        """Wait until so many more have come back."""
        wanted = self.done + count
        while self.done < wanted:
            self._came_back = trio.Event()
            await self._came_back.wait()

    async def run(self, first: int) -> None:
        sector = first
        while not self.stopping:
            assert await read_sector(self._script, self._queue, sector) == content(sector)
            sector = (sector + 7) % SECTORS
            self.done += 1
            self._came_back.set()


@asynccontextmanager
async def loaded(script: Script, queue: Queue, *, depth: int = 4) -> AsyncIterator[Load]:
    """Load while the block runs; at its end all requests have to come back."""
    load = Load(script, queue)
    async with trio.open_nursery() as reaper:
        reaper.start_soon(queue.run)
        async with trio.open_nursery() as nursery:
            for number in range(depth):
                nursery.start_soon(load.run, number)
            yield load
            await load.until_more()
            load.stopping = True
        reaper.cancel_scope.cancel()
