"""The entropy driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from frontend import QueueClosed, RngDriver
from frontend.drivers.rng import MAX_READ, NoEntropy
from tests.frontend.far_ends import linked
from tests.kinds import NOTIFIERS
from vhostuser.device import Device
from vhostuser.devices.rng import RngDevice
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from vhostuser.transport.notifier import NotifierKind
    from vhostuser.virtqueue.chain import Chain

MEMORY = MemoryBackendShm(size=1 << 20)


class Miser(Device):
    """Gives a few bytes at a time, or none, or nothing at all until its gate is open."""

    type = DeviceType.RNG

    def __init__(self, most: int, *, patient: bool = False) -> None:
        super().__init__()
        self.most = most
        self.gate = trio.Event()
        if not patient:
            self.gate.set()

    async def process(self, queue: int, chain: Chain) -> None:
        await self.gate.wait()
        chain.writable.write(b"r" * min(self.most, chain.writable.remaining))


@pytest.mark.parametrize("notifier", NOTIFIERS)
@pytest.mark.parametrize("length", [0, 1, 64, MAX_READ, 3 * MAX_READ + 1])
async def test_as_many_bytes_come_as_were_asked_for(length: int, notifier: NotifierKind) -> None:
    async with linked(RngDevice(lambda n: b"r" * n), RngDriver.plan(memory=MEMORY, notifier=notifier)) as linked_:
        assert await RngDriver(linked_.link).read(length) == b"r" * length


async def test_a_device_that_gives_little_is_asked_again() -> None:
    async with linked(Miser(7), RngDriver.plan(memory=MEMORY)) as linked_:
        assert await RngDriver(linked_.link).read(50) == b"r" * 50


async def test_a_device_that_gives_nothing_is_not_asked_for_ever() -> None:
    async with linked(Miser(0), RngDriver.plan(memory=MEMORY)) as linked_:
        with pytest.raises(NoEntropy, match="at least one"):
            await RngDriver(linked_.link).read(1)


async def test_several_tasks_may_read_at_once() -> None:
    async with linked(RngDevice(), RngDriver.plan(memory=MEMORY)) as linked_:
        found: list[bytes] = []

        async def read() -> None:
            found.append(await RngDriver(linked_.link).read(100))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(read)
        assert len(set(found)) == 4


async def test_a_read_that_is_cancelled_keeps_its_buffer_until_the_device_gives_it_back() -> None:
    device = Miser(64, patient=True)
    async with linked(device, RngDriver.plan(memory=MEMORY)) as linked_:
        ram, rng = linked_.link.ram, RngDriver(linked_.link)
        free = list(ram._free)
        with trio.move_on_after(0.01):
            await rng.read(64)
        mine = ram.buffer(64)
        mine.view[:] = b"m" * 64
        device.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert bytes(mine.view) == b"m" * 64
        ram.release(mine)
        assert ram._free == free
        assert await rng.read(3) == b"rrr"


async def test_a_device_that_never_answers_waits_as_long_as_the_caller() -> None:
    async with linked(Miser(1, patient=True), RngDriver.plan(memory=MEMORY)) as linked_:
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
            await RngDriver(linked_.link).read(1)
        linked_.backend.cancel()  # or the way down would wait for it as well


async def test_a_buffer_of_a_request_that_was_never_made_is_given_back() -> None:
    async with linked(RngDevice(), RngDriver.plan(memory=MEMORY)) as linked_:
        free = list(linked_.link.ram._free)
        linked_.link.queues[0].fail(QueueClosed("the end"))
        with pytest.raises(QueueClosed, match="the end"):
            await RngDriver(linked_.link).read(1)
        assert linked_.link.ram._free == free
