"""The whole thing without what only Linux has: no eventfd, no memfd, no pidfd, no splice, and macOS's rules on top.

This is the POSIX way proven on Linux.  It is not macOS and not a BSD; docs/posix.md says what that leaves open.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.peers.programs import listening_at, run_peer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.peers.programs import Peer
    from tests.posix.conftest import System

ROOT = Path(__file__).parents[2]
VHOST_USER = (sys.executable, "-m", "vhostuser")
LINUX_ONLY = re.compile(r"eventfd|memfd:|pidfd|signalfd|timerfd|userfaultfd|io_uring|inotify")

# Parts of the library with descriptors or memory in them, and all that stands on these.  Of the tests of rings those
# whose ring is a mapping: the others never ask the system for anything.
SUITES = ("memory", "virtqueue/test_litmus.py", "transport", "backend", "devices", "frontend")
# Sans-I/O, but it owns descriptors: once is enough.
SUITES_FOR_MACOS = (*SUITES, "protocol")

# To ask whether there is an eventfd or a memfd is just what kills on the third.
where_calls_answer = pytest.mark.parametrize("system", ["without-linux", "macos-rules"], indirect=True)


def run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Children are not measured: coverage's tracer would only make them slow.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


# --- the demo ---


def demo(system: System, *options: str) -> dict[str, Any]:
    done = run(system.command([*VHOST_USER, "demo", "--json", *options]))
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_demo_copies_a_file_and_gets_it_back(system: System) -> None:
    told = demo(system, "--memory", "shm", "--notifier", "pipe")
    assert told["ok"]
    assert told["copy"]["sha256_file"] == told["copy"]["sha256_disk"]


@where_calls_answer
def test_pipes_are_taken_unasked_where_there_is_no_eventfd(system: System) -> None:
    assert demo(system)["ok"]


@where_calls_answer
def test_memfd_is_refused_with_advice_where_there_is_none(system: System) -> None:
    done = run(system.command([*VHOST_USER, "demo", "--memory", "memfd"]))
    assert done.returncode == 1
    assert "this system has none; use memory-backend-shm" in done.stderr


# --- who holds what, seen from outside ---

FRONTEND = """
import hashlib, os, sys
import trio
from frontend import BlkDriver, open_device
from vhostuser.transport.notifier import NotifierKind

async def main(path):
    data = os.urandom(1 << 20)
    async with open_device(path, BlkDriver, notifier=NotifierKind.PIPE) as disk:
        await disk.write(0, data)
        print("running", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        assert await disk.read(0, len(data) // 512) == data
        print("the same", flush=True)

trio.run(main, sys.argv[1])
"""


@pytest.mark.timeout(30)
async def test_neither_process_holds_anything_that_only_linux_has(system: System, folder: Path) -> None:
    path = folder / "blk.sock"
    with listening_at(path) as listener:
        backend = [*VHOST_USER, "backend", "blk", "--memory-size", "8M", "--fd", str(listener.fileno())]
        frontend = [sys.executable, "-c", FRONTEND, str(path)]
        async with (
            run_peer(system.command(backend), log=folder / "backend.log", pass_fds=[listener.fileno()]) as served,
            run_peer(system.command(frontend), log=folder / "frontend.log", console=True) as driving,
        ):
            await expect(driving, b"running\n")
            held = [peer.fds() for peer in (served, driving)]
            mapped = [mapped_files(peer) for peer in (served, driving)]
            await driving.process.stdin.send_all(b"go on\n")  # type: ignore[union-attr]  # console=True
            await expect(driving, b"the same\n")
            assert await driving.process.wait() == 0
    console = 2
    for fds, for_the_console in zip(held, (0, console), strict=True):
        assert [fd for fd in fds if LINUX_ONLY.search(fd)] == []
        assert sum(fd.startswith("pipe:") for fd in fds) >= 2 + for_the_console, "kick and call"
    for files in mapped:
        assert any(re.fullmatch(r"/dev/shm/.* \(deleted\)", file) for file in files), "memory without a name"


def mapped_files(peer: Peer) -> list[str]:
    """What a process has mapped, as /proc/PID/maps names it; a mapping needs no descriptor."""
    lines = Path(f"/proc/{peer.process.pid}/maps").read_text().splitlines()
    return [line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6]


async def expect(peer: Peer, words: bytes) -> None:
    assert peer.process.stdout is not None
    found = b""
    while found != words:
        data = await peer.process.stdout.receive_some()
        assert data, f"found {found!r}, expected {words!r}\n{peer.tail()}"
        found += data


# --- the other tests ---


@pytest.mark.timeout(600)
@where_calls_answer
def test_the_tests_pass_there_too(system: System) -> None:
    """Only what needs a memfd or an eventfd is skipped."""
    faulthandler.cancel_dump_traceback_later()  # this takes a minute, and hangs nowhere
    suites = SUITES if system.shim is None else SUITES_FOR_MACOS
    folders = [f"tests/{name}" for name in suites if (ROOT / "tests" / name).exists()]
    done = run(system.command([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *folders]))
    assert done.returncode == 0, done.stdout[-4000:]
    passed, skipped = (
        int(found[1]) if (found := re.search(rf"(\d+) {what}", done.stdout)) else 0 for what in ("passed", "skipped")
    )
    assert 0 < skipped < passed // 10, done.stdout[-2000:]
    assert "no eventfd" in done.stdout
    assert re.search(r"memfd is Linux only|no memfd", done.stdout)
