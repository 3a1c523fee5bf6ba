"""The driver's side of a ring: requests in flight, a ring that is full, and devices that lie or go away."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
import trio.testing

from frontend.guest import GuestRam, OutOfGuestMemory
from frontend.queue import BrokenQueue, Queue, QueueClosed, QueueFull, Segment
from tests.frontend.far_ends import RING_FEATURES, DeviceSide
from tests.kinds import NOTIFIERS
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.transport.notifier import NotifierKind
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.guest.memory import Buffer


class Pair(NamedTuple):
    queue: Queue
    device: DeviceSide
    ram: GuestRam
    buffer: Buffer

    @property
    def segment(self) -> Segment:
        return Segment(self.buffer.addr, 8)


@asynccontextmanager
async def pair(
    *, queue_size: int = 4, features: int = RING_FEATURES, notifier: NotifierKind | None = None, run: bool = True
) -> AsyncIterator[Pair]:
    with GuestRam(MemoryBackendShm(size=1 << 20)) as ram:
        queue = Queue(0, ram, queue_size=queue_size, features=features, notifier=notifier)
        try:
            async with trio.open_nursery() as nursery:
                if run:
                    nursery.start_soon(queue.run)
                yield Pair(queue, DeviceSide(queue, ram, features), ram, ram.buffer(64))
                nursery.cancel_scope.cancel()
        finally:
            queue.close()


@pytest.mark.parametrize("notifier", NOTIFIERS)
async def test_a_request_is_answered_with_its_used_length(notifier: NotifierKind) -> None:
    async with pair(notifier=notifier) as (queue, device, ram, buffer), trio.open_nursery() as nursery:
        lengths: list[int] = []

        async def submit() -> None:
            lengths.append(await queue.submit([Segment(buffer.addr, 8)], [Segment(buffer.addr, 16)]))

        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        (chain,) = device.take()
        assert len(ram.blocks) == 1
        chain.writable.write(b"abc")
        device.give_back([chain])
        await trio.testing.wait_all_tasks_blocked()
        assert lengths == [3]


async def test_requests_are_done_in_the_order_in_which_the_device_used_them() -> None:
    async with pair() as (queue, device, _, buffer):
        order: list[int] = []
        for number in range(4):
            queue.start([Segment(buffer.addr, 8)], [], partial(_note, order, number))
        assert (queue.free, queue.outstanding) == (0, 4)
        assert device.take() == []  # nothing is seen before it is flushed
        queue.flush()
        chains = device.take()
        device.give_back([chains[2], chains[0]])
        await trio.testing.wait_all_tasks_blocked()
        assert order == [2, 0]
        device.give_back([chains[3], chains[1]])
        await trio.testing.wait_all_tasks_blocked()
        assert order == [2, 0, 3, 1]
        assert (queue.free, queue.outstanding) == (4, 0)


def _note(order: list[int], number: int, _: int) -> None:
    order.append(number)


async def test_a_full_ring_says_so_until_a_request_is_done() -> None:
    async with pair(queue_size=2) as (queue, device, _, buffer):
        segment, done = Segment(buffer.addr, 8), list[int]()
        for _ in range(2):
            queue.start([segment], [], done.append)
        with pytest.raises(QueueFull, match="1 descriptors needed, 0 of 2 free"):
            queue.start([segment], [], done.append)
        queue.flush()
        device.give_back(device.take()[:1])
        await trio.testing.wait_all_tasks_blocked()
        queue.start([segment], [], done.append)
        assert done == [0]


@pytest.mark.parametrize(("features", "free"), [(RING_FEATURES, 7), (int(VirtioFeature.VERSION_1), 5)])
async def test_with_indirect_tables_a_request_takes_one_descriptor(features: int, free: int) -> None:
    async with pair(queue_size=8, features=features) as (queue, _, _, buffer):
        queue.start([Segment(buffer.addr, 8)] * 2, [Segment(buffer.addr, 8)], lambda _: None)
        assert queue.free == free


# --- the device lies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "length", "idx", "reason"),
    [
        (3, 0, 1, "used element names chain 3, which is not outstanding"),
        (0xFFFFFFFF, 0, 1, "used element names chain 4294967295, which is not outstanding"),
        (0, 9, 1, "used element says 9 bytes written to chain 0, which offered 8"),
        (0, 0xFFFFFFFF, 1, "used element says 4294967295 bytes"),
        (0, 0, 2, "used.idx jumped from 0 to 2, with 1 chains outstanding"),
        (0, 0, 0xFFFF, "used.idx jumped from 0 to 65535"),
    ],
)
async def test_a_device_that_lies_ends_the_queue(head: int, length: int, idx: int, reason: str) -> None:
    async with pair(run=False) as (queue, device, _, buffer):
        told: list[BaseException] = []

        async def wait() -> None:
            try:
                await queue.submit([], [Segment(buffer.addr, 8)])
            except QueueClosed as error:
                told.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            device.claim(head, length, idx=idx)
            with pytest.raises(BrokenQueue, match=reason):
                await queue.run()
        assert [str(error).startswith("queue 0: split ring 0: ") for error in told] == [True]
        with pytest.raises(QueueClosed, match=reason):
            queue.start([], [Segment(buffer.addr, 8)], lambda _: None)


async def test_a_used_element_that_comes_twice_ends_the_queue() -> None:
    async with pair(run=False) as (queue, device, _, buffer):
        queue.start([Segment(buffer.addr, 8)], [], lambda _: None)
        queue.start([Segment(buffer.addr, 8)], [], lambda _: None)
        queue.flush()
        chains = device.take()
        device.give_back(chains[:1])
        device.give_back([])
        used = queue.used_ring.view
        used[12:20] = used[4:12]
        used[2:4] = (2).to_bytes(2, "little")
        with pytest.raises(BrokenQueue, match="which is not outstanding"):
            await queue.run()


# --- the device goes away ------------------------------------------------------------------------------------------


async def test_the_end_of_the_call_pipe_ends_requests_and_costs_no_time() -> None:
    async with pair(notifier=NotifierKind.PIPE) as (queue, _, _, buffer), trio.open_nursery() as nursery:
        failed = trio.Event()

        async def wait() -> None:
            with pytest.raises(QueueClosed, match="queue 0: the back-end closed its end of the call pipe"):
                await queue.submit([Segment(buffer.addr, 8)], [])
            failed.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        queue.call_notifier.close()
        await failed.wait()
        await trio.testing.wait_all_tasks_blocked()  # never, if the queue's task spins


async def test_a_kick_that_nobody_hears_is_no_error() -> None:
    async with pair(notifier=NotifierKind.PIPE) as (queue, _, _, buffer):
        queue.kick_consumer.close()
        queue.start([Segment(buffer.addr, 8)], [], lambda _: None)
        queue.flush()
        assert queue.outstanding == 1


async def test_requests_in_flight_end_when_the_queue_is_closed() -> None:
    async with pair() as (queue, _, _, buffer), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(QueueClosed, match="queue 0 was closed"):
                await queue.submit([Segment(buffer.addr, 8)], [])

        for _ in range(2):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        queue.close()


async def test_whoever_waits_on_a_queue_that_has_failed_is_told_at_once() -> None:
    async with pair() as (queue, _, _, _):
        queue.fail(QueueClosed("first"))
        queue.fail(QueueClosed("second"))
        with pytest.raises(QueueClosed, match="first"):
            await queue.until(trio.Event())


async def test_a_request_that_is_cancelled_stays_with_the_device_and_hurts_nobody() -> None:
    async with pair(queue_size=2) as (queue, device, _, buffer), trio.open_nursery() as nursery:
        with trio.move_on_after(0):
            await queue.submit([Segment(buffer.addr, 8)], [])
        assert (queue.outstanding, queue.free) == (1, 1)
        lengths: list[int] = []

        async def submit() -> None:
            lengths.append(await queue.submit([], [Segment(buffer.addr, 8)]))

        nursery.start_soon(submit)
        await trio.testing.wait_all_tasks_blocked()
        first, second = device.take()
        second.writable.write(b"12345")
        device.give_back([first, second])
        await trio.testing.wait_all_tasks_blocked()
        assert lengths == [5]
        assert queue.free == 2


async def test_a_ring_that_finds_no_room_says_how_much_there_is() -> None:
    with GuestRam(MemoryBackendShm(size=4096)) as ram, pytest.raises(OutOfGuestMemory, match="guest memory has"):
        Queue(0, ram, queue_size=1024, features=RING_FEATURES)
