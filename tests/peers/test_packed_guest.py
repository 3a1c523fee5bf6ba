"""A real Linux on packed rings of our disk: QEMU with ``packed=on``, whose firmware uses a split ring before.

The ring is Linux's own code at one end and ours at the other, so nothing here could agree with itself by mistake.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

import pytest
import trio

from tests.engines import needs_native
from tests.peers.machine import GUEST_SECONDS
from tests.peers.our_programs import our_backend
from tests.peers.qemu import blk_device
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.packed import INITIAL_BASE, PackedBase

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.qemu import Guest

pytestmark = pytest.mark.timeout(GUEST_SECONDS + 15)

MIB = 1 << 20
DISK_SIZE = 24 * MIB

KEEP_A_FILE_SYSTEM = """\
set -e
echo "FEATURES $(cat /sys/bus/virtio/devices/virtio0/features)"
dd if=/dev/vda bs=1M count=4 2> /dev/null | sha256sum | sed 's/^/FOUND /'
mke2fs -q -F /dev/vda 16384 > /dev/null
mount -t ext4 /dev/vda /mnt
mkdir /mnt/d
dd if=/dev/urandom of=/mnt/d/file bs=1M count=8 2> /dev/null
for i in $(seq 100); do echo $i > /mnt/d/$i; sync; done
sha256sum /mnt/d/* > /tmp/sums
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
sha256sum -c /tmp/sums | grep -c OK | sed 's/^/GOOD FILES /'
umount /mnt
echo 3 > /proc/sys/vm/drop_caches
sha256sum < /dev/vda | sed 's/^/DISK /'
"""


def packed_disk(path: Path, **properties: str) -> list[str]:
    """QEMU arguments for a disk whose driver may use packed rings."""
    *chardev, device = blk_device(path)
    return [*chardev, ",".join([device, "packed=on", *(f"{name}={value}" for name, value in properties.items())])]


def has(done_output: str, feature: VirtioFeature) -> bool:
    """Whether the guest's driver uses ``feature``; Linux shows bit 0 first."""
    bits = re.search(r"^FEATURES ([01]{64})$", done_output, re.MULTILINE)
    assert bits is not None, done_output
    return bits[1][feature.bit_length() - 1] == "1"


@pytest.mark.parametrize(
    ("properties", "options"),
    [
        pytest.param({}, ["--serve", "native"], id="indirect-event_idx-native", marks=needs_native),
        pytest.param({}, ["--serve", "task"], id="indirect-event_idx-task"),
        pytest.param({"indirect_desc": "off", "event_idx": "off"}, [], id="direct"),
    ],
)
async def test_a_guest_keeps_a_file_system_on_packed_rings(
    guest: Guest, peer_folder: Path, properties: dict[str, str], options: list[str]
) -> None:
    disk, path = peer_folder / "disk.img", peer_folder / "blk.sock"
    before = os.urandom(4 * MIB)
    disk.write_bytes(before)
    os.truncate(disk, DISK_SIZE)
    async with our_backend("blk", path, "--packed", "--blk-file", disk, *options) as blk:
        done = await guest.run(KEEP_A_FILE_SYSTEM, peer_folder, devices=packed_disk(path, **properties))
    assert done.status == 0, done.output
    assert has(done.output, VirtioFeature.RING_PACKED)
    assert (
        has(done.output, VirtioFeature.EVENT_IDX) == has(done.output, VirtioFeature.INDIRECT_DESC) != bool(properties)
    )
    assert f"FOUND {hashlib.sha256(before).hexdigest()} " in done.output
    assert "GOOD FILES 101\n" in done.output
    after = await trio.Path(disk).read_bytes()
    assert f"DISK {hashlib.sha256(after).hexdigest()} " in done.output
    assert blk.complaints() == []
    assert blk.peer.process.returncode == 0
    check_the_bases(blk.messages())


def check_the_bases(messages: list[str]) -> None:
    """The firmware's split ring began at 0, Linux's packed ring at 0x80008000; it was drained when it was stopped."""
    given = [int(line.rpartition(" ")[2]) for line in messages if line.startswith("received SET_VRING_BASE")]
    assert given == [0, int(INITIAL_BASE)]
    _, last = (int(line.rpartition(" ")[2]) for line in messages if line.startswith("sent reply to GET_VRING_BASE"))
    assert PackedBase.of(last).next_avail == PackedBase.of(last).next_used
