"""The block device's configuration space, its queues, and how its driver hears of a new size."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from frontend import BlkDriver
from tests.pairs import linked
from vhostuser.devices.blk import BlkDevice, FileStorage, MemoryStorage
from vhostuser.wire.virtio.blk import BlkConfig, BlkFeature

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


class Resizable(MemoryStorage):
    """A disk in memory that somebody makes larger or smaller."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.actual = size

    def refresh(self) -> int:
        self.size = self.actual
        return self.size


# --- bytes ---------------------------------------------------------------------------------------------------------


def test_the_57_bytes_that_qemu_reads() -> None:
    config = BlkDevice(MemoryStorage(MIB), num_queues=4).read_config(0, 57)
    # capacity; size_max, seg_max; geometry; blk_size; topology; writeback, -; num_queues; discard; write zeroes
    expected = struct.pack("<QII4xI8xBxH3I2IB", 2048, 0, 126, 512, 0, 4, 32768, 16, 1, 32768, 16, 1)
    assert len(expected) == 57
    assert config == expected


def test_a_read_only_disk_has_no_limits_for_what_it_refuses() -> None:
    config = BlkConfig.parse(BlkDevice(MemoryStorage(MIB), read_only=True).config)
    assert (config.max_discard_sectors, config.max_discard_seg, config.discard_sector_alignment) == (0, 0, 0)
    assert (config.max_write_zeroes_sectors, config.max_write_zeroes_seg, config.write_zeroes_may_unmap) == (0, 0, 0)


def test_what_lies_behind_the_end_reads_as_zero() -> None:
    device = BlkDevice(MemoryStorage(MIB))
    assert device.read_config(90, 166) == bytes(166)
    assert device.read_config(0, 256)[:96] == device.config


def test_a_part_of_a_sector_at_the_end_of_the_image_is_not_offered() -> None:
    assert BlkDevice(MemoryStorage(1000)).capacity == 1


def test_features_that_a_driver_may_rely_on_are_offered() -> None:
    features = BlkDevice(MemoryStorage(MIB)).features
    assert features & (BlkFeature.FLUSH | BlkFeature.MQ) == BlkFeature.FLUSH | BlkFeature.MQ
    assert not features & (BlkFeature.BARRIER | BlkFeature.SCSI)  # never to be offered by a device that has VERSION_1


# --- resizing ------------------------------------------------------------------------------------------------------


def test_refresh_says_whether_the_size_has_changed() -> None:
    storage = Resizable(MIB)
    device = BlkDevice(storage)
    assert not device.refresh()
    storage.actual = 2 * MIB
    assert device.refresh()
    assert device.capacity == 4096
    assert not device.refresh()


async def test_a_running_driver_is_told_of_a_new_size() -> None:
    storage = Resizable(MIB)
    device = BlkDevice(storage)
    async with linked(device, BlkDriver) as link:
        disk = BlkDriver(link)
        changed = link.config_changed
        storage.actual = MIB // 2
        assert device.refresh()
        await changed.wait()
        assert disk.capacity == 1024


async def test_a_larger_image_can_be_used_up_to_its_new_end(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(MIB))
    storage = FileStorage(path)
    device = BlkDevice(storage)
    async with linked(device, BlkDriver) as link:
        disk, changed = BlkDriver(link), link.config_changed
        os.truncate(path, 2 * MIB)
        device.refresh()
        await changed.wait()
        await disk.write(disk.capacity - 1, b"z" * 512)
        assert path.read_bytes()[-512:] == b"z" * 512
    storage.close()


async def test_news_is_kept_while_all_rings_are_stopped() -> None:
    storage = Resizable(MIB)
    device = BlkDevice(storage)
    async with linked(device, BlkDriver) as link:
        changed = link.config_changed
        queue = link.queues[0]
        queue.base = await link.frontend.get_vring_base(0)
        storage.actual = 2 * MIB
        device.refresh()
        await trio.testing.wait_all_tasks_blocked()
        assert not changed.is_set()
        assert link.config[:8] == (2048).to_bytes(8, "little")
        await link.frontend.set_vring_kick(0, None)
        await changed.wait()
        assert link.config[:8] == (4096).to_bytes(8, "little")


async def test_a_change_before_the_driver_came_is_in_the_configuration_it_reads() -> None:
    storage = Resizable(MIB)
    device = BlkDevice(storage)
    storage.actual = 2 * MIB
    device.refresh()
    async with linked(device, BlkDriver) as link:
        assert BlkDriver(link).capacity == 4096


# --- queues --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queues", [1, 2, 5])
async def test_all_queues_serve_the_same_disk(queues: int) -> None:
    async with linked(BlkDevice(MemoryStorage(MIB), num_queues=queues), BlkDriver, queues=queues, depth=8) as link:
        assert len(link.queues) == queues
        disk = BlkDriver(link)
        data = os.urandom(MIB)
        await disk.write(0, data)
        assert await disk.read(0, MIB // 512) == data
        assert disk.config.num_queues == queues


async def test_a_driver_that_wants_more_queues_than_there_are_takes_what_it_gets() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB), num_queues=2), BlkDriver, queues=4) as link:
        assert len(link.queues) == 2
