"""The demo's back-end: a process of its own, at the other end of a socket that has no name."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click
import trio

from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

STOP_TIMEOUT = 5.0
"""Seconds that the back-end may take to end."""
LAST_WORDS = 0.5
"""Seconds to wait for the rest of what it printed."""
_QUIET = ("DEBUG ", "INFO ")


@dataclass
class BackendLog:
    """What the back-end prints; it tells there of each message it gets."""

    lines: list[str] = field(default_factory=list)
    _news: trio.Event = field(default_factory=trio.Event)

    async def read(self, stream: trio.SocketStream) -> None:
        """Take lines until the back-end ends; what is more than a note is passed on to our stderr."""
        rest = b""
        with suppress(trio.BrokenResourceError):
            async for piece in stream:
                *whole, rest = (rest + piece).split(b"\n")
                for line in whole:
                    self._add(line.decode(errors="replace"))
        if rest:
            self._add(rest.decode(errors="replace"))
        self._tell()

    async def find(self, pattern: str) -> re.Match[str]:
        """The first line in which ``pattern`` is found, once there is one."""
        while True:
            news = self._news
            for line in self.lines:
                if found := re.search(pattern, line):
                    return found
            await news.wait()

    def _add(self, line: str) -> None:
        self.lines.append(line)
        if not line.startswith(_QUIET):
            click.echo(f"back-end: {line}", err=True)
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, trio.Event()
        news.set()


@dataclass(frozen=True)
class BackendProcess:
    """A back-end that runs.

    Attributes:
        process: the process.
        command: what started it.
        sock: our end of the connection; whoever takes it owns it.
        its_fd: the number of its end, over there.
        log: what it prints.
    """

    process: trio.Process
    command: Sequence[str]
    sock: socket.socket
    its_fd: int
    log: BackendLog

    @property
    def pid(self) -> int:
        """Its process number."""
        return self.process.pid

    def command_line(self) -> str:
        """For people: without the folders."""
        program, *arguments = self.command
        return shlex.join([program.rpartition("/")[2], *arguments])

    async def ended(self) -> int | None:
        """Its exit status, when it has ended by itself; None when it did not in time."""
        with trio.move_on_after(STOP_TIMEOUT):
            return await self.process.wait()
        return None


@asynccontextmanager
async def backend_process(disk_size: int) -> AsyncIterator[BackendProcess]:
    """A block back-end with a disk in memory; killed at the end of the block, if it has not ended by then.

    Both ends of the connection come from one ``socketpair``: there is no path, so nothing to clean up, and the back-end
    sees the end of it whatever becomes of us.
    """
    ours, theirs = socket.socketpair()
    log_ours, log_theirs = socket.socketpair()
    log = BackendLog()
    with ours, log_ours:
        with theirs, log_theirs:
            fd = theirs.fileno()
            options = ["--fd", str(fd), "--memory-size", format_size(disk_size)]
            command = [sys.executable, "-m", "vhostuser", "-vv", "backend", "blk", *options]
            process = await trio.lowlevel.open_process(
                command,
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log_theirs,
                process_group=0,  # so that Ctrl-C reaches only us; we end it
            )
        async with trio.open_nursery() as nursery:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(log_ours))
            nursery.start_soon(log.read, stream)
            try:
                yield BackendProcess(process, command, ours, fd, log)
            finally:
                await _end(process)
                # Its end of the log is closed now, so the reader ends too; should somebody else hold it, soon.
                nursery.cancel_scope.deadline = trio.current_time() + LAST_WORDS


async def _end(process: trio.Process) -> None:
    """Ask, then insist; until it is gone, come what may."""
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(STOP_TIMEOUT):
            await process.wait()
            return
        process.kill()
        await process.wait()
