"""Our front-end on qemu-storage-daemon, a vhost-user-blk back-end we did not write (its protocol code: libvhost-user).

What each test asserts is seen from both sides: through our driver, and in the image file that the daemon writes.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from frontend import BlkDriver, BlkError, QueueClosed, open_device
from frontend.bringup import TRANSPORT_FEATURES
from tests.peers.our_programs import VHOST_USER
from tests.peers.programs import run_peer, wait_connectable
from tests.tools.without_linux import command_without_linux
from vhostuser.memory.backends import MemoryBackendMemfd, MemoryBackendShm
from vhostuser.transport.notifier import NotifierKind
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.peers.programs import Peer
    from tests.peers.qemu import StorageDaemon

KIB = 1 << 10
MIB = 1 << 20
DISK_SIZE = 64 * MIB


@pytest.fixture
def disk(peer_folder: Path) -> Path:
    """64 MiB of nothing."""
    path = peer_folder / "disk.img"
    path.touch()
    os.truncate(path, DISK_SIZE)
    return path


async def contents(disk: Path) -> bytes:
    return await trio.Path(disk).read_bytes()


def space(disk: Path) -> int:
    """How much of the image takes up space; holes do not."""
    return disk.stat().st_blocks * 512


# --- data ---


@pytest.mark.timeout(30)
@pytest.mark.parametrize("memory", [MemoryBackendShm, MemoryBackendMemfd])
@pytest.mark.parametrize(
    ("notifier", "no_eventfd"),
    [
        pytest.param(NotifierKind.EVENTFD, False, id="eventfd"),
        pytest.param(NotifierKind.PIPE, False, id="pipe"),
        pytest.param(NotifierKind.PIPE, True, id="pipe-and-daemon-without-eventfd"),
    ],
)
async def test_a_whole_disk_of_random_data_is_written_and_read_back(
    qemu_storage_daemon: StorageDaemon,
    disk: Path,
    peer_folder: Path,
    memory: type[MemoryBackendShm] | type[MemoryBackendMemfd],
    notifier: NotifierKind,
    no_eventfd: bool,
) -> None:
    """Also through pipes when the daemon could make eventfds: it takes whichever it is given."""
    path, data = peer_folder / "blk.sock", os.urandom(DISK_SIZE)
    async with qemu_storage_daemon.serve(disk, path, no_eventfd=no_eventfd) as daemon:
        with trio.fail_after(25):
            async with open_device(path, BlkDriver, memory=memory(size=16 * MIB), notifier=notifier) as blk:
                assert blk.size == DISK_SIZE
                await blk.write(0, data)
                await blk.flush()
                found = await blk.read(0, DISK_SIZE // SECTOR_SIZE)
                eventfds, pipe_ends = daemon.notifiers()
            assert found == data
            assert await contents(disk) == data
    # Kick and call of one ring came from us; others the daemon makes for its own use.
    assert (pipe_ends >= 2) == (notifier is NotifierKind.PIPE)
    assert (eventfds == 0) == no_eventfd


async def test_a_second_front_end_reads_what_the_first_has_written(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path, data = peer_folder / "blk.sock", os.urandom(MIB)
    async with qemu_storage_daemon.serve(disk, path):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver) as blk:
                await blk.write(100, data)
            async with open_device(path, BlkDriver) as blk:
                assert await blk.read(100, MIB // SECTOR_SIZE) == data


async def test_requests_go_through_all_queues(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path, data = peer_folder / "blk.sock", os.urandom(4 * MIB)
    async with qemu_storage_daemon.serve(disk, path, queues=3):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver, queues=4, block_size=4 * KIB) as blk:
                assert blk.config.num_queues == 3
                await blk.write(0, data)
                assert await blk.read(0, len(data) // SECTOR_SIZE) == data
    # The daemon's own count of requests on each ring, as it told when the ring was stopped.
    requests = [queue.base for queue in blk.link.queues]
    assert len(requests) == 3
    assert sum(requests) == blk.requests == 2 * len(data) // (4 * KIB)
    assert min(requests) >= blk.requests // 4


@pytest.mark.parametrize("depth", [1, 2, 128])
async def test_any_number_of_requests_may_be_in_flight(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path, depth: int
) -> None:
    path, data = peer_folder / "blk.sock", os.urandom(MIB)
    async with qemu_storage_daemon.serve(disk, path):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver, depth=depth, block_size=4 * KIB, queue_size=1024) as blk:
                await blk.write(7, data)
                assert await blk.read(7, MIB // SECTOR_SIZE) == data


@pytest.mark.parametrize("ring_feature", [VirtioFeature.INDIRECT_DESC, VirtioFeature.EVENT_IDX])
async def test_rings_work_without_an_optional_feature(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path, ring_feature: VirtioFeature
) -> None:
    path, data = peer_folder / "blk.sock", os.urandom(MIB)
    async with qemu_storage_daemon.serve(disk, path):
        with trio.fail_after(9):
            wanted = TRANSPORT_FEATURES & ~ring_feature
            async with open_device(path, BlkDriver, virtio_features=wanted, block_size=4 * KIB) as blk:
                assert not blk.link.features & ring_feature
                await blk.write(0, data)
                assert await blk.read(0, MIB // SECTOR_SIZE) == data


@pytest.mark.timeout(30)
@pytest.mark.parametrize("no_eventfd", [False, True], ids=["eventfd", "pipe"])
async def test_the_verify_command_finds_nothing_wrong(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path, no_eventfd: bool
) -> None:
    """As a user runs it; with ``no_eventfd`` neither the command nor the daemon can make an eventfd."""
    path, notifier = peer_folder / "blk.sock", "pipe" if no_eventfd else "eventfd"
    command = [*VHOST_USER, "blk", "verify", "--socket-path", str(path), "--notifier", notifier, "--json"]
    async with qemu_storage_daemon.serve(disk, path, no_eventfd=no_eventfd):
        with trio.fail_after(25):
            done = await trio.run_process(
                command_without_linux(command) if no_eventfd else command, capture_stdout=True
            )
    verdict = json.loads(done.stdout)
    assert (verdict["size"], verdict["mismatching_sectors"]) == (DISK_SIZE, 0)
    assert (await contents(disk)).count(bytes(SECTOR_SIZE)) == 0, "a sector was left as it was"


# --- what else a disk does ---


async def test_the_daemon_tells_what_its_disk_is(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(disk, path, queues=2):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver) as blk:
                assert (blk.size, blk.read_only, blk.config.num_queues) == (DISK_SIZE, False, 2)
                assert await blk.get_id() == "vhost_user_blk"
                assert blk.link.features & BlkFeature.FLUSH
                assert blk.link.protocol_features & ProtocolFeature.REPLY_ACK


async def test_discard_gives_space_back(qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path) -> None:
    path = peer_folder / "blk.sock"
    await trio.Path(disk).write_bytes(os.urandom(DISK_SIZE))
    before = space(disk)
    async with qemu_storage_daemon.serve(disk, path):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver) as blk:
                await blk.discard(0, 32 * MIB // SECTOR_SIZE)
    assert space(disk) <= before - 32 * MIB


async def test_written_zeroes_are_zeroes_and_their_neighbours_stay(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path, data = peer_folder / "blk.sock", os.urandom(MIB)
    async with qemu_storage_daemon.serve(disk, path):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver) as blk:
                await blk.write(0, data)
                await blk.write_zeroes(3, 5)
                expected = data[: 3 * SECTOR_SIZE] + bytes(5 * SECTOR_SIZE) + data[8 * SECTOR_SIZE :]
                assert await blk.read(0, MIB // SECTOR_SIZE) == expected
                await blk.flush()
            assert (await contents(disk))[:MIB] == expected


async def test_a_read_only_disk_is_read_and_refuses_a_write(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path, data = peer_folder / "blk.sock", os.urandom(DISK_SIZE)
    await trio.Path(disk).write_bytes(data)
    async with qemu_storage_daemon.serve(disk, path, writable=False):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver) as blk:
                assert blk.read_only
                with pytest.raises(BlkError, match="OUT at sector 0: the device answered IOERR"):
                    await blk.write(0, bytes(SECTOR_SIZE))
                assert await blk.read(0, 2) == data[: 2 * SECTOR_SIZE]
    assert await contents(disk) == data


async def test_a_request_beyond_the_end_is_an_error_and_the_disk_goes_on(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(disk, path):
        with trio.fail_after(9):
            async with open_device(path, BlkDriver) as blk:
                with pytest.raises(BlkError, match=f"IN at sector {blk.capacity}: the device answered IOERR"):
                    await blk.read(blk.capacity, 1)
                assert await blk.read(blk.capacity - 1, 1) == bytes(SECTOR_SIZE)


# --- the daemon's own initiative ---


@pytest.mark.parametrize("notifier", NotifierKind)
async def test_a_daemon_that_is_killed_ends_the_requests_in_flight(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path, notifier: NotifierKind
) -> None:
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(disk, path) as daemon:
        with trio.fail_after(9):
            async with open_device(path, BlkDriver, notifier=notifier) as blk, trio.open_nursery() as nursery:
                daemon.process.send_signal(signal.SIGSTOP)
                # The parent hears of it when the last thread has stopped.
                await trio.to_thread.run_sync(os.waitpid, daemon.process.pid, os.WUNTRACED)
                nursery.start_soon(read_until_the_end, blk)
                await trio.testing.wait_all_tasks_blocked()
                assert blk.link.queues[0].outstanding
                daemon.process.kill()


async def read_until_the_end(blk: BlkDriver) -> None:
    with pytest.raises(QueueClosed, match="the back-end closed"):
        await blk.read(0, 8)


async def test_a_disk_that_grows_is_told_to_the_driver(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    """QMP's block_resize; the daemon sends CONFIG_CHANGE_MSG on the socket of SET_BACKEND_REQ_FD."""
    path, monitor = peer_folder / "blk.sock", peer_folder / "monitor.sock"
    async with storage_daemon_with_monitor(qemu_storage_daemon.program, disk, path, monitor) as daemon:
        with trio.fail_after(9):
            await wait_connectable(path, daemon)
            async with open_device(path, BlkDriver) as blk:
                changed = blk.link.config_changed
                assert blk.size == DISK_SIZE
                await block_resize(monitor, 2 * DISK_SIZE)
                await changed.wait()
                assert blk.size == 2 * DISK_SIZE
                assert await blk.read(2 * DISK_SIZE // SECTOR_SIZE - 1, 1) == bytes(SECTOR_SIZE)


def storage_daemon_with_monitor(
    program: Path, disk: Path, path: Path, monitor: Path
) -> AbstractAsyncContextManager[Peer]:
    command: list[str | Path] = [
        program,
        *("--chardev", f"socket,id=qmp,path={monitor},server=on,wait=off", "--monitor", "chardev=qmp"),
        *("--blockdev", f"driver=file,node-name=disk,filename={disk}"),
        *("--export", f"type=vhost-user-blk,id=export,node-name=disk,addr.type=unix,addr.path={path},writable=on"),
    ]
    return run_peer(command, log=path.with_suffix(".log"))


async def block_resize(monitor: Path, size: int) -> None:
    commands: list[dict[str, object]] = [
        {"execute": "qmp_capabilities"},
        {"execute": "block_resize", "arguments": {"node-name": "disk", "size": size}},
    ]
    async with await trio.open_unix_socket(monitor) as stream:
        for command in commands:
            await stream.send_all(json.dumps(command).encode())
        answers = b""
        while answers.count(b'"return"') < len(commands):
            answers += await stream.receive_some()
            assert b'"error"' not in answers, answers
