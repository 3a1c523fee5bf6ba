"""A real Linux, in QEMU and as user-mode Linux, on our back-ends: a disk it puts a file system on, and /dev/hwrng.

The guest checks what it reads; afterwards the image is compared from outside, byte for byte, with what the guest
believed to be on its disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from tests.engines import needs_native
from tests.peers.machine import GUEST_SECONDS
from tests.peers.our_programs import OurBackend, our_backend, our_listening_backend
from tests.peers.qemu import RAM_FILE, blk_device, rng_device
from tests.peers.user_mode_linux import uml_device
from vhostuser.virtqueue.engine import ENGINE

if TYPE_CHECKING:
    from tests.peers.machine import GuestRun
    from tests.peers.qemu import Guest
    from tests.peers.user_mode_linux import UserModeLinux

pytestmark = pytest.mark.timeout(GUEST_SECONDS + 15)

MIB = 1 << 20
DISK_SIZE = 32 * MIB

WAIT_FOR_ENTER = "read word < /dev/console\n"

USE_THE_DISK = """\
set -e
dd if=/dev/vda bs=1M count=4 2> /dev/null | sha256sum | sed 's/^/FOUND /'
dd if=/dev/vda of=/dev/vda bs=1M count=4 seek=24 conv=fsync,notrunc 2> /dev/null
mke2fs -q -F /dev/vda 16384 > /dev/null
mount -t ext4 /dev/vda /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=8 2> /dev/null
sha256sum /mnt/file > /tmp/sum
sync
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
sha256sum -c /tmp/sum
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
sha256sum < /dev/vda | sed 's/^/DISK /'
"""
READ_RANDOM_BYTES = """\
echo "RNG $(cat /sys/class/misc/hw_random/rng_current)"
for i in 1 2; do dd if=/dev/hwrng bs=64 count=4 2> /dev/null | hexdump -ve '1/1 "%02x"' | sed 's/^/RANDOM /'; echo; done
"""


@pytest.fixture
def disk(peer_folder: Path) -> Path:
    """32 MiB, the first four of them random."""
    path = peer_folder / "disk.img"
    path.write_bytes(os.urandom(4 * MIB))
    os.truncate(path, DISK_SIZE)
    return path


async def contents(disk: Path) -> bytes:
    return await trio.Path(disk).read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def check_the_disk(done: GuestRun, before: bytes, disk: Path) -> None:
    """The guest found what was there, copied it, kept a file, and its disk is our image."""
    assert done.status == 0, done.output
    assert "/mnt/file: OK\n" in done.output
    after = await contents(disk)
    assert f"FOUND {sha256(before[: 4 * MIB])} " in done.output
    assert after[24 * MIB : 28 * MIB] == before[: 4 * MIB]
    assert f"DISK {sha256(after)} " in done.output


def check_that_all_is_well(backend: OurBackend) -> None:
    """It ended politely, and it had nothing to complain about."""
    assert backend.complaints() == []
    assert backend.peer.process.returncode == 0


def starts(backend: OurBackend) -> list[str]:
    """The starts and stops of ring 0, in order: ``start 256``, ``stop 1``."""
    found = []
    for line in backend.messages():
        if size := re.fullmatch(r"received SET_VRING_NUM  ring 0 size (\d+)", line):
            found.append(f"start {size[1]}")
        elif base := re.fullmatch(r"sent reply to GET_VRING_BASE  ring 0 base (\d+)", line):
            found.append(f"stop {base[1]}")
    return found


# --- data ---


@pytest.mark.parametrize(
    ("memory", "no_eventfd"),
    [
        pytest.param("shm", False, id="shm-eventfd"),
        pytest.param("memfd", False, id="memfd-eventfd"),
        pytest.param("shm", True, id="shm-pipe"),
    ],
)
async def test_a_guest_keeps_a_file_system_on_our_disk_and_reads_our_random_bytes(
    guest: Guest, disk: Path, peer_folder: Path, memory: Literal["shm", "memfd"], no_eventfd: bool
) -> None:
    blk_path, rng_path = peer_folder / "blk.sock", peer_folder / "rng.sock"
    before = await contents(disk)
    async with (
        our_backend("blk", blk_path, "--blk-file", disk, no_eventfd=no_eventfd) as blk,
        our_backend("rng", rng_path, no_eventfd=no_eventfd) as rng,
        guest.boot(
            WAIT_FOR_ENTER + USE_THE_DISK + READ_RANDOM_BYTES,
            peer_folder,
            memory=memory,
            devices=[*blk_device(blk_path), *rng_device(rng_path)],
            no_eventfd=no_eventfd,
        ) as machine,
    ):
        await machine.wait_for("GUEST-UP")
        notifiers = [peer.notifiers() for peer in (machine.peer, blk.peer, rng.peer)]
        console_pipes = [2, 0, 0]
        pipe_ends = blk.pipe_ends()
        await machine.enter("go")
        done = await machine.finished_within(GUEST_SECONDS)
    await check_the_disk(done, before, disk)
    check_the_random_bytes(done, rng)
    check_that_the_firmware_came_first(blk)
    for backend in (blk, rng):
        check_that_all_is_well(backend)
        assert backend.notifier_kinds() == {"pipe" if no_eventfd else "eventfd"}
    for (eventfds, pipes), for_the_console in zip(notifiers, console_pipes, strict=True):
        assert (eventfds == 0) == no_eventfd
        assert (pipes == for_the_console) == (not no_eventfd)
    # One ring: kick is a read end, call a write end.  err should be a write end too, and with QEMU is not.
    # A ring with a thread of its own has both ends of what stops it besides.
    own = ENGINE == "native"
    assert pipe_ends == ({"read": 2 + own, "write": 1 + own} if no_eventfd else {})


def check_the_random_bytes(done: GuestRun, rng: OurBackend) -> None:
    assert "RNG virtio_rng.0\n" in done.output
    first, second = (bytes.fromhex(found) for found in re.findall(r"^RANDOM (\w+)$", done.output, re.MULTILINE))
    assert len(first) == len(second) == 256
    assert first != second
    assert all(len(set(found)) > 64 for found in (first, second)), "256 bytes that repeat themselves are not random"
    assert rng.bases(0)[-1] > 0


def check_that_the_firmware_came_first(blk: OurBackend) -> None:
    """SeaBIOS started the ring, read from the disk and stopped it; Linux then started it anew, and larger."""
    firmware_start, firmware_stop, linux_start, linux_stop = starts(blk)
    assert (firmware_start, linux_start) == ("start 256", "start 1024")
    assert "stop 0" not in (firmware_stop, linux_stop)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--serve", "task"], id="task"),
        pytest.param(["--serve", "thread"], id="thread"),
        pytest.param(["--serve", "native", "--mmap"], id="native-mmap", marks=needs_native),
    ],
)
async def test_a_guest_whose_memory_is_a_file_keeps_a_file_system_on_our_disk(
    guest: Guest, disk: Path, peer_folder: Path, options: list[str]
) -> None:
    """memory-backend-file,share=on: what the guest has in memory stands in an ordinary file, for our back-end too."""
    path = peer_folder / "blk.sock"
    before = await contents(disk)
    async with (
        our_backend("blk", path, "--blk-file", disk, *options) as blk,
        guest.boot(WAIT_FOR_ENTER + USE_THE_DISK, peer_folder, memory="file", devices=blk_device(path)) as machine,
    ):
        await machine.wait_for("GUEST-UP")
        mapped = mappings_of(blk.peer.process.pid, peer_folder / RAM_FILE)
        await machine.enter("go")
        done = await machine.finished_within(GUEST_SECONDS)
    assert mapped == {"rw-s"}
    await check_the_disk(done, before, disk)
    check_that_all_is_well(blk)


def mappings_of(pid: int, path: Path) -> set[str]:
    """How a process has mapped a file: permissions, and ``s`` for shared."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[1] for line in lines if line.endswith(f" {path}")}


async def test_user_mode_linux_keeps_a_file_system_on_our_disk(
    user_mode_linux: UserModeLinux, disk: Path, peer_folder: Path
) -> None:
    """It kicks through an eventfd and is called through a socket, no firmware goes before it."""
    path = peer_folder / "blk.sock"
    before = await contents(disk)
    async with our_backend("blk", path, "--blk-file", disk) as blk:
        done = await user_mode_linux.run(USE_THE_DISK, peer_folder, devices=[uml_device(path)])
    await check_the_disk(done, before, disk)
    check_that_all_is_well(blk)
    assert blk.notifier_kinds() == {"eventfd", "socket"}
    assert [start.split()[0] for start in starts(blk)] == ["start"]


# --- what else a disk does ---

USE_EACH_CPU = """\
set -e
ls /sys/block/vda/mq | sed 's/^/QUEUE /'
for cpu in 1 2; do
    taskset $cpu dd if=/dev/vda bs=64k count=16 skip=$((cpu * 16)) iflag=direct 2> /dev/null | sha256sum
done
"""


async def test_a_guest_with_two_cpus_uses_both_queues(guest: Guest, disk: Path, peer_folder: Path) -> None:
    path = peer_folder / "blk.sock"
    before = await contents(disk)
    async with our_backend("blk", path, "--blk-file", disk, "--num-queues", "2") as blk:
        done = await guest.run(USE_EACH_CPU, peer_folder, devices=["-smp", "2", *blk_device(path, queues=2)])
    assert done.status == 0
    assert re.findall(r"^QUEUE (\d)$", done.output, re.MULTILINE) == ["0", "1"]
    for cpu in (1, 2):
        assert sha256(before[cpu * MIB : (cpu + 1) * MIB]) in done.output
        assert blk.bases(ring=cpu - 1)[-1] >= 16
    check_that_all_is_well(blk)


TRY_TO_WRITE = """\
echo "READ-ONLY $(cat /sys/block/vda/ro)"
sha256sum < /dev/vda
dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync && exit 1
mount -t ext4 -o rw /dev/vda /mnt && exit 1
exit 0
"""


async def test_a_guest_cannot_write_to_a_read_only_disk(guest: Guest, disk: Path, peer_folder: Path) -> None:
    path = peer_folder / "blk.sock"
    before = await contents(disk)
    async with our_backend("blk", path, "--blk-file", disk, "--read-only") as blk:
        done = await guest.run(TRY_TO_WRITE, peer_folder, devices=blk_device(path))
    assert done.status == 0
    assert "READ-ONLY 1\n" in done.output
    assert sha256(before) in done.output
    assert await contents(disk) == before
    check_that_all_is_well(blk)


WAIT_FOR_A_LARGER_DISK = f"""\
set -e
echo "SIZE $(cat /sys/block/vda/size)"
while [ $(cat /sys/block/vda/size) != {2 * DISK_SIZE // 512} ]; do usleep 20000; done
dd if=/dev/vda of=/dev/vda bs=1M count=4 seek={2 * DISK_SIZE // MIB - 4} conv=fsync,notrunc
"""


async def test_a_guest_sees_its_disk_grow(guest: Guest, disk: Path, peer_folder: Path) -> None:
    """``truncate`` and SIGHUP; the guest uses the new end at once."""
    path = peer_folder / "blk.sock"
    before = await contents(disk)
    async with (
        our_backend("blk", path, "--blk-file", disk) as blk,
        guest.boot(WAIT_FOR_A_LARGER_DISK, peer_folder, devices=blk_device(path)) as machine,
    ):
        await machine.wait_for(f"SIZE {DISK_SIZE // 512}\n")
        os.truncate(disk, 2 * DISK_SIZE)
        blk.peer.process.send_signal(signal.SIGHUP)
        done = await machine.finished_within(GUEST_SECONDS)
    assert done.status == 0
    assert (await contents(disk))[-4 * MIB :] == before[: 4 * MIB]
    check_that_all_is_well(blk)


KEEP_A_FILE_OPEN = f"""\
set -e
mke2fs -q -F /dev/vda 16384 > /dev/null
mount -t ext4 /dev/vda /mnt
dd if=/dev/urandom of=/mnt/file bs=1M count=4 2> /dev/null
sha256sum /mnt/file > /tmp/sum
sync
echo 3 > /proc/sys/vm/drop_caches
echo IDLE
{WAIT_FOR_ENTER}
sha256sum -c /tmp/sum
cp /mnt/file /mnt/copy
umount /mnt
sha256sum < /dev/vda | sed 's/^/DISK /'
"""


async def test_a_guest_goes_on_after_our_back_end_was_killed_and_started_again(
    guest: Guest, disk: Path, peer_folder: Path
) -> None:
    """What the guest asks for meanwhile waits for the new back-end.

    It is killed while the disk is idle: without INFLIGHT_SHMFD nobody knows which requests a dead back-end had taken.
    """
    path, log = peer_folder / "blk.sock", peer_folder / "first.log"
    devices = [argument.replace(f"path={path}", f"path={path},reconnect-ms=100") for argument in blk_device(path)]
    async with guest.boot(KEEP_A_FILE_OPEN, peer_folder, devices=devices) as machine:
        async with our_listening_backend("blk", path, "--blk-file", disk, log=log) as first:
            await machine.wait_for("IDLE\n")
            first.peer.process.kill()
            await first.peer.process.wait()
        await machine.enter("go")
        log = peer_folder / "second.log"
        async with our_listening_backend("blk", path, "--blk-file", disk, log=log) as second:
            done = await machine.finished_within(GUEST_SECONDS)
    assert done.status == 0, done.output
    assert "/mnt/file: OK\n" in done.output
    assert f"DISK {sha256(await contents(disk))} " in done.output
    assert first.complaints() == []
    check_that_all_is_well(second)
    # The ring goes on where it stood, of which QEMU finds out by looking into it.
    (base,) = (line for line in second.messages() if line.startswith("received SET_VRING_BASE"))
    assert not base.endswith(" base 0")
