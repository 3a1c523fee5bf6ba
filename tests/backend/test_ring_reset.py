"""One ring is reset while others run: what RING_RESET (virtio 1.3, 2.6.1) comes to over vhost-user.

There is no message for it.  A front-end that emulates the reset of a queue stops the ring with GET_VRING_BASE and,
when the driver enables the queue again, sets it up afresh; size, place and position may all be others.  Not all do, so
the bit is offered only by those who know their front-end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.backend.devices import Echo, Patient
from tests.backend.requests import begin, echo
from tests.backend.scripted import FEATURES, reaping, served
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from vhostuser.virtqueue.chain import Chain

PACKED, RESET = VirtioFeature.RING_PACKED, VirtioFeature.RING_RESET
formats = pytest.mark.parametrize(
    ("ring_format", "sizes", "bases"),
    [
        pytest.param(VirtioFeature(0), (16, 4), (0, 0xFFFE), id="split"),
        pytest.param(PACKED, (16, 5), (0x8000_8000, 0x0003_0003), id="packed"),
    ],
)


class SlowOnOne(Patient):
    """Waits for its gate on ring 0; ring 1 is served as by `Echo`."""

    async def process(self, queue: int, chain: Chain) -> None:
        if queue:
            return await Echo.process(self, queue, chain)
        await super().process(queue, chain)


@formats
async def test_a_ring_is_stopped_and_made_anew_while_another_serves(
    ring_format: VirtioFeature, sizes: tuple[int, int], bases: tuple[int, int]
) -> None:
    device = SlowOnOne()
    async with (
        served(device, ring_features=RING_FEATURES | ring_format | RESET) as script,
        trio.open_nursery() as nursery,
    ):
        await script.negotiate(FEATURES | ring_format | RESET)
        await script.share_memory()
        reset, other = (script.make_queue(index, queue_size=sizes[0], base=bases[0]) for index in range(2))
        await script.start(reset)
        await script.start(other)
        lengths = begin(script, reset)
        async with reaping(reset, other):
            assert await echo(script, other) == b"olleh"
            nursery.start_soon(script.base, reset.index)
            await trio.testing.wait_all_tasks_blocked()
            assert await echo(script, other) == b"olleh", "while the reset waits for what the device has taken"
            device.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            assert lengths == [5]
            fresh = script.make_queue(reset.index, queue_size=sizes[1], base=bases[1])
            assert await echo(script, other) == b"olleh"
            await script.start(fresh)
            async with reaping(fresh):
                for _ in range(2 * sizes[1] + 1):
                    assert await echo(script, fresh) == b"olleh"
                    assert await echo(script, other) == b"olleh"


@formats
async def test_what_a_reset_ring_still_offers_is_never_served(
    ring_format: VirtioFeature, sizes: tuple[int, int], bases: tuple[int, int]
) -> None:
    device = Echo()
    async with served(device, ring_features=RING_FEATURES | ring_format | RESET) as script:
        await script.negotiate(FEATURES | ring_format | RESET)
        assert script.protocol.state.features & RESET
        await script.share_memory()
        queue = script.make_queue(queue_size=sizes[0], base=bases[0])
        await script.start(queue)
        await script.base()
        lengths = begin(script, queue)
        fresh = script.make_queue(queue_size=sizes[1], base=bases[1])
        await script.start(fresh)
        async with reaping(fresh):
            assert await echo(script, fresh) == b"olleh"
        assert (lengths, device.served) == ([], [0])
