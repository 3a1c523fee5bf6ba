"""The block driver against our own block device, through real rings in real shared memory."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from frontend import BlkDriver, BlkError, MissingFeature, QueueClosed, RngDriver, open_device
from tests.backend.process import BackendProcess
from tests.kinds import MEMORY_BACKENDS, NOTIFIERS
from tests.pairs import linked
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.devices.blk.storage import WouldBlock
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.virtio.blk import BlkStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vhostuser.memory.backends import MemoryBackend
    from vhostuser.transport.notifier import NotifierKind
    from vhostuser.wire.schema import Buffer

MIB = 1 << 20
VERSION_1 = VirtioFeature.VERSION_1


@pytest.mark.parametrize("notifier", NOTIFIERS)
@pytest.mark.parametrize("memory", MEMORY_BACKENDS)
async def test_what_is_written_is_read_back(notifier: NotifierKind, memory: type[MemoryBackend]) -> None:
    data = os.urandom(3 * MIB)
    options: dict[str, Any] = {"notifier": notifier, "memory": memory(size=16 * MIB)}
    async with linked(BlkDevice(MemoryStorage(4 * MIB)), BlkDriver, **options) as link:
        disk = BlkDriver(link)
        assert disk.capacity == 4 * MIB // 512
        await disk.write(8, data)
        await disk.flush()
        assert await disk.read(8, len(data) // 512) == data


async def test_a_request_beyond_the_end_is_an_io_error() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB)), BlkDriver) as link:
        with pytest.raises(BlkError, match="IOERR") as caught:
            await BlkDriver(link).read(MIB // 512, 1)
        assert caught.value.status == BlkStatus.IOERR


# --- many requests at once -----------------------------------------------------------------------------------------


class Counting(MemoryStorage):
    """A disk that knows how many requests it has served."""

    reads = writes = 0

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        self.reads += 1
        super().read(offset, views, nowait=nowait)

    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        self.writes += 1
        super().write(offset, views, nowait=nowait)


async def test_large_transfers_are_cut_into_requests_of_a_block() -> None:
    storage = Counting(MIB)
    async with linked(BlkDevice(storage), BlkDriver, block_size=64 * 1024, depth=4) as link:
        disk = BlkDriver(link)
        data = os.urandom(MIB - 512)
        await disk.write(1, data)
        assert await disk.read(1, len(data) // 512) == data
        assert (storage.writes, storage.reads, disk.requests) == (16, 16, 32)


@pytest.mark.parametrize(
    "virtio_features", [VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC, VirtioFeature.VERSION_1]
)
@pytest.mark.parametrize("queue_size", [4, 16])
async def test_a_depth_that_the_ring_has_no_room_for_is_as_much_as_it_has(
    queue_size: int, virtio_features: VirtioFeature
) -> None:
    options: dict[str, Any] = {
        "queue_size": queue_size,
        "depth": 64,
        "block_size": 512,
        "virtio_features": virtio_features,
    }
    async with linked(BlkDevice(MemoryStorage(MIB)), BlkDriver, **options) as link:
        disk = BlkDriver(link)
        data = os.urandom(100 * 512)
        await disk.write(0, data)
        assert await disk.read(0, 100) == data


@pytest.mark.parametrize(("queues", "depth"), [(1, 1), (1, 3), (3, 7)])
async def test_several_tasks_share_a_disk_and_its_slots(queues: int, depth: int) -> None:
    device = BlkDevice(MemoryStorage(MIB), num_queues=queues)
    async with linked(device, BlkDriver, queues=queues, depth=depth, block_size=512) as link:
        disk = BlkDriver(link)

        async def work(number: int) -> None:
            data = bytes([number]) * 512 * 20
            await disk.write(number * 20, data)
            assert await disk.read(number * 20, 20) == data

        async with trio.open_nursery() as nursery:
            for number in range(1, 9):
                nursery.start_soon(work, number)
        assert disk.requests == 8 * 40


async def test_a_transfer_that_is_cancelled_leaves_the_disk_usable() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB)), BlkDriver, depth=2, block_size=512) as link:
        disk = BlkDriver(link)
        await disk.write(0, b"x" * 512 * 100)
        for _ in range(5):
            with trio.move_on_after(0):
                await disk.read(0, 100)
        assert await disk.read(0, 100) == b"x" * 512 * 100


async def test_the_first_error_ends_a_transfer_and_the_next_one_works() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB)), BlkDriver, depth=2, block_size=512) as link:
        disk = BlkDriver(link)
        with pytest.raises(BlkError, match="OUT at sector 2048: the device answered IOERR"):
            await disk.write(disk.capacity - 4, bytes(512 * 100))
        assert disk.requests < 100
        await disk.write(disk.capacity - 4, b"y" * 2048)
        assert await disk.read(disk.capacity - 4, 4) == b"y" * 2048


# --- all that a disk can do ----------------------------------------------------------------------------------------


async def test_what_a_disk_says_of_itself() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB), serial="a name of 20 letters"), BlkDriver) as link:
        disk = BlkDriver(link)
        assert (disk.size, disk.capacity, disk.read_only) == (MIB, 2048, False)
        assert await disk.get_id() == "a name of 20 letters"
        assert disk.config.seg_max == 126


async def test_sectors_are_discarded_and_made_zero() -> None:
    async with linked(BlkDevice(MemoryStorage(64 * MIB)), BlkDriver) as link:
        disk = BlkDriver(link)
        await disk.write(0, b"z" * 4096)
        await disk.write_zeroes(1, 2)
        await disk.write_zeroes(4, 1, unmap=True)
        assert await disk.read(0, 6) == b"z" * 512 + bytes(1024) + b"z" * 512 + bytes(512) + b"z" * 512
        before = disk.requests
        await disk.discard(0, disk.capacity)
        assert disk.requests - before == 4  # of 16 MiB each
        await disk.discard(0, 0)


async def test_a_read_only_disk_is_seen_to_be_one() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB), read_only=True), BlkDriver) as link:
        disk = BlkDriver(link)
        assert disk.read_only
        with pytest.raises(BlkError, match="IOERR"):
            await disk.write(0, bytes(512))
        with pytest.raises(MissingFeature, match="the device does not offer DISCARD"):
            await disk.discard(0, 1)
        with pytest.raises(MissingFeature, match="the device does not offer WRITE_ZEROES"):
            await disk.write_zeroes(0, 1)


async def test_nothing_is_flushed_where_every_write_is_durable() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB)), BlkDriver, wanted=0) as link:
        disk = BlkDriver(link)
        await disk.write(0, bytes(512))
        await disk.flush()
        assert disk.requests == 1


async def test_parts_of_sectors_are_not_written() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB)), BlkDriver) as link:
        with pytest.raises(ValueError, match="513 bytes are not a multiple of 512"):
            await BlkDriver(link).write(0, bytes(513))


async def test_a_plan_of_another_driver_will_do() -> None:
    async with linked(BlkDevice(MemoryStorage(MIB)), RngDriver) as link:
        assert await BlkDriver(link).read(0, 1) == bytes(512)


# --- the back-end dies ---------------------------------------------------------------------------------------------


class Stuck(MemoryStorage):
    """A disk that never answers a read, as long as somebody waits for it."""

    def __init__(self) -> None:
        super().__init__(MIB)
        self.go_on = threading.Event()

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        if nowait:
            raise WouldBlock
        self.go_on.wait()


@pytest.mark.parametrize("notifier", NOTIFIERS)
async def test_requests_in_flight_end_when_the_backend_dies(notifier: NotifierKind, tmp_path: Path) -> None:
    """A process, since nothing less dies without saying goodbye."""
    with BackendProcess(tmp_path, ["blk", "--memory-size", "1M"]) as backend:
        async with open_device(backend.path, BlkDriver, notifier=notifier, retry_for=15) as disk:
            await disk.write(0, b"alive".ljust(512))
            backend.stop()  # it answers no more, and does not hang up either

            async def read() -> None:
                with pytest.raises(QueueClosed):
                    await disk.read(0, 1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                backend.kill()
            with pytest.raises(QueueClosed):
                await disk.read(0, 1)


async def test_who_waits_for_a_disk_that_never_answers_may_give_up() -> None:
    storage = Stuck()
    async with linked(BlkDevice(storage), BlkDriver) as link:
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
            await BlkDriver(link).read(0, 1)
        storage.go_on.set()


async def test_whoever_comes_when_all_slots_are_lost_is_told() -> None:
    storage = Stuck()
    async with linked(BlkDevice(storage), BlkDriver, depth=1) as link:
        disk = BlkDriver(link)
        with trio.move_on_after(0.05):
            await disk.read(0, 1)
        link.fail(QueueClosed("the end"))
        with pytest.raises(QueueClosed, match="the end"):
            await disk.read(0, 1)
        storage.go_on.set()


@pytest.mark.parametrize(("status", "name"), [(2, "UNSUPP"), (9, "status 9"), (0xFF, "status 255")])
def test_an_error_names_the_status(status: int, name: str) -> None:
    error = BlkError("IN", 7, status)
    assert str(error) == f"IN at sector 7: the device answered {name}"
    assert isinstance(error, OSError)
