"""Memory that comes, goes and is replaced while rings run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.backend.devices import Echo, Patient
from tests.backend.requests import begin, echo
from tests.backend.scripted import RAM_SIZE, Script, reaping, served
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.protocol import RequestRefused
from vhostuser.transport.notifier import event_pair
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.records import MemoryRegion
from vhostuser.wire.virtio.blk import BlkType

SWAPS = 100
pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="mappings are counted in /proc")


def mappings(script: Script) -> int:
    """How often this process has the front-end's memory mapped: once for the front-end itself, and as often else."""
    inodes = {str(os.fstat(block.fd.fileno()).st_ino) for block in script.ram.blocks}
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(line.split()[4] in inodes for line in lines)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_the_memory_table_is_replaced_a_hundred_times_under_load() -> None:
    """Nothing is lost, nothing is mapped twice, and descriptors do not pile up."""
    async with served(Echo()) as script:
        queue = await script.ready()
        async with reaping(queue), trio.open_nursery() as nursery:
            answers = 0

            async def load() -> None:
                nonlocal answers
                while True:
                    data = os.urandom(64)
                    assert await echo(script, queue, data) == data[::-1]
                    answers += 1

            nursery.start_soon(load)
            await echo(script, queue)
            before = descriptors(), mappings(script)
            for _ in range(SWAPS):
                await script.share_memory()
            # At most one chain may still hold the memory of before.
            held = descriptors(), mappings(script)
            assert held[0] - before[0] <= 1
            assert held[1] - before[1] <= 1
            assert answers > 10
            nursery.cancel_scope.cancel()


async def test_memory_that_a_chain_still_uses_goes_with_the_chain() -> None:
    device = Patient()
    async with served(device) as script:
        queue = await script.ready()
        before = mappings(script)
        lengths = begin(script, queue)
        await trio.testing.wait_all_tasks_blocked()
        await script.share_memory()
        assert mappings(script) == before + 1
        device.gate.set()
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
        assert lengths == [5]
        assert mappings(script) == before


@pytest.mark.parametrize("kind", [BlkType.FLUSH, BlkType.GET_ID])
async def test_a_disk_that_is_idle_holds_no_memory_of_its_last_requests(kind: BlkType) -> None:
    """Whether it was served at once or on a thread."""
    async with served(BlkDevice(MemoryStorage(512))) as script:
        queue = await script.ready()
        async with reaping(queue):
            await echo(script, queue, kind.to_bytes(16, "little"))
            await trio.testing.wait_all_tasks_blocked()
            await script.share_memory()
            assert mappings(script) == 2


async def test_a_region_is_added_used_and_removed_while_a_ring_runs() -> None:
    async with served(Echo()) as script:
        script.use_ram(MemoryBackendShm(size=RAM_SIZE), MemoryBackendShm(size=RAM_SIZE))
        first, second = script.ram.regions
        await script.negotiate()
        with script.ram.duplicate_fds() as fds:
            await script.ask(f.SetMemTable((first,)), fds[0].move())
            queue = script.make_queue()
            await script.start(queue)
            before = mappings(script)
            await script.ask(f.AddMemReg(second), fds[1].move())
        assert mappings(script) == before + 1
        fill(script, first)
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"  # its buffers are in the second block
        await script.ask(f.RemMemReg(second))
        assert mappings(script) == before


def fill(script: Script, region: MemoryRegion) -> None:
    """Leave no room in ``region``."""
    for size in (1 << 16, 1 << 10, 64, 2):
        while script.ram.buffer(size, align=2).addr < region.guest_addr + region.size:
            pass


async def test_a_buffer_in_a_region_that_was_removed_breaks_the_ring() -> None:
    async with served(Echo()) as script:
        script.use_ram(MemoryBackendShm(size=RAM_SIZE), MemoryBackendShm(size=RAM_SIZE))
        await script.ready()
        await script.ask(f.RemMemReg(script.ram.regions[1]))
        fill(script, script.ram.regions[0])
        notifier, err = event_pair()
        with notifier, err:
            await script.ask(f.SetVringErr.of(0), notifier.take_fd())
            begin(script, script.queues[0])
            with trio.fail_after(10):
                await err.wait()


@pytest.mark.parametrize("whole", [True, False], ids=["SET_MEM_TABLE", "REM_MEM_REG"])
async def test_memory_removed_under_a_ring_breaks_that_ring_only(whole: bool, caplog: pytest.LogCaptureFixture) -> None:
    device = Echo()
    async with served(device) as script:
        script.use_ram(MemoryBackendShm(size=RAM_SIZE), MemoryBackendShm(size=RAM_SIZE))
        first, second = script.ram.regions
        await script.negotiate()
        await script.share_memory()
        lost = script.make_queue(0)
        fill(script, first)
        kept = script.make_queue(1)
        assert first.user_addr <= lost.desc_table.user_addr < first.user_addr + first.size
        assert second.user_addr <= kept.desc_table.user_addr < second.user_addr + second.size
        await script.start(lost)
        await script.start(kept)
        notifier, err = event_pair()
        with notifier, err, script.ram.duplicate_fds() as fds:
            await script.ask(f.SetVringErr.of(0), notifier.take_fd())
            await (script.ask(f.SetMemTable((second,)), fds[1].move()) if whole else script.ask(f.RemMemReg(first)))
            with trio.fail_after(10):
                await err.wait()
            assert "ring 0 is broken" in caplog.text
            assert "ring 1 is broken" not in caplog.text
            async with reaping(lost, kept):
                assert await echo(script, kept) == b"olleh"
                lengths = begin(script, lost)
                await trio.testing.wait_all_tasks_blocked()
                assert lengths == []
                # QEMU removes and adds regions in pairs when their borders move: the ring goes on where it stood.
                await script.ask(f.AddMemReg(first), fds[0].move())
                await trio.testing.wait_all_tasks_blocked()
                assert lengths == [5]


async def test_a_ring_whose_memory_comes_back_while_its_device_is_busy_goes_on() -> None:
    device = Patient()
    async with served(device) as script, trio.open_nursery() as nursery:
        queue = await script.ready()
        region = script.ram.regions[0]
        lengths = [begin(script, queue)]
        await trio.testing.wait_all_tasks_blocked()
        await script.ask(f.RemMemReg(region))
        lengths.append(begin(script, queue))

        async def add() -> None:
            (fd,) = script.ram.duplicate_fds()
            await script.ask(f.AddMemReg(region), fd)

        nursery.start_soon(add)
        await trio.testing.wait_all_tasks_blocked()
        device.gate.set()
        async with reaping(queue):
            await trio.testing.wait_all_tasks_blocked()
        assert lengths == [[5], [5]]


async def test_a_table_that_is_refused_leaves_the_old_one_in_force() -> None:
    async with served(Echo()) as script:
        queue = await script.ready()
        before = mappings(script)
        region = script.ram.regions[0]
        large = MemoryRegion(region.guest_addr, region.size + 4096, region.user_addr, 0)
        with pytest.raises(RequestRefused):
            await script.ask(f.SetMemTable((large,)), *script.ram.duplicate_fds())
        assert mappings(script) == before
        async with reaping(queue):
            assert await echo(script, queue) == b"olleh"


async def test_no_memory_at_all_breaks_every_ring_and_nothing_else() -> None:
    async with served(Echo()) as script:
        await script.ready(queues=2)
        await script.ask(f.SetMemTable(()))
        assert await script.alive()
        assert [await script.base(index) for index in (0, 1)] == [0, 0]


async def test_memory_is_unmapped_when_the_front_end_hangs_up() -> None:
    async with served(Echo()) as script:
        await script.ready()
        assert mappings(script) == 2
        script.hang_up()
        await trio.testing.wait_all_tasks_blocked()
        assert mappings(script) == 1


async def test_memory_is_unmapped_at_once_when_the_connection_ends_badly() -> None:
    """While a device is at work, and without waiting for the garbage collector."""
    device = Patient()
    async with served(device) as script:
        begin(script, await script.ready())
        await trio.testing.wait_all_tasks_blocked()
        await script.say_bytes(b"\xff" * 12)
        assert await script.hung_up()
        await trio.testing.wait_all_tasks_blocked()
        assert device.holds == 0
        assert mappings(script) == 1
