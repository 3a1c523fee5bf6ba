"""Packed rings as a back-end serves them: asked for, moved, handed over, broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio.testing

from frontend.queue import Segment
from tests.backend.devices import Echo
from tests.backend.scripted import FEATURES, reaping, served
from vhostuser.transport.notifier import event_pair
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.packed import INITIAL_BASE, PackedBase

if TYPE_CHECKING:
    from frontend.queue import Queue
    from tests.backend.scripted import Script

PACKED = RING_FEATURES | VirtioFeature.RING_PACKED
NOTHING = VirtioFeature(0)
BASE = int(INITIAL_BASE)


async def echo(script: Script, queue: Queue, data: bytes = b"hello") -> bytes:
    """One request, and what came back."""
    out, back = script.ram.buffer(len(data)), script.ram.buffer(len(data))
    out.view[:] = data
    used = await queue.submit([Segment(out.addr, len(data))], [Segment(back.addr, len(data))])
    answer = bytes(back.view[:used])
    script.ram.release(out)
    script.ram.release(back)
    return answer


async def packed_queue(
    script: Script, *, queue_size: int = 7, base: int = BASE, without: VirtioFeature = NOTHING
) -> Queue:
    """Everything agreed and shared, and a packed ring that is not started."""
    await script.negotiate((FEATURES | VirtioFeature.RING_PACKED) & ~without)
    await script.share_memory()
    return script.make_queue(queue_size=queue_size, base=base)


async def test_they_are_not_offered_unless_asked_for() -> None:
    async with served(Echo()) as script:
        assert not await script.number(f.GetFeatures()) & VirtioFeature.RING_PACKED
    async with served(Echo(), ring_features=PACKED) as script:
        assert await script.number(f.GetFeatures()) & VirtioFeature.RING_PACKED


async def test_a_front_end_may_choose_a_split_ring_all_the_same() -> None:
    async with served(Echo(), ring_features=PACKED) as script:
        queue = await script.ready()
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"
        assert await script.base() == 1


@pytest.mark.parametrize("queue_size", [2, 3, 100, 128])
@pytest.mark.parametrize("without", [NOTHING, VirtioFeature.INDIRECT_DESC, VirtioFeature.EVENT_IDX])
async def test_rings_of_any_size_serve_requests_and_tell_both_positions(
    queue_size: int, without: VirtioFeature
) -> None:
    requests = 2 * queue_size + 1
    async with served(Echo(), ring_features=PACKED) as script:
        queue = await packed_queue(script, queue_size=queue_size, without=without)
        await script.start(queue)
        async with reaping(queue):
            for _ in range(requests):
                assert await echo(script, queue) == b"olleh"
        laps, offset = divmod(requests * (2 if without is VirtioFeature.INDIRECT_DESC else 1), queue_size)
        place = offset | (0 if laps % 2 else 0x8000)
        assert await script.base() == place | place << 16


async def test_a_ring_goes_on_at_the_base_it_was_stopped_at() -> None:
    """A front-end hands the number back as it got it."""
    async with served(Echo(), ring_features=PACKED) as script:
        queue = await packed_queue(script)
        async with reaping(queue):
            for _ in range(4):
                await script.start(queue)
                for _ in range(5):
                    assert await echo(script, queue) == b"olleh"
                queue.base = await script.base()
        assert queue.base == 0x8006_8006, "20 entries in laps of 7"


@pytest.mark.parametrize("base", [0x8000_8000, 0x8000, 0x0005_0005, 0x8006_8006, 0])
async def test_a_ring_begins_where_set_vring_base_says(base: int) -> None:
    """DPDK's front-end sends the lower half only; nothing in the upper one means "the same"."""
    async with served(Echo(), ring_features=PACKED) as script:
        queue = await packed_queue(script, base=base)
        await script.start(queue)
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"
        found = PackedBase.of(await script.base())
        assert found.next_avail == found.next_used != PackedBase.of(base).next_avail


async def test_memory_moves_while_the_ring_runs() -> None:
    async with served(Echo(), ring_features=PACKED) as script:
        queue = await packed_queue(script)
        await script.start(queue)
        async with reaping(queue):
            for _ in range(3):
                await script.share_memory()
                assert await echo(script, queue) == b"olleh"


@pytest.mark.parametrize("base", [0x8007_8007, 0x8001_8000])
async def test_a_base_that_is_not_in_the_ring_breaks_it_and_nothing_else(base: int) -> None:
    err_notifier, err = event_pair()
    with err, err_notifier:
        async with served(Echo(), ring_features=PACKED) as script:
            queue = await packed_queue(script)
            queue.base = base
            await script.ask(f.SetVringErr.of(0), err_notifier.duplicate())
            await script.start(queue)
            await err.wait()
            assert await script.alive()


async def test_a_broken_ring_is_reported_and_tells_its_last_good_position() -> None:
    err_notifier, err = event_pair()
    with err, err_notifier:
        async with served(Echo(), ring_features=PACKED) as script:
            queue = await packed_queue(script)
            await script.ask(f.SetVringErr.of(0), err_notifier.duplicate())
            await script.start(queue)
            async with reaping(queue):
                await echo(script, queue)
            queue.desc_table.view[16:32] = bytes.fromhex("0000adde00000000 01000000 0000 8000")
            queue.notify_device()
            await err.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert await script.base() == 0x8001_8001
            assert await script.alive()
