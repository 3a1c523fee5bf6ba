"""A disk that is used by one front-end after the other, in one guest's memory and with one position of its rings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from frontend import BlkDriver, bring_up
from frontend.background import background
from frontend.bringup import TRANSPORT_FEATURES, CannotResume, RingPosition, suspend
from frontend.connection import BackendGone
from frontend.guest.memory import GuestRam
from frontend.queue import Segment
from frontend.state import read_state, restore, save
from tests.cli.programs import listening
from tests.frontend.state.states import RINGS
from vhostuser.backend import serve_one
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.transport import channel_pair
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from frontend.bringup import DeviceLink, Plan

MIB = 1 << 20
ALL_RINGS = RING_FEATURES | VirtioFeature.RING_PACKED
EXAMPLE = str(Path(__file__).parents[3] / "examples" / "saved_state.py")


@asynccontextmanager
async def linked_in(
    device: BlkDevice, ram: GuestRam, plan: Plan, positions: Sequence[RingPosition] = ()
) -> AsyncIterator[DeviceLink]:
    """The device in memory that is there already; one such block after the other is one back-end for both."""
    ours, theirs = channel_pair()
    async with background() as nursery:
        nursery.start_soon(partial(serve_one, device, theirs, ring_features=ALL_RINGS))
        async with bring_up(ours, plan, ram=ram, positions=positions) as link:
            yield link


@pytest.mark.parametrize("queues", [1, 3])
async def test_a_second_front_end_goes_on_with_the_rings_of_the_first(tmp_path: Path, queues: int) -> None:
    device = BlkDevice(MemoryStorage(4 * MIB), num_queues=4)
    data, plan = os.urandom(MIB), BlkDriver.plan(queues=queues, block_size=4096)
    with GuestRam(MemoryBackendShm(size=16 * MIB)) as ram:
        note = ram.buffer(64)
        note.view[:5] = b"guest"
        async with linked_in(device, ram, plan) as link:
            await BlkDriver(link).write(0, data)
            save(tmp_path / "state", ram, rings=await suspend(link), features=link.features)
            features = link.features
    state = read_state(tmp_path / "state")
    before = [ring.base for ring in state.rings]
    assert sum(before) == MIB // 4096
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        note = ram.buffer(64)
        assert bytes(note.view[:5]) == b"guest"
        async with linked_in(device, ram, state.plan(plan), state.rings) as link:
            disk = BlkDriver(link)
            assert await disk.read(0, MIB // 512) == data
            await disk.write(MIB // 512, data)
            assert (link.features, len(link.queues)) == (features, queues)
        after = [queue.base for queue in link.queues]
    assert sum(after) - sum(before) == disk.requests == 2 * MIB // 4096


async def test_a_packed_ring_goes_on_in_the_middle_of_a_lap(tmp_path: Path) -> None:
    """Its position has the wrap counters in it, and what stands in the ring is of two laps."""
    wanted = TRANSPORT_FEATURES | VirtioFeature.RING_PACKED
    device, plan = BlkDevice(MemoryStorage(MIB)), BlkDriver.plan(virtio_features=wanted, depth=8)
    with GuestRam(MemoryBackendShm(size=16 * MIB)) as ram:
        async with linked_in(device, ram, plan) as link:
            assert link.features & VirtioFeature.RING_PACKED
            disk = BlkDriver(link)
            for sector in range(200):
                await disk.write(sector, bytes([sector]) * 512)
            save(tmp_path / "state", ram, rings=await suspend(link), features=link.features)
    state = read_state(tmp_path / "state")
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        async with linked_in(device, ram, state.plan(plan), state.rings) as link:
            disk = BlkDriver(link)
            for sector in range(200):
                assert await disk.read(sector, 1) == bytes([sector]) * 512


@pytest.mark.parametrize("base", [1, 127, 128, 65535])
async def test_a_ring_goes_on_from_any_position(base: int) -> None:
    """Also from where it wraps: the used index goes on too, in the memory that the device looks at."""
    device, plan = BlkDevice(MemoryStorage(MIB)), BlkDriver.plan()
    with GuestRam(MemoryBackendShm(size=16 * MIB)) as ram:
        async with linked_in(device, ram, plan) as link:
            (position,) = await suspend(link)
    with GuestRam(MemoryBackendShm(size=16 * MIB)) as ram:
        async with linked_in(device, ram, plan, [replace(position, base=base)]) as link:
            disk = BlkDriver(link)
            for sector in range(200):
                await disk.write(sector, bytes([sector]) * 512)
            assert await disk.read(199, 1) == bytes([199]) * 512
        assert link.queues[0].base == (base + 201) % 65536


async def test_rings_that_would_lie_elsewhere_are_refused() -> None:
    """The memory was given out in another order than the first time."""
    device, plan = BlkDevice(MemoryStorage(MIB)), BlkDriver.plan()
    with GuestRam(MemoryBackendShm(size=16 * MIB)) as ram:
        ram.buffer(8192)
        with pytest.raises(CannotResume, match=r"ring 0 lies elsewhere than before: .*, expected RingPosition"):
            async with linked_in(device, ram, plan, RINGS):
                pass


async def test_more_rings_than_the_backend_has_are_refused() -> None:
    device, complaint = BlkDevice(MemoryStorage(MIB)), "3 rings are to go on, the back-end has 1"
    with GuestRam(MemoryBackendShm(size=16 * MIB)) as ram, pytest.raises(CannotResume, match=complaint):
        async with linked_in(device, ram, BlkDriver.plan(), 3 * RINGS):
            pass


async def test_a_device_with_requests_in_flight_is_not_suspended() -> None:
    with GuestRam(MemoryBackendShm(size=16 * MIB)) as ram:
        async with linked_in(BlkDevice(MemoryStorage(MIB)), ram, BlkDriver.plan()) as link:
            link.queues[0].start([Segment(ram.buffer(16).addr, 16)], [], lambda _length: None)
            with pytest.raises(CannotResume, match=r"requests are in flight, \{0: 1\} by queue"):
                await suspend(link)
            assert not link.suspended


async def test_a_backend_that_hangs_up_cannot_be_suspended() -> None:
    ours, theirs = channel_pair()
    device = BlkDevice(MemoryStorage(MIB))
    async with background() as nursery:
        nursery.start_soon(serve_one, device, theirs)
        async with bring_up(ours, BlkDriver.plan()) as link:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await theirs.aclose()
                with pytest.raises(BackendGone):
                    await suspend(link)


@pytest.mark.timeout(30)
async def test_a_front_end_that_is_killed_goes_on_in_another_process(tmp_path: Path) -> None:
    """Three processes: the back-end stays, the first front-end is killed, the second one verifies the whole disk."""
    state = str(tmp_path / "disk.state")
    with tempfile.TemporaryDirectory() as folder, listening(Path(folder), "blk", "--memory-size", "8M") as backend:
        path = str(backend.socket_path)
        with trio.fail_after(25):
            begin = [sys.executable, EXAMPLE, "begin", path, state]
            first = await trio.lowlevel.open_process(begin, stdout=subprocess.PIPE)
            async with output_of(first) as output:
                assert await line_of(output) == f"saved at {4 * MIB}\n"
                first.send_signal(signal.SIGKILL)
                await first.wait()
            done = await trio.run_process([sys.executable, EXAMPLE, "finish", path, state], capture_stdout=True)
    # 64 requests of 64 KiB and a flush, then those of the second life.
    assert done.stdout.decode().splitlines() == [
        f"going on at {4 * MIB} with the ring at 65",
        "0 of 128 blocks differ",
    ]


def output_of(process: trio.Process) -> trio.abc.ReceiveStream:
    assert process.stdout is not None
    return process.stdout


async def line_of(output: trio.abc.ReceiveStream) -> str:
    line = b""
    while not line.endswith(b"\n"):
        line += await output.receive_some() or b"(the end)\n"
    return line.decode()
