"""What a block request costs a device in Python, in processor time of one thread, with no other process in the picture:

    python -m benchmarks.cost

A rate depends on whatever else the machine does.  Here driver and device take turns on one thread, only the device's
turns are counted, in the thread's own time, and the least of many short bursts is shown: what is left when neighbours
happen to be quiet.  So two versions of the code can be compared on a busy machine.
"""

from __future__ import annotations

import mmap
import os
import random
import tempfile
import time
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from vhostuser.devices.blk import BlkDevice, FileStorage, MappedStorage, NullStorage
from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.virtqueue.engine import why_not_native
from vhostuser.virtqueue.queue import RingLayout, Segment, initial_base, open_device_queue, open_driver_queue
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.records import MemoryRegion
from vhostuser.wire.schema import codec
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature, BlkHeader, BlkType

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.devices.blk import Storage
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.engine import Engine
    from vhostuser.virtqueue.queue import DeviceQueue

DEPTH, BATCH, BLOCK = 128, 16, 4096
IMAGE_SIZE = 64 << 20
START = 0x10_0000  # of guest memory
DATA, HEADERS, STATUSES = 0x10_0000, 0x8_0000, 0x9_0000  # in it, behind the ring
APART = 0x100_0000  # between what is in front of the data and the data: two regions, as libblkio has them
FEATURES = int(VirtioFeature.VERSION_1 | VirtioFeature.EVENT_IDX)
_pack_into = codec(BlkHeader).pack_into


@dataclass
class Ring:
    """A split ring in memory of our own, with requests for reads at random places."""

    engine: Engine
    memory: memoryview = field(default_factory=lambda: memoryview(mmap.mmap(-1, DATA + DEPTH * BLOCK)))

    def __post_init__(self) -> None:
        at, parts = 0, []
        for size in RingLayout.sizes(DEPTH * 4, FEATURES):
            parts.append(self.memory[at : at + size])
            at += -(-size // 64) * 64
        layout = RingLayout(DEPTH * 4, *parts)
        guest = GuestMemory.of(
            (MemoryRegion(START, DATA, START, 0), self.memory[:DATA]),
            (MemoryRegion(START + APART, DEPTH * BLOCK, START + APART, 0), self.memory[DATA:]),
        )
        self.driver = open_driver_queue(layout, FEATURES)
        self.device = open_device_queue(layout, guest, FEATURES, base=initial_base(FEATURES), engine=self.engine)

    def fill(self) -> None:
        """Take back what was served, and ask for as many blocks again."""
        self.driver.reap(DEPTH)
        for number in range(DEPTH):
            header = HEADERS + number * 16
            sector = random.randrange(IMAGE_SIZE // BLOCK) * (BLOCK // SECTOR_SIZE)
            _pack_into(self.memory, header, BlkType.IN.value, 0, sector)
            room = _segment(APART + number * BLOCK, BLOCK), _segment(STATUSES + number, 1)
            self.driver.add([_segment(header, 16)], room, number)
        self.driver.publish()


def _segment(offset: int, length: int) -> Segment:
    return Segment(GuestAddr(START + offset), length)


class Turns:
    """The `vhostuser.device.ChainSource` of one burst."""

    def __init__(self, queue: DeviceQueue) -> None:
        self._queue = queue

    def __aiter__(self) -> Turns:
        return self

    async def __anext__(self) -> list[Chain]:
        chains = self._queue.pop(BATCH)
        if not chains:
            raise StopAsyncIteration
        self._queue.disarm()
        return chains

    def done(self, *chains: Chain) -> None:
        self._queue.complete(chains)


async def cost(engine: Engine, storage: Storage, bursts: int) -> float:
    """Nanoseconds a request."""
    ring, device = Ring(engine), BlkDevice(storage)
    device.negotiated(int(BlkFeature.FLUSH))
    found = []
    for _ in range(bursts):
        ring.fill()
        began = time.thread_time_ns()
        await device.run_queue(0, Turns(ring.device))
        found.append((time.thread_time_ns() - began) / DEPTH)
    return min(found)


def measure(image: Path, bursts: int) -> dict[tuple[Engine, str], float]:
    """Every engine that is built with every kind of storage, over ``image``, a file of `IMAGE_SIZE` bytes."""
    kinds: dict[str, Callable[[], Storage]] = {
        "no I/O": lambda: NullStorage(IMAGE_SIZE),
        "copy": lambda: MappedStorage(image),
        "preadv": lambda: FileStorage(image),
    }
    engines: tuple[Engine, ...] = ("python",) if why_not_native() else ("python", "native")
    found = {}
    for engine, (kind, make) in product(engines, kinds.items()):
        storage = make()
        found[engine, kind] = trio.run(cost, engine, storage, bursts)
        storage.close()
    return found


def main() -> None:
    with tempfile.NamedTemporaryFile() as image:
        for _ in range(IMAGE_SIZE >> 20):
            image.write(os.urandom(1 << 20))
        image.flush()
        for (engine, kind), nanoseconds in measure(Path(image.name), 500).items():
            print(f"{engine:>6} ring, Python device, {kind:<7} {nanoseconds:6.0f} ns")


if __name__ == "__main__":
    main()
