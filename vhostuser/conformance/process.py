"""A program that was started to be tested: what it says, how it ends, and that nothing is left of it.

It gets a process group of its own, so that Ctrl-C at the keyboard reaches only us, and so that its children go with
it.  Whoever started it has to call `Program.end`; after that there is no process, no pipe and no task any more.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from vhostuser.conformance import vitals

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Ending", "Output", "Program"]

KEPT: Final = 64 << 10
"""Bytes that are kept of what a program prints: the last ones."""
PIECE: Final = 64 << 10
LAST_WORDS: Final = 0.2
"""Seconds to read on after a program has ended."""
POLL: Final = 0.01
"""Seconds between two looks, where nothing wakes us."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended.

    Attributes:
        status: its exit status, negative for a signal.
        core: it left a core dump; only Linux tells.
    """

    status: int
    core: bool = False

    def __str__(self) -> str:
        if self.status >= 0:
            return f"ended with status {self.status}"
        try:
            name = signal.Signals(-self.status).name
        except ValueError:
            name = f"signal {-self.status}"
        return f"was ended by {name}{', core dumped' if self.core else ''}"


class Output:
    """The end of what a program prints, on stdout and stderr alike."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._read = 0
        self._mark = 0

    def add(self, piece: bytes) -> None:
        """Take what was read."""
        self._read += len(piece)
        self._kept += piece
        del self._kept[:-KEPT]

    def mark(self) -> None:
        """From here on it is news."""
        self._mark = self._read

    def kept(self) -> bytes:
        """The last of all that was printed."""
        return bytes(self._kept)

    def news(self) -> str:
        """What was printed since the mark, as far as it is kept."""
        since = self._read - self._mark
        data = bytes(self._kept[len(self._kept) - min(since, len(self._kept)) :])
        dropped = since - len(data)
        return (f"[{dropped} bytes before this]\n" if dropped else "") + data.decode(errors="replace")


class Program:
    """A running program; made by `start`.

    Attributes:
        command: what was started.
        output: what it prints, on both streams or only on stderr.
        stdout: what it prints there; the same as ``output``, unless it was started to keep them apart.
        ending: how it ended; None as long as nobody has seen it end, see `poll`.
    """

    def __init__(self, process: subprocess.Popen[bytes], command: Sequence[str]) -> None:
        self._process = process
        self._pidfd = _pidfd(process.pid)
        self._readers: list[tuple[trio.CancelScope, trio.Event]] = []
        self.command = command
        self.output = self.stdout = Output()
        self.ending: Ending | None = None

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        nursery: trio.Nursery,
        *,
        pass_fds: Sequence[int] = (),
        apart: bool = False,
        quiet: bool = False,
    ) -> Program:
        """Start ``command``; a task of ``nursery`` reads what it prints.

        Args:
            command: program and arguments.
            nursery: has to live until `end`.
            pass_fds: descriptors that it inherits; they stay the caller's.
            apart: keep stdout and stderr apart.
            quiet: both go to /dev/null, and nobody reads them.

        Raises:
            OSError: there is no such program, or it cannot be executed.
        """
        pipes = [] if quiet else [os.pipe() for _ in range(1 + apart)]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=pipes[-1][1] if pipes else subprocess.DEVNULL,
                stderr=pipes[0][1] if pipes else subprocess.DEVNULL,
                pass_fds=pass_fds,
                process_group=0,
            )
        except OSError:
            for read_end, _ in pipes:
                os.close(read_end)
            raise
        finally:
            for _, write_end in pipes:
                os.close(write_end)
        program = cls(process, command)
        if apart:
            program.stdout = Output()
        for (read_end, _), output in zip(pipes, (program.output, program.stdout), strict=False):
            reader = (trio.CancelScope(), trio.Event())
            program._readers.append(reader)
            nursery.start_soon(_listen, read_end, output, *reader)
        return program

    @property
    def pid(self) -> int:
        """Its process, of which something is left until `end`."""
        return self._process.pid

    def poll(self) -> Ending | None:
        """How it ended, None while it runs; leaves the process to be waited for, so that its number stays its own."""
        if self.ending is None:
            self.ending = _ending(self._process)
        return self.ending

    async def ended(self, within: float) -> Ending | None:
        """Wait until it ends; None when it does not in ``within`` seconds."""
        with trio.move_on_after(within):
            while self.poll() is None:
                if self._pidfd is None:
                    await trio.sleep(POLL)
                else:
                    await trio.lowlevel.wait_readable(self._pidfd)
        return self.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self.poll() is None:
            self._process.send_signal(number)

    def vitals(self) -> vitals.Sample | None:
        """A look at it now."""
        return None if self.poll() is not None else vitals.look_at(self.pid)

    async def end(self) -> Ending:
        """Kill what is left of it and of its children, whatever happens to the caller; does nothing the second time."""
        with trio.CancelScope(shield=True):
            if self._process.returncode is None:
                self._kill_group()
                await self.ended(float("inf"))
                self._kill_group()
                self._process.wait()
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None
            for reading, finished in self._readers:
                # A child that left the group may still hold the pipe: what it prints is no news any more.
                reading.deadline = trio.current_time() + LAST_WORDS
                await finished.wait()
        assert self.ending is not None
        return self.ending

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def _listen(read_end: int, output: Output, reading: trio.CancelScope, finished: trio.Event) -> None:
    try:
        async with trio.lowlevel.FdStream(read_end) as stream:
            with reading, suppress(trio.BrokenResourceError):
                while piece := await stream.receive_some(PIECE):
                    output.add(piece)
    finally:
        finished.set()


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _ending(process: subprocess.Popen[bytes]) -> Ending | None:
    if not hasattr(os, "waitid"):
        status = process.poll()
        return None if status is None else Ending(status)
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return Ending(found.si_status)
    return Ending(-found.si_status, core=found.si_code == os.CLD_DUMPED)
