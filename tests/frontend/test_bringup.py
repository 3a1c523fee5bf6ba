"""The way up and the way down: which messages, in which order, and what happens when a step fails."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from frontend import BackendGone, MissingFeature, Plan, QueueClosed, RequestRefused, RngDriver, bring_up, open_device
from frontend.background import background
from frontend.bringup import DeviceLink, _share_memory
from frontend.guest import GuestRam, NotShareable
from tests.frontend.far_ends import FarEnd, linked
from tests.kinds import NOTIFIERS, needs_eventfd
from vhostuser.backend import serve, serve_one
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.devices.rng import RngDevice
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.transport import Direction, NotifierKind, channel_pair, listen
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.requests import FrontendRequest

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.connection import Frontend
    from vhostuser.protocol import Frame


MIB = 1 << 20
MEMORY = MemoryBackendShm(size=MIB)


class Watcher:
    """An observer that writes down the names of requests, and how many descriptors went with them."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def __call__(self, direction: Direction, frame: Frame) -> None:
        if direction is Direction.SENT:
            fds = f" +{len(frame.fds)}" if frame.fds else ""
            self.sent.append(FrontendRequest(frame.header.request).name + fds)


def disk(num_queues: int = 1) -> BlkDevice:
    return BlkDevice(MemoryStorage(MIB), num_queues=num_queues)


# --- the order -----------------------------------------------------------------------------------------------------


async def test_a_device_is_brought_up_and_down_in_qemus_order() -> None:
    watcher = Watcher()
    async with linked(disk(2), Plan(config_size=57, queues=2, memory=MEMORY), observer=watcher):
        ring = ["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_CALL +1", "SET_VRING_KICK +1"]
        assert watcher.sent == [
            "GET_FEATURES",
            "GET_PROTOCOL_FEATURES",
            "SET_PROTOCOL_FEATURES",
            "SET_BACKEND_REQ_FD +1",
            "SET_OWNER",
            "SET_STATUS",
            "SET_FEATURES",
            "SET_STATUS",
            "GET_CONFIG",
            "SET_MEM_TABLE +1",
            "GET_QUEUE_NUM",
            *ring,
            *ring,
            "SET_VRING_ENABLE",
            "SET_VRING_ENABLE",
            "SET_STATUS",
        ]
        watcher.sent.clear()
    assert watcher.sent == ["SET_VRING_ENABLE", "GET_VRING_BASE", "SET_VRING_ENABLE", "GET_VRING_BASE", "SET_STATUS"]


async def test_a_plan_without_protocol_features_needs_none() -> None:
    watcher = Watcher()
    plain = VirtioFeature.VERSION_1
    async with linked(RngDevice(), Plan(virtio_features=plain, memory=MEMORY), observer=watcher) as linked_:
        assert linked_.link.features == plain
        assert len(await RngDriver(linked_.link).read(100)) == 100
    messages = ["GET_FEATURES", "SET_OWNER", "SET_FEATURES", "SET_MEM_TABLE +1"]
    messages += ["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_CALL +1", "SET_VRING_KICK +1"]
    assert watcher.sent == [*messages, "GET_VRING_BASE"]


async def test_a_plan_without_extensions_asks_for_none() -> None:
    watcher = Watcher()
    plan = Plan(protocol_features=ProtocolFeature(0), config_size=57, queues=3, memory=MEMORY)
    async with linked(disk(3), plan, observer=watcher) as linked_:
        assert linked_.link.config == b""
        assert len(linked_.link.queues) == 3
    asked = {name.split()[0] for name in watcher.sent}
    assert not asked & {"SET_STATUS", "GET_CONFIG", "GET_QUEUE_NUM", "SET_BACKEND_REQ_FD"}


async def test_queues_that_the_backend_has_not_are_not_set_up() -> None:
    async with linked(disk(2), Plan(queues=5, memory=MEMORY)) as linked_:
        assert [queue.index for queue in linked_.link.queues] == [0, 1]


@pytest.mark.parametrize("notifier", NOTIFIERS)
async def test_open_device_is_all_of_it_in_one_line(tmp_path: Path, notifier: NotifierKind) -> None:
    async with listen(tmp_path / "s") as listener, trio.open_nursery() as nursery:
        nursery.start_soon(serve, RngDevice(), listener)
        for _ in range(2):
            async with open_device(tmp_path / "s", RngDriver, memory=MEMORY, notifier=notifier) as rng:
                assert len(await rng.read(10)) == 10
        nursery.cancel_scope.cancel()


async def test_guest_memory_that_is_there_already_stays_the_callers() -> None:
    ours, theirs = channel_pair()
    with GuestRam(MEMORY) as ram:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, RngDevice(), theirs)
            async with bring_up(ours, Plan(), ram=ram) as link:
                assert link.ram is ram
        assert not ram.blocks[0].fd.closed


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blocks", "message", "count"), [(8, "SET_MEM_TABLE +8", 1), (9, "ADD_MEM_REG +1", 9)])
async def test_memory_of_more_regions_than_a_table_holds_goes_one_by_one(blocks: int, message: str, count: int) -> None:
    watcher = Watcher()
    async with linked(RngDevice(), Plan(memory=MEMORY), observer=watcher) as linked_:
        watcher.sent.clear()
        frontend = linked_.link.frontend
        await frontend.rem_mem_reg(linked_.link.ram.regions[0])
        with GuestRam(*[MemoryBackendShm(size=1 << 16) for _ in range(blocks)]) as ram:
            await _share_memory(DeviceLink(frontend, linked_.link.plan, ram))
        assert watcher.sent == ["REM_MEM_REG"] + [message] * count


async def test_a_region_that_is_refused_leaves_no_descriptor_of_the_others_open() -> None:
    """The leak check at the end of each test is the judge."""
    async with linked(RngDevice(), Plan(memory=MEMORY)) as linked_:
        with (
            GuestRam(*[MemoryBackendShm(size=1 << 16) for _ in range(9)]) as ram,
            pytest.raises(Exception, match="overlap"),
        ):
            await _share_memory(DeviceLink(linked_.link.frontend, linked_.link.plan, ram))


async def test_memory_that_is_not_shared_is_refused() -> None:
    with pytest.raises(NotShareable, match="share"):
        async with linked(RngDevice(), Plan(memory=MemoryBackendShm(size=MIB, share=False))):
            pass


# --- what goes wrong -----------------------------------------------------------------------------------------------


async def test_a_feature_that_is_missing_is_named() -> None:
    with pytest.raises(MissingFeature, match="the back-end does not offer ORDER_PLATFORM"):
        async with linked(RngDevice(), Plan(required=VirtioFeature.ORDER_PLATFORM, memory=MEMORY)):
            pass


async def test_a_step_that_is_refused_ends_the_bring_up() -> None:
    with pytest.raises(RequestRefused, match="SET_VRING_NUM was refused"):
        await bring_up_with(refusing="SET_VRING_NUM")


@pytest.mark.parametrize("step", ["GET_FEATURES", "SET_OWNER", "SET_MEM_TABLE", "SET_VRING_KICK", "SET_VRING_ENABLE"])
async def test_a_backend_that_hangs_up_during_bring_up_is_gone(step: str) -> None:
    with pytest.raises(BackendGone):
        await bring_up_with(leaving_at=step)


async def bring_up_with(*, refusing: str = "", leaving_at: str = "") -> None:
    """A bring-up against a back-end that refuses a step, or hangs up at one."""

    async def serve(far_end: FarEnd) -> None:
        async with far_end.channel:
            while (message := await far_end.take()).spec.name != leaving_at:
                if message.spec.name == refusing:
                    await far_end.refuse(message)
                elif answer := far_end.protocol.answer(message) or far_end.protocol.ack():
                    await far_end.channel.send(answer)

    ours, theirs = channel_pair()
    async with background() as nursery:
        nursery.start_soon(serve, FarEnd(theirs))
        async with bring_up(ours, Plan(memory=MEMORY)):
            pass


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with linked(RngDevice(), Plan(memory=MEMORY)):
            raise KeyError("mine")


async def test_a_block_that_is_cancelled_is_cancelled_and_nothing_else() -> None:
    with trio.move_on_after(0.05) as scope:
        async with linked(RngDevice(), Plan(memory=MEMORY)):
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_backend_that_is_gone_at_the_end_is_no_error() -> None:
    async with linked(RngDevice(), Plan(memory=MEMORY)) as linked_:
        linked_.backend.cancel()
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("notifier", NOTIFIERS)
async def test_requests_end_when_the_backend_is_gone(notifier: NotifierKind) -> None:
    async with linked(RngDevice(), Plan(memory=MEMORY, notifier=notifier)) as linked_:
        linked_.backend.cancel()
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(10), pytest.raises(QueueClosed):
            await RngDriver(linked_.link).read(1)


@needs_eventfd
async def test_a_device_that_breaks_one_ring_ends_all_of_them() -> None:
    """It needs a reset: nothing that it does elsewhere can be trusted."""
    async with linked(disk(2), Plan(queues=2, memory=MEMORY, notifier=NotifierKind.EVENTFD)) as linked_:
        broken, other = linked_.link.queues
        broken.used_ring.view[2:4] = (1000).to_bytes(2, "little")
        os.write(broken.call.fileno(), (1).to_bytes(8, "little"))  # an eventfd has no ends
        with trio.fail_after(10), pytest.raises(QueueClosed, match=r"split ring 0: used\.idx jumped"):
            await other.until(trio.Event())


async def test_every_verb_of_a_frontend_works_on_a_device_that_is_up() -> None:
    async with linked(disk(), Plan(memory=MEMORY, config_size=57)) as linked_:
        frontend: Frontend = linked_.link.frontend
        assert await frontend.get_max_mem_slots() == 509
        assert await frontend.get_status() == 15
        assert (await frontend.get_config(0, 8))[:2] == (2048).to_bytes(2, "little")
        with pytest.raises(RequestRefused):
            await frontend.set_config(0, b"x")
        await frontend.set_vring_err(0, None)
        await frontend.set_vring_call(0, None)
        await frontend.reset_device()
        assert await frontend.get_status() == 0
