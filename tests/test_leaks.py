"""The leak check catches what it promises to catch, and stays quiet about the rest."""

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vhostuser.testing.leaks import SHM, Leaks, Snapshot

ROOT = Path(__file__).parent.parent

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LEAKY_MODULE = """
import os, mmap, socket, subprocess, tempfile
import pytest, trio

kept = []

def test_a_clean_one():
    os.close(os.dup(0))

async def test_a_clean_async_one():
    async with await trio.open_file(os.devnull) as file:
        await file.read()
    await trio.run_process(["true"])

def test_garbage_in_a_cycle_is_no_leak():
    class Holder: pass
    holder = Holder()
    holder.itself, holder.mapping = holder, mmap.mmap(-1, 4096)

def test_an_fd():
    kept.append(os.open(os.devnull, os.O_RDONLY))

async def test_an_fd_of_an_async_test():
    kept.append(os.pipe())

@pytest.fixture
async def left_open():
    kept.append(trio.socket.socketpair())
    yield

async def test_an_fd_of_an_async_fixture(left_open): pass

def test_a_mapping():
    kept.append(mmap.mmap(-1, 4096))

def test_a_failure_with_something_open():
    holding = os.open(os.devnull, os.O_RDONLY)
    assert False

def test_an_object_that_minds():
    open(os.devnull)
"""


def leaked_since(before: Snapshot) -> str:
    return str(Leaks.between(before, Snapshot.take()))


def test_nothing_happened_so_nothing_leaked() -> None:
    assert not Leaks.between(Snapshot.take(), Snapshot.take())


def test_an_open_fd_is_named_with_what_it_is() -> None:
    before = Snapshot.take()
    read_end, write_end = os.pipe()
    try:
        leaked = leaked_since(before)
    finally:
        os.close(read_end)
        os.close(write_end)
    assert f"fds: {read_end} -> " in leaked
    assert f"fds: {write_end} -> " in leaked
    assert not leaked_since(before)


@linux_only
def test_a_shared_mapping_is_named_with_its_file(tmp_path: Path) -> None:
    before = Snapshot.take()
    with (tmp_path / "disk").open("wb+") as file:
        file.truncate(4096)
        mapping = mmap.mmap(file.fileno(), 4096)
    (tmp_path / "disk").unlink()
    leaked = leaked_since(before)
    mapping.close()
    assert f"rw-s {tmp_path}/disk (deleted)" in leaked
    assert not leaked_since(before)


def test_a_private_mapping_is_nobodys_business() -> None:
    before = Snapshot.take()
    mapping = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert not leaked_since(before)
    mapping.close()


@pytest.mark.skipif(not SHM.is_dir(), reason=f"no {SHM}: its names cannot be listed here")
def test_a_name_left_in_dev_shm_is_named() -> None:
    before = Snapshot.take()
    path = SHM / f"leak-check-{os.getpid()}"
    path.touch()
    try:
        leaked = leaked_since(before)
    finally:
        path.unlink()
    assert f"shm names: {path.name}" in leaked


@linux_only
def test_a_running_child_is_named_with_its_command() -> None:
    before = Snapshot.take()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        # Popen returns when exec has closed our pipe, which is a little before the kernel knows the new command line.
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(b"there?")
        assert child.stdout.read(6) == b"there?"
        leaked = leaked_since(before)
    assert f"children: process {child.pid} cat" in leaked
    assert not leaked_since(before)


def test_the_fixture_fails_the_tests_that_leak_and_no_others(tmp_path: Path) -> None:
    module = tmp_path / "test_leaky.py"
    module.write_text(LEAKY_MODULE)
    config = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "tests.conftest"]
    command = [sys.executable, "-m", "pytest", *config, "-p", "no:cacheprovider", "-rA", "--no-header", str(module)]
    report = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout

    assert re.findall(r"^(ERROR|FAILED) \S*::(\w+)", report, re.MULTILINE) == [
        ("ERROR", "test_an_fd"),
        ("ERROR", "test_an_fd_of_an_async_test"),
        ("ERROR", "test_an_fd_of_an_async_fixture"),
        ("ERROR", "test_a_mapping"),
        ("FAILED", "test_a_failure_with_something_open"),
        ("FAILED", "test_an_object_that_minds"),
    ], report
    assert "-> /dev/null" in report


def test_a_child_that_was_there_and_calls_exec_is_no_leak() -> None:
    none: frozenset[str] = frozenset()
    before = Snapshot(none, none, none, frozenset({"process 7 python -m pytest"}))
    after = Snapshot(none, none, none, frozenset({"process 7 sleep 1000", "process 77 sleep 1000"}))
    assert Leaks.between(before, after).children == {"process 77 sleep 1000"}
