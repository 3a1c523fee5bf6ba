"""Our front-end killed and continued in another process, on a back-end we did not write."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from frontend.state import read_state
from tests.peers.programs import run_peer

if TYPE_CHECKING:
    from tests.peers.qemu import StorageDaemon

MIB = 1 << 20
EXAMPLE = Path(__file__).parents[2] / "examples" / "saved_state.py"


@pytest.mark.timeout(40)
async def test_a_disk_of_a_storage_daemon_outlives_the_front_end(
    qemu_storage_daemon: StorageDaemon, peer_folder: Path
) -> None:
    """The first process is killed after it has saved; the second fills the rest, and verifies all 16 MiB."""
    path, state, disk = peer_folder / "blk.sock", peer_folder / "state", peer_folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(16 * MIB)
    program: list[str | Path] = [sys.executable, EXAMPLE]
    with trio.fail_after(35):
        async with qemu_storage_daemon.serve(disk, path):
            begin = [*program, "begin", path, state]
            async with run_peer(begin, log=peer_folder / "begin.log", console=True) as first:
                assert first.process.stdout is not None
                await first.process.stdout.receive_some()
                first.process.send_signal(signal.SIGKILL)
                await first.process.wait()
            done = await trio.run_process(
                [*program, "finish", path, state], capture_stdout=True, stderr=subprocess.STDOUT
            )
    (ring,) = read_state(state).rings
    assert ring.base == 8 * MIB // (64 << 10) + 1, "each request, and one flush"
    assert done.stdout.decode().splitlines() == [
        f"going on at {8 * MIB} with the ring at {ring.base}",
        "0 of 256 blocks differ",
    ]
