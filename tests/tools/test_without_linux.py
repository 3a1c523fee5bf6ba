"""The seccomp launcher: it denies what it says, and nothing a portable program needs."""

import errno
import json
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.missing import missing
from tests.tools.without_linux import (
    ARCHITECTURES,
    MORE_NUMBERS,
    NUMBERS,
    PROBED,
    command_without_linux,
    filter_program,
)

if platform.machine() not in ARCHITECTURES:
    pytest.skip(f"no table of system calls for {platform.machine()}", allow_module_level=True)
if sys.platform != "linux":
    pytest.skip("nothing to take away: this is not Linux", allow_module_level=True)

COLUMN = ARCHITECTURES[platform.machine()][1]
ALL_NUMBERS = {**NUMBERS, **MORE_NUMBERS}

# Every argument is -1: each call fails, and harmlessly, wherever it exists.
CALLER = """
import ctypes, errno, json, sys
libc = ctypes.CDLL(None, use_errno=True)
answers = {}
for name, number in json.loads(sys.argv[1]).items():
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
    answers[name] = ctypes.get_errno()
print(json.dumps(answers))
"""

PORTABLE_PROGRAM = """
import mmap, os, signal, socket, sys, tempfile
import trio, posix_ipc

async def main() -> None:
    name = f"/without-{os.getpid()}"
    memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    posix_ipc.unlink_shared_memory(name)
    os.ftruncate(memory.fd, mmap.PAGESIZE)
    with mmap.mmap(memory.fd, mmap.PAGESIZE) as mapping:
        mapping[:5] = b"hello"
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"fd"], [memory.fd])
    data, fds, _, _ = socket.recv_fds(theirs, 2, 1)
    assert os.pread(fds[0], 5, 0) == b"hello"
    read_end, write_end = os.pipe()
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        async for _ in signals:
            break
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.lowlevel.wait_readable, read_end)
        os.write(write_end, b"8 bytes.")
    assert await trio.to_thread.run_sync(os.getpid) == os.getpid()
    done = await trio.run_process([sys.executable, "-c", "print(6 * 7)"], capture_stdout=True)
    assert done.stdout == b"42\\n"
    big = bytearray()
    for _ in range(64):
        big += bytes(1 << 16)
    print("portable program done")

trio.run(main)
"""


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def answers(command: list[str]) -> dict[str, int]:
    done = run(command)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def caller(names: list[str]) -> list[str]:
    numbers = {name: ALL_NUMBERS[name][COLUMN] for name in names}
    return [sys.executable, "-c", CALLER, json.dumps({name: n for name, n in numbers.items() if n is not None})]


@pytest.fixture(scope="module")
def denied_answers() -> dict[str, int]:
    return answers(command_without_linux(caller(list(NUMBERS))))


@pytest.mark.parametrize("name", [name for name, numbers in NUMBERS.items() if numbers[COLUMN] is not None])
def test_a_denied_call_answers_enosys_in_the_child(name: str, denied_answers: dict[str, int]) -> None:
    assert denied_answers[name] == errno.ENOSYS


def test_without_the_launcher_the_same_calls_exist() -> None:
    """The control: without it, the test above would also pass on a kernel that has none of them."""
    found = answers(caller(["memfd_create", "eventfd2", "signalfd4", "timerfd_create", "splice", "mremap"]))
    assert errno.ENOSYS not in found.values()


def test_only_the_named_calls_are_denied() -> None:
    found = answers(command_without_linux(caller(["accept4", "eventfd2"]), deny=["accept4"]))
    assert found["accept4"] == errno.ENOSYS
    assert found["eventfd2"] != errno.ENOSYS


def test_the_filter_survives_exec_and_reaches_grandchildren() -> None:
    script = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    found = answers(command_without_linux([sys.executable, "-c", script, *caller(["memfd_create"])]))
    assert found == {"memfd_create": errno.ENOSYS}


@pytest.mark.parametrize("kill", [False, True], ids=["enosys", "kill"])
def test_a_portable_python_and_trio_program_runs(kill: bool) -> None:
    done = run(command_without_linux([sys.executable, "-c", PORTABLE_PROGRAM], kill=kill))
    assert (done.returncode, done.stdout, done.stderr) == (0, "portable program done\n", "")


def test_kill_ends_the_process_at_a_denied_call() -> None:
    assert run(command_without_linux(caller(["eventfd2"]), kill=True)).returncode == -signal.SIGSYS


def test_kill_spares_the_calls_that_libraries_only_probe() -> None:
    found = answers(command_without_linux(caller(sorted(PROBED)), kill=True))
    assert found == dict.fromkeys(sorted(PROBED), errno.ENOSYS)


def test_the_command_keeps_its_arguments_its_process_id_and_its_status() -> None:
    script = "import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(3)"
    arguments = ["--deny", "x", "--", "-v"]
    with subprocess.Popen(
        command_without_linux([sys.executable, "-c", script, *arguments]), stdout=subprocess.PIPE, text=True
    ) as process:
        output, _ = process.communicate()
    assert (process.returncode, output) == (3, f"{process.pid} {arguments}\n")


def test_an_unknown_call_is_refused_by_name() -> None:
    done = run(command_without_linux(["true"], deny=["memfd_craete"]))
    assert done.returncode == 126
    assert "found system call memfd_craete, expected one of accept4, " in done.stderr


def test_a_missing_command_is_reported_like_a_shell_does() -> None:
    done = run(command_without_linux(["/nonexistent/program"]))
    assert done.returncode == 127
    assert "/nonexistent/program" in done.stderr


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="found machine m68k, expected one of x86_64, aarch64"):
        filter_program(["tee"], kill=False, machine="m68k")


@pytest.mark.parametrize(
    ("machine", "header", "pattern"),
    [
        ("x86_64", "x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)"),
        ("aarch64", "asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)"),
    ],
)
def test_the_numbers_are_those_of_the_kernel_headers(machine: str, header: str, pattern: str) -> None:
    path = Path("/usr/include") / header
    if not path.is_file():
        missing(f"no {path}: install the C library's development headers (linux-libc-dev)")
    known = {name: int(number) for name, number in re.findall(pattern, path.read_text())}
    column = ARCHITECTURES[machine][1]
    ours = {name: numbers[column] for name, numbers in ALL_NUMBERS.items() if numbers[column] is not None}
    assert ours == {name: known.get(name) for name in ours}
