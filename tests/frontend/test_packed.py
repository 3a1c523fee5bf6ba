"""The block driver on packed rings: what it does is the same, and it cannot tell the difference."""

from __future__ import annotations

import os

import pytest

from frontend import BlkDriver
from frontend.bringup import TRANSPORT_FEATURES
from tests.pairs import linked
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire.features import VirtioFeature

MIB = 1 << 20
PACKED = VirtioFeature.RING_PACKED


@pytest.mark.parametrize("queue_size", [3, 100, 128])
@pytest.mark.parametrize("without", [VirtioFeature(0), VirtioFeature.INDIRECT_DESC, VirtioFeature.EVENT_IDX])
async def test_what_is_written_is_read_back(queue_size: int, without: VirtioFeature) -> None:
    data = os.urandom(MIB)
    async with linked(
        BlkDevice(MemoryStorage(2 * MIB), num_queues=2),
        BlkDriver,
        ring_features=RING_FEATURES | PACKED,
        virtio_features=(TRANSPORT_FEATURES | PACKED) & ~without,
        queues=2,
        queue_size=queue_size,
        depth=2 * (queue_size // 3),  # a request takes three entries where there are no indirect tables
        block_size=4096,
    ) as link:
        assert link.features & (PACKED | without) == PACKED
        disk = BlkDriver(link)
        await disk.write(8, data)
        await disk.flush()
        assert await disk.read(8, len(data) // 512) == data


async def test_packed_rings_are_not_used_unless_asked_for() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB)), BlkDriver, ring_features=RING_FEATURES | PACKED) as link:
        assert not link.features & PACKED
        assert await BlkDriver(link).read(0, 1) == bytes(512)
