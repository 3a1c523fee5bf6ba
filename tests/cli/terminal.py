"""A terminal, for commands that behave differently on one."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING, Literal

from tests.cli.programs import COMMAND_SECONDS, VHOST_USER, surroundings

if TYPE_CHECKING:
    from pathlib import Path


def on_terminal(*arguments: str | Path, stream: Literal["stdout", "stderr"]) -> tuple[int, str, bytes]:
    """Run a command with one of its streams on a terminal.

    Returns:
        Its exit status, what it wrote to the terminal (at most what a terminal buffers), and the other stream.
    """
    ours, theirs = pty.openpty()
    try:
        ran = subprocess.run(
            [*VHOST_USER, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=theirs if stream == "stdout" else subprocess.PIPE,
            stderr=theirs if stream == "stderr" else subprocess.PIPE,
            timeout=COMMAND_SECONDS,
            env=surroundings({"TERM": "xterm"}),
            check=False,
        )
        os.close(theirs)
        theirs = -1
        return ran.returncode, _read_all(ours), ran.stdout or ran.stderr or b""
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)


def _read_all(fd: int) -> str:
    found = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except OSError:  # Linux: the other end is closed, and nothing is left
            piece = b""
        if not piece:
            return found.decode()
        found += piece
