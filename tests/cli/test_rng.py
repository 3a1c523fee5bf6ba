"""`vhost-user rng` against our own back-end, each in a process of its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import Program, vhost_user
from tests.cli.terminal import on_terminal

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("notifier", ["eventfd", "pipe"])
@pytest.mark.parametrize("memory", ["shm", "memfd"])
def test_raw_bytes_go_into_a_pipe(entropy: Program, memory: str, notifier: str) -> None:
    options = ("--size", "100K", "--memory", memory, "--notifier", notifier)
    ran = vhost_user("rng", "read", "--socket-path", entropy.socket_path, *options)
    assert (ran.returncode, len(ran.stdout), ran.stderr) == (0, 102_400, b"")
    assert len(set(ran.stdout)) == 256


def test_raw_bytes_go_into_a_file(entropy: Program, folder: Path) -> None:
    ran = vhost_user("rng", "read", "--socket-path", entropy.socket_path, "--size", "5", folder / "out")
    assert (ran.returncode, ran.stdout) == (0, b"")
    assert (folder / "out").stat().st_size == 5


def test_a_terminal_gets_them_in_hexadecimal(entropy: Program) -> None:
    status, shown, _ = on_terminal("rng", "read", "--socket-path", entropy.socket_path, stream="stdout")
    assert status == 0
    assert re.fullmatch(r"(([0-9a-f]{2} ){15}[0-9a-f]{2}\r\n){2}", shown)


def test_no_bytes_at_all_is_a_usage_error() -> None:
    ran = vhost_user("rng", "read", "--socket-path", "s", "--size", "0")
    assert (ran.returncode, b"found 0 bytes, expected at least 1" in ran.stderr) == (2, True)


def test_a_file_that_cannot_be_written_is_one_line_and_status_1(entropy: Program, folder: Path) -> None:
    ran = vhost_user("rng", "read", "--socket-path", entropy.socket_path, folder / "no" / "where")
    assert ran.returncode == 1
    assert re.fullmatch(r"Error: .*No such file or directory.*\n", ran.stderr.decode())


def test_nobody_at_the_socket_is_status_3(folder: Path) -> None:
    ran = vhost_user("rng", "read", "--socket-path", folder / "none", "--timeout", "0.5")
    assert (ran.returncode, b"cannot connect to" in ran.stderr) == (3, True)
