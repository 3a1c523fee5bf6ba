"""Running one of other people's programs for the length of a block, and getting rid of it.

``run_peer`` promises that the program is gone when the block ends, and that what it said is shown when the block
fails.

Nobody needs to wait for a socket to appear: good back-ends accept a listening socket as an inherited fd.  We bind and
listen (``listening_at``), the program inherits, and a connect succeeds from the first moment on.  ``wait_connectable``
is for the others.

``no_eventfd`` starts a program under ``tests/tools/without_linux.py``.  QEMU and qemu-storage-daemon then use pipes for
kick and call, as they would on macOS.  By hand::

    python tests/tools/without_linux.py -- qemu-system-x86_64 -object memory-backend-shm,id=mem,size=256M ...
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from tests.tools.without_linux import command_without_linux

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence


LOG_TAIL = 4000  # characters


class PeerError(Exception):
    """A peer did not do its part; the text holds the end of what it said."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running program of somebody else's.

    Attributes:
        name: what to call it in messages.
        process: its process; launcher and wrapper exec, so ``process.pid`` is the program itself.
        log: its standard error, and its standard output unless that is a console.
    """

    name: str
    process: trio.Process
    log: Path

    def tail(self) -> str:
        """The end of the log, for a message."""
        said = self.log.read_text(errors="replace")[-LOG_TAIL:].strip()
        return f"{self.name} (pid {self.process.pid}) said: {said or 'nothing'}"

    def fds(self) -> list[str]:
        """What its fds are, as /proc/PID/fd has it: ``pipe:[1234]``, ``anon_inode:[eventfd]``, a path."""
        return [str(link.readlink()) for link in Path(f"/proc/{self.process.pid}/fd").iterdir()]

    def notifiers(self) -> tuple[int, int]:
        """How many (eventfds, pipe ends) it holds."""
        fds = self.fds()
        return fds.count("anon_inode:[eventfd]"), sum(fd.startswith("pipe:") for fd in fds)


@asynccontextmanager
async def run_peer(
    command: Sequence[str | Path],
    *,
    log: Path,
    pass_fds: Sequence[int] = (),
    console: bool = False,
    no_eventfd: bool = False,
    stop: signal.Signals = signal.SIGTERM,
    grace: float = 5,
) -> AsyncIterator[Peer]:
    """Start ``command``, and end it with the block: ``stop``, then SIGKILL after ``grace`` seconds.

    When the block fails, the end of the log goes to standard error, where pytest shows it with the failure.

    Args:
        command: the program and its arguments.
        log: a new file for its standard output and standard error.
        pass_fds: fds the program inherits under the same numbers; the caller keeps its own.
        console: give it pipes for standard input and output instead: ``process.stdin``, ``process.stdout``.
        no_eventfd: take eventfd, memfd and the other Linux-only system calls away from it.
        stop: the polite signal.
        grace: how long politeness may take, seconds.
    """
    arguments = command_without_linux(command) if no_eventfd else [str(part) for part in command]
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            arguments,
            stdin=subprocess.PIPE if console else subprocess.DEVNULL,
            stdout=subprocess.PIPE if console else output,
            stderr=output,
            pass_fds=pass_fds,
            process_group=0,
        )
    peer = Peer(Path(command[0]).name, process, log)
    try:
        yield peer
    except BaseException:
        print(peer.tail(), file=sys.stderr)
        raise
    finally:
        with trio.CancelScope(shield=True):  # bounded by grace
            await _end(process, stop, grace)


async def _end(process: trio.Process, stop: signal.Signals, grace: float) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            await stream.aclose()
    if process.poll() is None:
        process.send_signal(stop)
    with trio.move_on_after(grace):
        await process.wait()
    if process.poll() is None:
        # All of its group: user-mode Linux does its work in processes that survive it.  Its number is still its own,
        # since nobody has reaped it.
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket at ``path``, to be inherited by a program; afterwards it is closed and the path gone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        try:
            listener.listen()
            yield listener
        finally:
            path.unlink(missing_ok=True)  # qemu-storage-daemon removes it as well


async def wait_connectable(path: Path, peer: Peer, *, seconds: float = 10) -> None:
    """Return once somebody listens at ``path``.  It connects to find out, so the peer sees one client come and go.

    Raises:
        PeerError: the peer ended first, or ``seconds`` went by.
    """
    with trio.move_on_after(seconds):
        while not await _connectable(path):
            if peer.process.poll() is not None:
                status = peer.process.returncode
                raise PeerError(f"found exit status {status}, expected a listener at {path}\n{peer.tail()}")
            # There is no event to wait for: the file appears at bind(), and a connect works from listen() on.
            await trio.sleep(0.01)
        return
    raise PeerError(f"found no listener at {path} after {seconds} s\n{peer.tail()}")


async def _connectable(path: Path) -> bool:
    with trio.socket.socket(trio.socket.AF_UNIX) as probe:
        try:
            await probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
