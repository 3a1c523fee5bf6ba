"""IN_ORDER as a back-end serves it: offered when asked for, kept whatever order the device works in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio.testing

from frontend.queue import Segment
from tests.backend.devices import Echo
from tests.backend.requests import begin, echo
from tests.backend.scripted import FEATURES, reaping, served
from vhostuser.virtqueue.queue import RING_FEATURES, initial_base
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from vhostuser.device import ChainSource

PACKED, IN_ORDER = VirtioFeature.RING_PACKED, VirtioFeature.IN_ORDER


class Backwards(Echo):
    """Begins with the newest request it has."""

    async def run_queue(self, queue: int, chains: ChainSource) -> None:
        async for batch in chains:
            for chain in reversed(batch):
                await self.process(queue, chain)
                self.served.append(chain.writable.written)
                chains.done(chain)


async def test_it_is_not_offered_unless_asked_for() -> None:
    async with served(Echo()) as script:
        assert not await script.number(f.GetFeatures()) & IN_ORDER
    async with served(Echo(), ring_features=RING_FEATURES | IN_ORDER) as script:
        assert await script.number(f.GetFeatures()) & IN_ORDER


@pytest.mark.parametrize("ring_format", [VirtioFeature(0), PACKED], ids=["split", "packed"])
@pytest.mark.parametrize("order", [VirtioFeature(0), IN_ORDER], ids=["any_order", "in_order"])
async def test_the_driver_sees_its_own_order(ring_format: VirtioFeature, order: VirtioFeature) -> None:
    async with served(Backwards(), ring_features=RING_FEATURES | ring_format | order) as script:
        await script.negotiate(FEATURES | ring_format | order)
        await script.share_memory()
        queue = script.make_queue(base=initial_base(ring_format))
        finished: list[int] = []
        for length in (1, 2, 3):
            out, back = script.ram.buffer(length), script.ram.buffer(length)
            queue.start([Segment(out.addr, length)], [Segment(back.addr, length)], finished.append)
        queue.flush()
        await script.start(queue)
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
            assert finished == ([1, 2, 3] if order else [3, 2, 1])
            assert await echo(script, queue) == b"olleh"


async def test_a_ring_is_drained_before_its_position_is_told() -> None:
    async with served(Backwards(), ring_features=RING_FEATURES | IN_ORDER) as script:
        await script.negotiate(FEATURES | IN_ORDER)
        await script.share_memory()
        queue = script.make_queue()
        lengths = [begin(script, queue) for _ in range(5)]
        await script.start(queue)
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
            assert await script.base() == 5
        assert lengths == [[5]] * 5
