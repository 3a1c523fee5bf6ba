"""Task, thread, or loop without the GIL: a ring's life is the same, and no request is lost or done twice.

A disk is read all the time while its ring is stopped, started and changed.  What is counted at the end is exact: the
requests that the front-end saw come back are those that the device served, and the ring stands right behind them.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest
import trio

from tests.backend.disk_load import NO_STATUS, SECTORS, ask, content, loaded, memory_disk, read_sector
from tests.backend.requests import break_ring
from tests.backend.scripted import FEATURES, address, reaping, served
from tests.engines import ON_A_THREAD, SERVING
from tests.kinds import NOTIFIERS
from vhostuser.devices.blk import BlkDevice, FileStorage
from vhostuser.fd import Fd
from vhostuser.transport.notifier import event_pair
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature, BlkRange, BlkRangeFlags, BlkStatus, BlkType

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.queue import Queue
    from tests.backend.scripted import Script
    from vhostuser.device import Serving
    from vhostuser.transport.notifier import NotifierKind

every_way = pytest.mark.parametrize("serving", SERVING)
every_thread = pytest.mark.parametrize("serving", ON_A_THREAD)
DISK_FEATURES = FEATURES | BlkFeature.FLUSH | BlkFeature.DISCARD | BlkFeature.WRITE_ZEROES


async def ready(script: Script, *, features: int = DISK_FEATURES, kind: NotifierKind | None = None) -> Queue:
    await script.negotiate(features)
    await script.share_memory()
    queue = script.make_queue(notifier=kind)
    await script.start(queue)
    return queue


async def go_on(script: Script, queue: Queue) -> None:
    """Start the ring again where it stood, with what is in it."""
    queue.base = await script.base(queue.index)
    await script.start(queue)


@every_way
@pytest.mark.parametrize("kind", NOTIFIERS)
async def test_requests_are_served_and_counted(serving: Serving, kind: NotifierKind) -> None:
    device = memory_disk(serving)
    async with served(device) as script:
        queue = await ready(script, kind=kind)
        async with reaping(queue):
            for sector in range(SECTORS):
                assert await read_sector(script, queue, sector) == content(sector)
            buffer = script.ram.buffer(1024)
            assert await ask(queue, buffer, BlkType.OUT, 3, b"new".ljust(SECTOR_SIZE)) == BlkStatus.OK
            assert (await read_sector(script, queue, 3)).startswith(b"new ")
        assert await script.base() == SECTORS + 2
    counts = device.counts
    assert (counts.requests, counts.bytes_written) == (SECTORS + 2, SECTOR_SIZE)
    assert counts.bytes_read == (SECTORS + 1) * SECTOR_SIZE


@every_way
async def test_every_kind_of_request_gets_the_same_answer(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script:
        queue = await ready(script)
        buffer = script.ram.buffer(4096)
        clear = BlkRange(5, 2, BlkRangeFlags(0)).build()

        async def answer(kind: int, sector: int = 0, data: bytes = b"", wanted: int = 0) -> int:
            return await ask(queue, buffer, kind, sector, data, wanted=wanted)

        async with reaping(queue):
            assert await answer(BlkType.FLUSH) == BlkStatus.OK
            assert await answer(BlkType.GET_ID, wanted=20) == BlkStatus.OK
            assert bytes(buffer.view[32:52]) == b"python-vhost-user\0\0\0"
            assert await answer(BlkType.WRITE_ZEROES, data=clear) == BlkStatus.OK
            assert await read_sector(script, queue, 6) == bytes(SECTOR_SIZE)
            assert await answer(BlkType.DISCARD, data=clear) == BlkStatus.OK
            assert await answer(77) == BlkStatus.UNSUPP
            assert await answer(BlkType.IN, SECTORS - 1, wanted=SECTOR_SIZE) == BlkStatus.OK


@every_way
async def test_what_does_not_fit_the_disk_is_an_error(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script:
        queue = await ready(script)
        buffer = script.ram.buffer(4096)
        async with reaping(queue):
            for sector, length in ((SECTORS, 512), (SECTORS - 1, 1024), (1 << 63, 512), ((1 << 64) - 1, 512), (0, 100)):
                for kind in (BlkType.IN, BlkType.OUT):
                    data = bytes(length) if kind is BlkType.OUT else b""
                    wanted = 0 if data else length
                    view = buffer.view
                    view[16] = NO_STATUS
                    with trio.fail_after(10):
                        assert await ask(queue, buffer, kind, sector, data, wanted=wanted) == BlkStatus.IOERR


@every_way
async def test_of_many_reads_at_once_only_those_fail_that_the_image_has_no_bytes_for(
    serving: Serving, tmp_path: Path
) -> None:
    image, middle = tmp_path / "image", SECTORS // 2
    asked = range(middle - 8, middle + 8)
    image.write_bytes(b"".join(map(content, range(SECTORS))))
    with contextlib.closing(FileStorage(image)) as storage:
        device = BlkDevice(storage)
        device.serving = serving
        async with served(device) as script:
            queue = await ready(script)
            os.truncate(image, middle * SECTOR_SIZE)
            found: dict[int, int] = {}

            async def read(sector: int) -> None:
                buffer = script.ram.buffer(1024)
                found[sector] = await ask(queue, buffer, BlkType.IN, sector, wanted=SECTOR_SIZE)
                if found[sector] == BlkStatus.OK:
                    assert bytes(buffer.view[32 : 32 + SECTOR_SIZE]) == content(sector)

            async with reaping(queue), trio.open_nursery() as nursery:
                for sector in asked:
                    nursery.start_soon(read, sector)
    assert found == {sector: BlkStatus.OK if sector < middle else BlkStatus.IOERR for sector in asked}


@every_way
async def test_a_disk_that_is_read_only_is_not_written(serving: Serving) -> None:
    device = memory_disk(serving)
    device.read_only = True
    async with served(device) as script:
        queue = await ready(script)
        async with reaping(queue):
            assert await ask(queue, script.ram.buffer(1024), BlkType.OUT, 1, bytes(512)) == BlkStatus.IOERR
            assert await read_sector(script, queue, 1) == content(1)


@every_way
async def test_a_driver_without_flush_gets_its_writes_all_the_same(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script:
        queue = await ready(script, features=FEATURES)
        async with reaping(queue):
            assert await ask(queue, script.ram.buffer(1024), BlkType.OUT, 1, b"x" * 512) == BlkStatus.OK
            assert await read_sector(script, queue, 1) == b"x" * 512


@every_way
async def test_stopping_and_going_on_loses_and_repeats_nothing(serving: Serving) -> None:
    device = memory_disk(serving)
    async with served(device) as script:
        queue = await ready(script)
        async with loaded(script, queue) as load:
            for _ in range(20):
                await load.until_more(10)
                await go_on(script, queue)
        assert await script.base() == load.done % 65536
    assert device.counts.requests == load.done


@every_way
async def test_packed_rings_go_on_too(serving: Serving) -> None:
    device = memory_disk(serving)
    async with served(device, ring_features=RING_FEATURES | VirtioFeature.RING_PACKED) as script:
        await script.negotiate(DISK_FEATURES | VirtioFeature.RING_PACKED)
        await script.share_memory()
        queue = script.make_queue(base=0x80008000)
        await script.start(queue)
        async with loaded(script, queue) as load:
            for _ in range(20):
                await load.until_more(10)
                await go_on(script, queue)
    assert device.counts.requests == load.done


@every_way
async def test_disabling_and_enabling_loses_nothing(serving: Serving) -> None:
    device = memory_disk(serving)
    async with served(device) as script:
        queue = await ready(script)
        async with loaded(script, queue) as load:
            for _ in range(20):
                await script.ask(f.SetVringEnable(0, 0))
                await script.ask(f.SetVringEnable(0, 1))
                await load.until_more(10)
    assert device.counts.requests == load.done


@every_way
async def test_memory_may_be_shared_anew_under_load(serving: Serving) -> None:
    device = memory_disk(serving)
    async with served(device) as script:
        queue = await ready(script)
        async with loaded(script, queue) as load:
            for _ in range(20):
                await script.share_memory()
                await load.until_more(10)
    assert device.counts.requests == load.done


@every_way
@pytest.mark.parametrize("event_idx", [0, VirtioFeature.EVENT_IDX], ids=["gained", "lost"])
async def test_features_count_from_the_start_of_a_ring(serving: Serving, event_idx: int) -> None:
    """SET_FEATURES comes to rings that run, to switch logging; their words for notifications stay what they are."""
    device = memory_disk(serving)
    async with served(device) as script:
        queue = await ready(script, features=DISK_FEATURES & ~VirtioFeature.EVENT_IDX | event_idx)
        async with loaded(script, queue) as load:
            await script.ask(f.SetFeatures(script.protocol.state.features ^ VirtioFeature.EVENT_IDX))
            for _ in range(5):
                await script.share_memory()
                await script.ask(address(queue))
                await load.until_more(10)
        await script.base()
        fresh = script.make_queue()
        await script.start(fresh)
        async with reaping(fresh):
            assert await read_sector(script, fresh, 3) == content(3)


@every_way
async def test_kick_call_and_addresses_may_change_under_load(serving: Serving) -> None:
    device = memory_disk(serving)
    async with served(device) as script:
        queue = await ready(script)
        async with loaded(script, queue) as load:
            for _ in range(10):
                await script.ask(f.SetVringCall.of(0), queue.call_notifier.duplicate())
                await script.ask(f.SetVringKick.of(0), queue.kick_consumer.duplicate())
                await script.ask(address(queue))
                await load.until_more(10)
    assert device.counts.requests == load.done


@every_way
async def test_a_ring_without_kick_is_looked_at_now_and_then(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue()
        await script.configure(queue)
        await script.ask(f.SetVringCall.of(0), queue.call_notifier.duplicate())
        await script.ask(f.SetVringKick.of(0, no_fd=True))
        await script.ask(f.SetVringEnable(0, 1))
        async with reaping(queue):
            for sector in range(5):
                assert await read_sector(script, queue, sector) == content(sector)


@every_thread
async def test_a_ring_whose_kick_nobody_can_signal_any_more_can_be_stopped(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script:
        queue = await ready(script)
        reader, writer = os.pipe()
        await script.ask(f.SetVringKick.of(0), Fd(reader))
        os.close(writer)
        assert await script.base() == 0
        await script.start(queue)
        async with reaping(queue):
            assert await read_sector(script, queue, 1) == content(1)


@every_way
async def test_an_empty_ring_is_watched_before_anybody_sleeps(serving: Serving) -> None:
    device = memory_disk(serving, poll_seconds=0.0005)
    async with served(device) as script:
        queue = await ready(script)
        async with loaded(script, queue, depth=1) as load:
            for _ in range(5):
                await load.until_more(10)
                await go_on(script, queue)
    assert device.counts.requests == load.done


@every_way
async def test_two_queues_are_served_side_by_side(serving: Serving) -> None:
    device = memory_disk(serving)
    async with served(device) as script:
        await ready(script)
        other = script.make_queue(1)
        await script.start(other)
        async with loaded(script, script.queues[0]) as first, loaded(script, other) as second:
            await first.until_more()
            await go_on(script, script.queues[0])
            await second.until_more()
    assert device.counts.requests == first.done + second.done


@every_way
async def test_a_broken_ring_is_reported_and_nothing_else_suffers(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script:
        queue = await ready(script)
        other = script.make_queue(1)
        await script.start(other)
        notifier, consumer = event_pair()
        with notifier, consumer:
            await script.ask(f.SetVringErr.of(0), notifier.duplicate())
            break_ring(queue)
            with trio.fail_after(10):
                await consumer.wait()
        async with reaping(other):
            assert await read_sector(script, other, 9) == content(9)


@every_way
async def test_a_front_end_that_hangs_up_under_load_is_let_go(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script, trio.open_nursery() as nursery:
        queue = await ready(script)
        for sector in range(4):
            nursery.start_soon(read_sector, script, queue, sector)
        await trio.lowlevel.checkpoint()
        script.hang_up()
        nursery.cancel_scope.cancel()


@every_way
async def test_a_connection_that_is_cancelled_under_load_ends(serving: Serving) -> None:
    async with served(memory_disk(serving)) as script:
        queue = await ready(script)
        async with trio.open_nursery() as nursery:
            for sector in range(4):
                nursery.start_soon(read_sector, script, queue, sector)
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        await script.say_bytes(b"\xff" * 12)  # breaks the protocol: the back-end cancels whatever runs
        assert await script.hung_up()
