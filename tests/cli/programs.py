"""Running ``vhost-user`` as people do: as a process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vhostuser.virtqueue.engine import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

VHOST_USER = (sys.executable, "-m", "vhostuser")
LYING_DISK = (sys.executable, "-m", "tests.cli.lying_disk")
COMMAND_SECONDS = 25
STOP_SECONDS = 20


def vhost_user(
    *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(
        [*VHOST_USER, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=COMMAND_SECONDS,
        env=surroundings(env),
        check=False,
    )


def surroundings(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: 80 columns, and nothing that would change what it does but the engine's name."""
    ours = {name: value for name, value in os.environ.items() if name == VARIABLE or not name.startswith("VHOST_USER_")}
    return {**ours, "COLUMNS": "80", **(more or {})}


@dataclass
class Program:
    """A back-end that runs.

    Attributes:
        process: it.
        socket_path: where it listens.
    """

    process: subprocess.Popen[bytes]
    socket_path: Path

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Ask it to end; its exit status and what it said on stderr."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait until it ends by itself; its exit status and what it said on stderr."""
        _, said = self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode, said.decode()


@contextmanager
def listening(
    folder: Path, *arguments: str | Path, program: Sequence[str] = (*VHOST_USER, "backend")
) -> Iterator[Program]:
    """A back-end that inherits a listening socket: connecting succeeds from the first moment on."""
    path = folder / "listening.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()
        with inheriting(sock, *arguments, program=program, socket_path=path) as running:
            yield running
    path.unlink()


@contextmanager
def inheriting(
    sock: socket.socket,
    *arguments: str | Path,
    program: Sequence[str] = (*VHOST_USER, "backend"),
    socket_path: Path = Path(),
) -> Iterator[Program]:
    """A back-end that is given ``sock`` with --fd."""
    fd = sock.fileno()
    with started([*program, *map(str, arguments), "--fd", str(fd)], socket_path, pass_fds=[fd]) as running:
        yield running


@contextmanager
def started(command: Sequence[str], socket_path: Path = Path(), *, pass_fds: Sequence[int] = ()) -> Iterator[Program]:
    """Any program, killed at the end of the block if it still runs then."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        env=surroundings(),
    )
    with process:
        try:
            yield Program(process, socket_path)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
