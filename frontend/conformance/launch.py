"""One start of a target's command: its process, where it listens, and what it leaves behind."""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from vhostuser.conformance import vitals
from vhostuser.conformance.process import Ending, Program
from vhostuser.conformance.target import NotStarted, Stopped
from vhostuser.conformance.verdict import Grade

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BACKLOG", "GRACE", "Launch", "connected", "substituted", "without_socket"]

BACKLOG: Final = 8
GRACE: Final = 3.0
"""Seconds from SIGTERM to SIGKILL."""
LOOK: Final = 0.005
"""Seconds between two looks whether it listens."""
SHM: Final = Path("/dev/shm")
UNIX_SOCKETS: Final = Path("/proc/net/unix")
_LISTENS: Final = 1 << 16
"""``__SO_ACCEPTCON`` among the flags in /proc/net/unix."""


def substituted(command: Sequence[str], **values: str) -> list[str]:
    """``command`` with ``{name}`` replaced by its value; other braces stay, they are the program's own."""
    words = []
    for word in command:
        for name, value in values.items():
            word = word.replace(f"{{{name}}}", value)
        words.append(word)
    return words


def without_socket(command: Sequence[str]) -> list[str]:
    """The words of ``command`` that have nothing to do with its socket."""
    words: list[str] = []
    for word in command:
        if "{socket}" in word or "{fd}" in word:
            if word in ("{socket}", "{fd}") and words and words[-1].startswith("-"):
                words.pop()
        else:
            words.append(word)
    return words


def connected(path: str) -> socket.socket | None:
    """A connection to whoever listens at ``path``, non-blocking; None when nobody does, or none is to be had now."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return sock


class Launch:
    """A command that was started.

    Args:
        command: with ``{socket}`` or ``{fd}`` in it.
        path: of the socket.
        nursery: for the task that reads its output.
        scratch: what ``{scratch}`` stands for.
        quiet: its output goes to /dev/null.
        pass_fds: descriptors that it inherits besides; they stay the caller's.

    Attributes:
        program: its process.
        path: of its socket.

    Raises:
        NotStarted: it cannot be executed.
    """

    def __init__(
        self,
        command: Sequence[str],
        path: str,
        nursery: trio.Nursery,
        *,
        scratch: str,
        quiet: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.path = path
        self._first: socket.socket | None = None
        self._shm_before = _shm_names()
        self._listener = _listener(path) if any("{fd}" in word for word in command) else None
        self._inherits = self._listener is not None
        numbers = [self._listener.fileno()] if self._listener is not None else []
        words = substituted(command, socket=path, scratch=scratch, fd=str(*numbers))
        try:
            self.program = self._start(words, nursery, [*numbers, *pass_fds], quiet=quiet)
        except OSError as error:
            self._close()
            raise NotStarted(f"{words[0]}: {error.strerror}") from None

    def _start(self, words: Sequence[str], nursery: trio.Nursery, pass_fds: Sequence[int], *, quiet: bool) -> Program:
        """Start the process; whoever has a quicker way overrides this."""
        return Program.start(words, nursery, pass_fds=pass_fds, quiet=quiet)

    async def listens(self, within: float) -> None:
        """Wait until it can be connected to.

        Raises:
            NotStarted: it ended, or does not listen in time; with what it printed.
        """
        with trio.move_on_after(within):
            while not self._can_be_dialled():
                if self.program.poll() is not None:
                    await self.program.ended(0)
                    raise NotStarted(f"it {self.program.poll()} before it listened{await self._last_words()}")
                await trio.sleep(LOOK)
            return
        raise NotStarted(f"it does not listen at {self.path} after {within:g} s{await self._last_words()}")

    async def dial(self, within: float) -> socket.socket:
        """A connection.

        Raises:
            NotStarted: it does not accept, or has ended.
        """
        with trio.move_on_after(within):
            while True:
                if (sock := self.knock()) is not None:
                    return sock
                if self.program.poll() is not None:
                    break
                await trio.sleep(LOOK)
        if (ending := self.program.poll()) is not None:
            raise NotStarted(f"nobody accepts a connection: it {ending}{await self._last_words()}")
        raise NotStarted(f"it accepted no connection for {within:g} s")

    def knock(self) -> socket.socket | None:
        """A connection, if it accepts one now; one that inherits its socket has to have taken one before."""
        if self._listener is not None and not self._has_accepted(self._listener):
            return None
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return connected(self.path)

    def check_deserted(self) -> None:
        """After the program has ended in order, nobody may listen in its place.

        Raises:
            NotStarted: somebody does: it has gone into the background, where nobody sees how it ends.
        """
        if self._inherits or self.program.poll() != Ending(0) or (sock := connected(self.path)) is None:
            return
        sock.close()
        raise NotStarted(f"it ended with status 0 and left another process at {self.path}: it has to stay in front")

    async def stop(self, grace: float) -> Stopped:
        """End it, in order if it can; nothing is left of it afterwards."""
        names = vitals.own_memory_files(self.program.pid)
        ending = self.program.poll()
        terminated = ending is None
        if terminated:
            self.program.signal(signal.SIGTERM)
            ending = await self.program.ended(grace)
        await self.end()
        litter = self._sweep(names)
        if ending is None:
            return Stopped(grade=Grade.SLOW, status=None, litter=litter)
        return Stopped(grade=_grade(ending, terminated, litter), status=ending.status, litter=litter)

    async def end(self) -> Ending:
        """Kill it."""
        self._close()
        return await self.program.end()

    def _close(self) -> None:
        for sock in filter(None, (self._first, self._listener)):
            sock.close()
        self._first = self._listener = None

    def _can_be_dialled(self) -> bool:
        if self._listener is not None:
            return self._has_accepted(self._listener)
        if self._inherits or self._first is not None:
            return True
        if (listens := _is_listened_at(self.path)) is not None:
            return listens
        # No way to see it without connecting; and a program for one front-end ends when that one leaves.
        self._first = connected(self.path)
        return self._first is not None

    def _has_accepted(self, listener: socket.socket) -> bool:
        """Whether the program takes connections from the socket that it inherits: the first is waiting no more."""
        if self._first is None:
            self._first = connected(self.path)
        if select.select([listener], [], [], 0)[0]:
            return False
        listener.close()  # only the program's own is left, so that nobody accepts once that has ended
        self._listener = None
        return True

    def _sweep(self, names: set[str]) -> list[str]:
        """Remove what it left: its socket, and names in /dev/shm that were not there before it."""
        left = [name for name in sorted(names) if Path(name).name not in self._shm_before and Path(name).exists()]
        if not self._inherits and os.path.lexists(self.path):
            left.append("its socket")
        for name in [*names.intersection(left), self.path]:
            with suppress(OSError):
                os.unlink(name)
        return left

    async def _last_words(self) -> str:
        if self.program.poll() is not None:
            await self.program.end()
        said = self.program.output.news().strip()
        return f"; it printed:\n{said[-2000:]}" if said else ", and it printed nothing"


def _grade(ending: Ending, terminated: bool, litter: Sequence[str]) -> Grade:
    if ending.status < 0 and not (terminated and ending.status == -signal.SIGTERM):
        return Grade.SIGNAL
    if ending.status:
        return Grade.STATUS
    return Grade.LITTER if litter else Grade.CLEAN


def _listener(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    sock.listen(BACKLOG)
    return sock


def _shm_names() -> set[str]:
    try:
        return set(os.listdir(SHM))
    except OSError:
        return set()


def _is_listened_at(path: str) -> bool | None:
    """Whether a socket listens there, without touching it; None where the system does not tell."""
    try:
        lines = UNIX_SOCKETS.read_bytes().splitlines()
    except OSError:
        return None
    name = path.encode()
    for line in lines:
        if line.endswith(name):
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7] == name and int(fields[3], 16) & _LISTENS:
                return True
    return False
