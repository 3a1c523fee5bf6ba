"""What a request costs: that it is measured at all, with every request served; figures are nobody's to test."""

import os
from pathlib import Path

from benchmarks.cost import DEPTH, IMAGE_SIZE, Ring, Turns, measure
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.virtqueue.engine import why_not_native
from vhostuser.wire.virtio.blk import BlkFeature


async def test_a_burst_is_served_completely() -> None:
    ring, device = Ring("python"), BlkDevice(MemoryStorage(IMAGE_SIZE))
    device.negotiated(int(BlkFeature.FLUSH))
    ring.fill()
    await device.run_queue(0, Turns(ring.device))
    assert device.counts.requests == DEPTH
    assert ring.device.in_flight == 0


def test_every_engine_meets_every_storage(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        os.truncate(file.fileno(), IMAGE_SIZE)
    found = measure(image, 1)
    assert {kind for _, kind in found} == {"no I/O", "copy", "preadv"}
    assert {engine for engine, _ in found} == ({"python"} if why_not_native() else {"python", "native"})
