"""A ring's life as a back-end serves it: started, enabled, stopped, drained, made anew ("Ring states")."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.backend.devices import Echo, Patient
from tests.backend.requests import begin, echo
from tests.backend.scripted import FEATURES, QUEUE_SIZE, reaping, served
from tests.kinds import NOTIFIERS, event
from vhostuser.fd import Fd
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from vhostuser.transport.notifier import NotifierKind

both_kinds = pytest.mark.parametrize("kind", NOTIFIERS)


# --- starting ------------------------------------------------------------------------------------------------------


@both_kinds
async def test_a_running_ring_serves_requests(kind: NotifierKind) -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue(notifier=kind)
        await script.start(queue)
        async with reaping(queue):
            assert await echo(script, queue, b"abc") == b"cba"
            assert [await echo(script, queue, bytes([n])) for n in range(3 * QUEUE_SIZE)][-1] == bytes([47])


async def test_set_vring_kick_itself_starts_the_ring() -> None:
    """11.1: a back-end does not wait for the first kick."""
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue()
        lengths = begin(script, queue)
        await script.configure(queue)
        await script.ask(f.SetVringCall.of(0), queue.call_notifier.duplicate())
        await script.ask(f.SetVringKick.of(0), event())  # nobody will ever signal this one
        await script.ask(f.SetVringEnable(0, 1))
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
        assert lengths == [5]


async def test_a_ring_that_is_not_enabled_is_left_alone_until_it_is() -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue()
        await script.start(queue, enable=False)
        lengths = begin(script, queue)
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
            assert lengths == []
            await script.ask(f.SetVringEnable(0, 1))
            await trio.testing.wait_all_tasks_blocked()
            assert lengths == [5]


async def test_a_ring_may_be_enabled_before_it_is_started() -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        await script.ask(f.SetVringEnable(0, 1))
        await script.share_memory()
        queue = script.make_queue()
        await script.start(queue, enable=False)
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"


async def test_features_without_bit_30_enable_all_rings_at_once() -> None:
    async with served(Echo()) as script:
        await script.negotiate(features=FEATURES & ~VirtioFeature.PROTOCOL_FEATURES)
        await script.share_memory()
        queues = [script.make_queue(index) for index in (0, 1)]
        for queue in queues:
            await script.start(queue)
        async with reaping(*queues):
            assert [await echo(script, queue) for queue in queues] == [b"olleh"] * 2


async def test_features_without_bit_30_enable_rings_that_were_started_before() -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue()
        await script.start(queue, enable=False)
        lengths = begin(script, queue)
        await script.ask(f.SetFeatures(FEATURES & ~VirtioFeature.PROTOCOL_FEATURES))
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
        assert lengths == [5]


async def test_features_again_leave_a_running_ring_as_it_is() -> None:
    device = Echo()
    async with served(device) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
            await script.ask(f.SetFeatures(script.protocol.state.features))
            assert await echo(script, queue) == b"olleh"
        assert len(device.chosen) == 2
        assert set(device.chosen) == {script.protocol.state.features}


async def test_a_ring_without_a_kick_descriptor_is_polled() -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue()
        await script.configure(queue)
        await script.ask(f.SetVringCall.of(0), queue.call_notifier.duplicate())
        await script.ask(f.SetVringKick.of(0, no_fd=True))
        await script.ask(f.SetVringEnable(0, 1))
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"
            assert await echo(script, queue, b"xy") == b"yx"
        assert await script.base() == 2


async def test_a_ring_without_a_call_descriptor_is_served_in_silence() -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue()
        await script.configure(queue)
        await script.ask(f.SetVringKick.of(0), queue.kick_consumer.duplicate())
        await script.ask(f.SetVringCall.of(0, no_fd=True))
        await script.ask(f.SetVringEnable(0, 1))
        begin(script, queue)
        await trio.testing.wait_all_tasks_blocked()
        assert int.from_bytes(queue.used_ring.view[2:4], "little") == 1


@pytest.mark.parametrize("base", [1, 0x7FFF, 0xFFFF])
async def test_a_ring_begins_where_set_vring_base_says_and_wraps(base: int) -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue(base=base)
        await script.start(queue)
        async with reaping(queue):
            for _ in range(QUEUE_SIZE + 1):
                assert await echo(script, queue) == b"olleh"
        assert await script.base() == (base + QUEUE_SIZE + 1) % 65536


# --- stopping ------------------------------------------------------------------------------------------------------


async def test_get_vring_base_answers_only_when_the_device_has_finished() -> None:
    device = Patient()
    async with served(device) as script, trio.open_nursery() as nursery:
        queue = await script.ready()
        begun = [begin(script, queue) for _ in range(3)]
        await trio.testing.wait_all_tasks_blocked()
        assert device.holds == 3
        bases: list[int] = []

        async def ask() -> None:
            bases.append(await script.base())

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        begin(script, queue)  # too late: a stopping ring takes nothing more
        await trio.testing.wait_all_tasks_blocked()
        assert (device.holds, bases) == (3, [])
        device.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (device.holds, bases) == (0, [3])
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
        assert begun == [[5]] * 3


async def test_a_ring_that_was_stopped_twice_says_the_same_twice() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
        assert [await script.base(), await script.base()] == [1, 1]


async def test_a_ring_that_never_started_says_where_it_would_have() -> None:
    async with served(Echo()) as script:
        await script.negotiate()
        assert await script.base() == 0
        await script.ask(f.SetVringBase(0, 77))
        assert await script.base() == 77


async def test_a_stopped_ring_keeps_neither_kick_nor_call_and_needs_new_ones() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        reader, writer = os.pipe()
        await script.ask(f.SetVringCall.of(0), Fd(writer))
        assert os.read(reader, 8) == (1).to_bytes(8, "little")
        await script.base()
        assert os.read(reader, 8) == b""  # the only write end was the back-end's
        os.close(reader)
        assert queue.outstanding == 0


async def test_disabling_and_enabling_keeps_the_position() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue):
            for _ in range(5):
                await echo(script, queue)
            await script.ask(f.SetVringEnable(0, 0))
            lengths = begin(script, queue)
            await trio.testing.wait_all_tasks_blocked()
            assert lengths == []
            await script.ask(f.SetVringEnable(0, 1))
            await trio.testing.wait_all_tasks_blocked()
            assert lengths == [5]
        assert await script.base() == 6


async def test_disabling_waits_for_the_device_too() -> None:
    device = Patient()
    async with served(device) as script, trio.open_nursery() as nursery:
        queue = await script.ready()
        begin(script, queue)
        await trio.testing.wait_all_tasks_blocked()
        done = trio.Event()

        async def disable() -> None:
            await script.ask(f.SetVringEnable(0, 0))
            done.set()

        nursery.start_soon(disable)
        await trio.testing.wait_all_tasks_blocked()
        assert not done.is_set()
        device.gate.set()
        await done.wait()


async def test_a_disabled_ring_stops_where_it_stood() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
        await script.ask(f.SetVringEnable(0, 0))
        begin(script, queue)
        assert await script.base() == 1


async def test_a_ring_starts_again_with_another_size_on_the_same_connection() -> None:
    """As SeaBIOS and Linux do, one after the other, without hanging up in between."""
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        for size in (2, 128, 8):
            queue = script.make_queue(queue_size=size)
            await script.start(queue)
            async with reaping(queue):
                for _ in range(size + 1):
                    assert await echo(script, queue) == b"olleh"
            assert await script.base() == size + 1


async def test_a_disabled_ring_can_be_made_anew() -> None:
    """A front-end that ends a session with RESET_OWNER or SET_VRING_ENABLE alone, and begins the next."""
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue):
            for _ in range(3):
                await echo(script, queue)
        await script.ask(f.SetVringEnable(0, 0))
        fresh = script.make_queue(queue_size=2 * QUEUE_SIZE)
        await script.start(fresh)
        async with reaping(fresh):
            assert await echo(script, fresh) == b"olleh"
        assert await script.base() == 1


@pytest.mark.parametrize("message", [f.ResetDevice(), f.SetStatus(0)])
async def test_a_reset_drains_and_forgets_the_rings(message: f.ResetDevice | f.SetStatus) -> None:
    device = Echo()
    async with served(device) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
        await script.ask(message)
        assert device.resets == 1
        lengths = begin(script, queue)
        await trio.testing.wait_all_tasks_blocked()
        assert lengths == []
        fresh = script.make_queue()
        await script.start(fresh)
        async with reaping(fresh):
            assert await echo(script, fresh) == b"olleh"
        assert await script.base() == 1


@pytest.mark.parametrize("message", [f.ResetDevice(), f.SetStatus(0)])
async def test_a_reset_ring_stays_stopped_whatever_else_is_said(message: f.ResetDevice | f.SetStatus) -> None:
    device = Echo()
    async with served(device) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
            await script.ask(message)
            lengths = begin(script, queue)
            await script.ask(f.SetFeatures(script.protocol.state.features))
            await script.ask(f.SetVringCall.of(0), queue.call_notifier.duplicate())
            await script.share_memory()
            await trio.testing.wait_all_tasks_blocked()
        assert lengths == []
        assert device.served == [0]


async def test_reset_owner_alone_changes_nothing() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        await script.ask(f.ResetOwner())
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"
