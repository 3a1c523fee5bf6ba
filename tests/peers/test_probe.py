"""`vhost-user probe` on back-ends that other people wrote: what each offers, and that it goes on after it."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from frontend import BlkDriver, open_device
from tests.peers.our_programs import VHOST_USER
from tests.peers.programs import listening_at, run_peer, wait_connectable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.peers.folder import PeersFolder
    from tests.peers.programs import Peer
    from tests.peers.qemu import StorageDaemon

DISK_SIZE = 1 << 20


@pytest.fixture
def disk(peer_folder: Path) -> Path:
    path = peer_folder / "disk.img"
    path.touch()
    os.truncate(path, DISK_SIZE)
    return path


async def probed(*arguments: str | Path) -> dict[str, Any]:
    """What `vhost-user probe --json` says."""
    ran = await trio.run_process([*VHOST_USER, "probe", "--json", *map(str, arguments)], capture_stdout=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@asynccontextmanager
async def virtiofsd(peers: PeersFolder, folder: Path, path: Path, *options: str) -> AsyncIterator[Peer]:
    """virtiofsd without its sandbox, which not every container permits, on an inherited listening socket."""
    with listening_at(path) as listener:
        number = listener.fileno()
        command: list[str | Path] = [
            peers.program("virtiofsd"),
            "--sandbox=none",
            f"--shared-dir={folder}",
            f"--fd={number}",
            *options,
        ]
        async with run_peer(command, log=path.with_suffix(".log"), pass_fds=[number]) as peer:
            listener.close()
            yield peer


async def test_the_storage_daemon_is_a_disk(qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path) -> None:
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(disk, path, queues=2):
        found = await probed(path)
        async with open_device(path, BlkDriver) as driver:
            assert driver.size == DISK_SIZE
    assert (found["type"], found["queues"], found["need_reply"], found["ended"]) == ("blk", 2, "answered", None)
    assert found["memory_slots"] > 8
    assert {"CONFIG_WCE", "DISCARD", "EVENT_IDX"} <= set(found["features"]["names"])
    assert {"CONFIG", "REPLY_ACK", "PAGEFAULT"} <= set(found["protocol_features"]["names"])
    assert found["config"]["fields"]["capacity"] == DISK_SIZE // 512
    assert found["config"]["fields"]["num_queues"] == 2


async def test_the_storage_daemon_gives_need_reply_back_in_its_replies(
    qemu_storage_daemon: StorageDaemon, disk: Path, peer_folder: Path
) -> None:
    """libvhost-user adds to the flags that it got: 0xd where the document has 0x5."""
    path = peer_folder / "blk.sock"
    async with qemu_storage_daemon.serve(disk, path):
        quirks = (await probed(path))["quirks"]
    assert {"id": "reply-flags", "detail": "GET_FEATURES: found flags 0xd, expected 0x5"} in quirks
    assert {quirk["id"] for quirk in quirks} <= {"reply-flags", "split-reply"}


async def test_virtiofsd_is_a_file_system_and_ends_with_its_front_end(peers: PeersFolder, peer_folder: Path) -> None:
    path = peer_folder / "fs.sock"
    async with virtiofsd(peers, peer_folder, path, "--tag=share") as peer:
        found = await probed(path)
        with trio.fail_after(5):
            assert await peer.process.wait() == 0
    assert (found["type"], found["queues"], found["need_reply"]) == ("fs", 2, "answered")
    assert found["config"]["fields"] == {"tag": "share", "num_request_queues": 1}
    assert found["quirks"] == []


async def test_passt_is_a_network_device_and_goes_on(peers: PeersFolder, peer_folder: Path) -> None:
    path = peer_folder / "net.sock"
    command: list[str | Path] = [peers.program("passt"), "--vhost-user", "--foreground", "--socket", path]
    async with run_peer(command, log=peer_folder / "passt.log") as peer:
        await wait_connectable(path, peer)
        found, again = await probed(path), await probed("--type", "net", path)
    assert (found["type"], found["queues"], found["memory_slots"], found["config"]) == ("net", None, None, None)
    assert "MRG_RXBUF" in found["features"]["names"]
    assert {"RARP", "DEVICE_STATE"} <= set(found["protocol_features"]["names"])
    assert found["quirks"] == again["quirks"] == []
    assert again["features"] == found["features"]
