"""Kick, call and addresses of a ring may change while it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.backend.devices import Echo
from tests.backend.requests import begin, break_ring, echo
from tests.backend.scripted import PROTOCOL_FEATURES, address, reaping, served
from tests.kinds import NOTIFIERS, event, needs_eventfd
from vhostuser.fd import Fd
from vhostuser.protocol import RequestRefused
from vhostuser.transport.notifier import NotifierKind, event_pair
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature

if TYPE_CHECKING:
    from frontend.queue import Queue

both_kinds = pytest.mark.parametrize("kind", NOTIFIERS)


@both_kinds
async def test_a_new_call_descriptor_is_signalled_at_once(kind: NotifierKind) -> None:
    """A completion may just have gone to the old one."""
    async with served(Echo()) as script:
        queue = await script.ready()
        notifier, consumer = event_pair(kind)
        with notifier, consumer:
            await script.ask(f.SetVringCall.of(0), notifier.duplicate())
            with trio.fail_after(10):
                await consumer.wait()
            begin(script, queue)
            with trio.fail_after(10):
                await consumer.wait()


@both_kinds
async def test_a_new_kick_descriptor_is_waited_for_instead_of_the_old(kind: NotifierKind) -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
            notifier, consumer = event_pair(kind)
            with notifier, consumer:
                await script.ask(f.SetVringKick.of(0), consumer.duplicate())
                await trio.testing.wait_all_tasks_blocked()  # it looks at the ring once more
                lengths = begin(script, queue)  # kicks the old one
                await trio.testing.wait_all_tasks_blocked()
                assert lengths == []
                notifier.notify()
                await trio.testing.wait_all_tasks_blocked()
                assert lengths == [5]


async def test_the_end_of_a_kick_pipe_costs_no_time_and_a_new_kick_revives_the_ring() -> None:
    """The read end of a pipe without writers is readable for ever; whoever waits for it must not spin."""
    async with served(Echo()) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue(notifier=NotifierKind.PIPE)
        await script.start(queue)
        queue.kick.close()
        await trio.testing.wait_all_tasks_blocked(0.02)  # never, if anybody spins
        notifier, consumer = event_pair()
        with notifier, consumer:
            await script.ask(f.SetVringKick.of(0), consumer.duplicate())
            queue.kick = notifier
            async with reaping(queue):
                assert await echo(script, queue) == b"olleh"


async def test_a_call_pipe_that_nobody_reads_stops_nothing() -> None:
    device = Echo()
    async with served(device) as script:
        await script.negotiate()
        await script.share_memory()
        queue = script.make_queue(notifier=NotifierKind.PIPE)
        await script.start(queue)
        queue.call.close()
        begin(script, queue)
        await trio.testing.wait_all_tasks_blocked()
        assert device.served == [0]
        assert await script.base() == 1


@needs_eventfd
async def test_a_call_descriptor_that_is_full_blocks_nobody() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        full = event()
        os.eventfd_write(full.fileno(), (1 << 64) - 2)
        os.set_blocking(full.fileno(), True)  # the open file is shared: a hostile front-end can do that
        await script.ask(f.SetVringCall.of(0), full)
        begin(script, queue)
        await trio.testing.wait_all_tasks_blocked()
        assert await script.base() == 1


async def test_a_new_err_descriptor_takes_the_place_of_the_old() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        reader, writer = os.pipe()
        await script.ask(f.SetVringErr.of(0), Fd(writer))
        notifier, err = event_pair()
        with notifier, err:
            await script.ask(f.SetVringErr.of(0), notifier.duplicate())
            assert os.read(reader, 1) == b""  # its only write end is closed
            os.close(reader)
            break_ring(queue)
            with trio.fail_after(10):
                await err.wait()


# --- a ring that is moved ------------------------------------------------------------------------------------------


async def test_addresses_may_be_said_again_at_run_time() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue)
            await script.ask(address(queue))
            assert await echo(script, queue) == b"olleh"


async def test_a_ring_moves_to_where_its_addresses_say() -> None:
    async with served(Echo()) as script:
        queue, copy = await script.ready(), script.make_queue(1)
        async with reaping(queue):
            await echo(script, queue)
            for mine, other in zip(parts(queue), parts(copy), strict=True):
                other[:] = mine
            moved = address(copy)
            await script.ask(f.SetVringAddr(0, moved.flags, moved.descriptor, moved.used, moved.available, 0))
            await trio.testing.wait_all_tasks_blocked()
            lengths = begin(script, queue)
            for mine, other in zip(parts(queue), parts(copy), strict=True):
                if other is not copy.used_ring.view:
                    other[:] = mine
            queue.notify_device()
            await trio.testing.wait_all_tasks_blocked()
            assert lengths == []  # its used element is in the other ring
            assert int.from_bytes(copy.used_ring.view[2:4], "little") == 2


def parts(queue: Queue) -> tuple[memoryview, memoryview, memoryview]:
    return queue.desc_table.view, queue.avail_ring.view, queue.used_ring.view


async def test_addresses_outside_memory_break_a_running_ring() -> None:
    async with served(Echo()) as script:
        await script.ready()
        notifier, err = event_pair()
        with notifier, err:
            await script.ask(f.SetVringErr.of(0), notifier.duplicate())
            await script.ask(f.SetVringAddr(0, address(script.queues[0]).flags, 0x1000, 0x2000, 0x3000, 0))
            with trio.fail_after(10):
                await err.wait()
        assert await script.alive()


async def test_protocol_features_are_not_needed_for_a_ring_to_run() -> None:
    async with served(Echo()) as script:
        await script.negotiate(protocol_features=ProtocolFeature(0))
        await script.share_memory()
        queue = script.make_queue()
        await script.start(queue)
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"


async def test_a_refused_kick_leaves_the_ring_stopped() -> None:
    async with served(Echo()) as script:
        await script.negotiate(protocol_features=PROTOCOL_FEATURES)
        await script.share_memory()
        queue = script.make_queue()
        await script.configure(queue)
        with pytest.raises(RequestRefused):
            await script.ask(f.SetVringKick.of(0), Fd(os.open(os.devnull, os.O_RDWR)))
        await script.ask(f.SetVringEnable(0, 1))
        begin(script, queue)
        await trio.testing.wait_all_tasks_blocked()
        assert await script.base() == 0
