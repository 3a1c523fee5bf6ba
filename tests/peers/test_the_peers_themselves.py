"""QEMU and qemu-storage-daemon with each other, none of our code between them.

When these fail, the machine or the peers are at fault; when they pass and our own peer tests fail, we are.
"""

from __future__ import annotations

import hashlib
import os
import struct
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from tests.peers.machine import GUEST_SECONDS
from tests.peers.qemu import blk_device
from tests.peers.user_mode_linux import uml_device

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.machine import GuestRun, Machine
    from tests.peers.programs import Peer
    from tests.peers.qemu import Guest, StorageDaemon
    from tests.peers.user_mode_linux import UserModeLinux

MIB = 1 << 20
GET_FEATURES = struct.pack("=III", 1, 1, 0)  # request, version 1, no payload


@pytest.fixture
def disk(peer_folder: Path) -> Path:
    """64 MiB, the first four of them random."""
    path = peer_folder / "disk.img"
    path.write_bytes(os.urandom(4 * MIB))
    os.truncate(path, 64 * MIB)
    return path


async def ask_features(path: Path) -> int:
    """GET_FEATURES by hand, in twelve bytes; the answer has the REPLY bit and eight more."""
    answer = b""
    with trio.socket.socket(trio.socket.AF_UNIX) as client:
        await client.connect(str(path))
        await client.send(GET_FEATURES)
        while len(answer) < 20:
            data = await client.recv(20 - len(answer))
            assert data, f"found the end after {len(answer)} bytes, expected 20"
            answer += data
    request, flags, size, features = struct.unpack("=IIIQ", answer)
    assert (request, flags, size) == (1, 1 | 4, 8)
    return int(features)


@pytest.mark.parametrize("no_eventfd", [False, True], ids=["plain", "no_eventfd"])
async def test_the_storage_daemon_offers_vhost_user_features(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path, no_eventfd: bool
) -> None:
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(disk, path, no_eventfd=no_eventfd):
        with trio.fail_after(9):
            features = await ask_features(path)
    assert features & 1 << 30, "PROTOCOL_FEATURES"
    assert features & 1 << 32, "VERSION_1"
    assert not path.exists()


async def test_the_storage_daemon_serves_one_client_after_the_other(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(disk, path):
        with trio.fail_after(9):
            assert await ask_features(path) == await ask_features(path)


async def test_a_daemon_that_dies_at_start_refuses_its_clients_and_its_log_says_why(
    qemu_storage_daemon: StorageDaemon, peer_folder: Path
) -> None:
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(peer_folder / "no-such-disk", path) as peer:
        with trio.fail_after(9):
            assert await peer.process.wait() == 1
            with pytest.raises(ConnectionRefusedError):
                await ask_features(path)
        assert "no-such-disk" in peer.tail()


@pytest.mark.timeout(GUEST_SECONDS + 10)
async def test_a_guest_runs_its_job_and_tells_its_status(guest: Guest, peer_folder: Path) -> None:
    done = await guest.run("echo \"two  'words'\"; ls /dev/vd*; exit 3", peer_folder)
    assert done.status == 3
    assert "GUEST-UP " in done.output
    assert "GUEST-PROBLEM" not in done.output
    assert "two  'words'\n" in done.output
    assert "/dev/vd*: No such file" in done.output


@pytest.mark.timeout(GUEST_SECONDS + 10)
async def test_a_job_may_stand_on_the_kernel_command_line(guest: Guest, peer_folder: Path) -> None:
    done = await guest.run("", peer_folder, words='job="cat /proc/version; exit 4"')
    assert (done.status, "Linux version" in done.output) == (4, True)


WAIT_FOR_ENTER = "read word < /dev/console\n"

COPY_AND_MOUNT = """\
set -e
dd if=/dev/vda bs=1M count=4 | sha256sum
dd if=/dev/vda of=/dev/vda bs=1M count=4 seek=48 conv=fsync,notrunc
mke2fs -q -F /dev/vda 32768 > /dev/null
mount -t ext4 /dev/vda /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=8
sha256sum /mnt/file > /tmp/sum
sync
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
sha256sum -c /tmp/sum
umount /mnt
"""


async def notifiers_while_running(machine: Machine, daemon: Peer) -> list[tuple[int, int]]:
    """(eventfds, pipe ends) of QEMU and of the daemon while the guest's driver has the device."""
    await machine.wait_for("GUEST-UP")
    found = [machine.peer.notifiers(), daemon.notifiers()]
    await machine.enter("go")
    return found


@pytest.mark.timeout(GUEST_SECONDS + 10)
@pytest.mark.parametrize(
    ("memory", "no_eventfd"),
    [
        pytest.param("shm", False, id="shm-eventfd"),
        pytest.param("memfd", False, id="memfd-eventfd"),
        pytest.param("shm", True, id="shm-pipe"),
    ],
)
async def test_a_guest_uses_the_storage_daemons_disk(
    guest: Guest,
    qemu_storage_daemon: StorageDaemon,
    disk: Path,
    peer_folder: Path,
    memory: Literal["shm", "memfd"],
    no_eventfd: bool,
) -> None:
    path = peer_folder / "blk.sock"
    image = await trio.Path(disk).read_bytes()
    with trio.fail_after(GUEST_SECONDS):
        async with (
            qemu_storage_daemon.serve(disk, path, no_eventfd=no_eventfd) as daemon,
            guest.boot(
                WAIT_FOR_ENTER + COPY_AND_MOUNT,
                peer_folder,
                memory=memory,
                devices=blk_device(path),
                no_eventfd=no_eventfd,
            ) as machine,
        ):
            notifiers = await notifiers_while_running(machine, daemon)
            done = await machine.finished()
    await check_the_copy(done, image, disk)
    for eventfds, pipe_ends in notifiers:
        assert (eventfds == 0) == no_eventfd
        assert (pipe_ends >= 4) == no_eventfd


async def check_the_copy(done: GuestRun, image: bytes, disk: Path) -> None:
    assert done.status == 0, done.output
    assert hashlib.sha256(image[: 4 * MIB]).hexdigest() in done.output
    assert (await trio.Path(disk).read_bytes())[48 * MIB : 52 * MIB] == image[: 4 * MIB]
    assert "/mnt/file: OK" in done.output


@pytest.mark.timeout(GUEST_SECONDS + 10)
async def test_user_mode_linux_uses_the_storage_daemons_disk(
    user_mode_linux: UserModeLinux, qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    path = peer_folder / "blk.sock"
    image = await trio.Path(disk).read_bytes()
    async with qemu_storage_daemon.serve(disk, path):
        done = await user_mode_linux.run(COPY_AND_MOUNT, peer_folder, devices=[uml_device(path)])
    await check_the_copy(done, image, disk)
