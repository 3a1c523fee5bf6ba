"""Rings that drivers break and devices that stumble: what is reported, and what goes on."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.backend.devices import Echo, Hasty, Stumbling
from tests.backend.requests import begin, break_ring, echo
from tests.backend.scripted import QUEUE_SIZE, reaping, served
from tests.kinds import NOTIFIERS
from vhostuser.transport.notifier import NotifierKind, event_pair
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature

both_kinds = pytest.mark.parametrize("kind", NOTIFIERS)


@both_kinds
async def test_a_broken_ring_is_reported_and_the_others_go_on(
    kind: NotifierKind, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(Echo()) as script:
        await script.ready(queues=2)
        broken, good = script.queues[0], script.queues[1]
        notifier, err = event_pair(kind)
        with notifier, err:
            await script.ask(f.SetVringErr.of(0), notifier.take_fd())
            break_ring(broken)
            with trio.fail_after(10):
                await err.wait()
        assert "ring 0 is broken: split ring 0: avail.idx jumped from 0 to 23, a queue of 16" in caplog.text
        async with reaping(good):
            assert await echo(script, good) == b"olleh"
        assert await script.base() == 0


async def test_a_broken_ring_whose_err_nobody_reads_stops_nothing() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        notifier, err = event_pair(NotifierKind.PIPE)
        await script.ask(f.SetVringErr.of(0), notifier.take_fd())
        err.close()
        break_ring(queue)
        await trio.testing.wait_all_tasks_blocked()
        assert await script.alive()


async def test_a_broken_ring_can_be_stopped_and_made_anew() -> None:
    async with served(Echo()) as script:
        break_ring(await script.ready())
        await trio.testing.wait_all_tasks_blocked()
        await script.base()
        fresh = script.make_queue()
        await script.start(fresh)
        async with reaping(fresh):
            assert await echo(script, fresh) == b"olleh"


async def test_the_err_descriptor_outlives_a_stop() -> None:
    """QEMU sends it once per connection, not once per start."""
    async with served(Echo()) as script:
        await script.ready()
        notifier, err = event_pair()
        with notifier, err:
            await script.ask(f.SetVringErr.of(0), notifier.duplicate())
            await script.base()
            fresh = script.make_queue()
            await script.start(fresh)
            break_ring(fresh)
            with trio.fail_after(10):
                await err.wait()


async def test_chains_in_front_of_a_lie_are_served() -> None:
    device = Echo()
    async with served(device) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue()
        lengths = begin(script, queue)
        queue.avail_ring.view[4 + 2 : 4 + 4] = (QUEUE_SIZE + 5).to_bytes(2, "little")  # the second entry: no such chain
        queue.avail_ring.view[2:4] = (2).to_bytes(2, "little")
        await script.start(queue)
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
        assert lengths == [5]
        assert await script.base() == 1


async def test_a_request_that_makes_the_device_stumble_comes_back_empty(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Stumbling()) as script:
        queue = await script.ready()
        async with reaping(queue):
            assert await echo(script, queue, b"fail") == b""
            assert await echo(script, queue, b"good") == b"doog"
    assert "queue 0: request at head" in caplog.text
    assert "RuntimeError: the device stumbled" in caplog.text
    assert "in process" in caplog.text  # where


async def test_a_device_that_gives_up_costs_one_ring(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Hasty()) as script:
        await script.ready(queues=2)
        notifier, err = event_pair()
        with notifier, err:
            await script.ask(f.SetVringErr.of(0), notifier.take_fd())
            begin(script, script.queues[0])
            with trio.fail_after(10):
                await err.wait()
        async with reaping(script.queues[1]):
            assert await echo(script, script.queues[1]) == b"olleh"
    assert "ring 0: the device gave up" in caplog.text
    assert "RuntimeError: the device gave up" in caplog.text


async def test_a_feature_of_rings_that_goes_away_at_run_time_breaks_the_ring_and_no_more() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
        await script.ask(f.SetFeatures(script.protocol.state.features & ~VirtioFeature.EVENT_IDX))
        await trio.testing.wait_all_tasks_blocked()
        assert await script.alive()
        await script.base()
        fresh = script.make_queue()
        await script.start(fresh)
        async with reaping(fresh):
            assert await echo(script, fresh) == b"olleh"
