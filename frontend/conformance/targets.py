"""Targets: a program that we start, a socket where somebody else's listens, and a single connected socket."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final

import trio

from frontend.conformance.launch import GRACE, Launch, connected
from vhostuser.conformance import Unsupported, vitals
from vhostuser.conformance.target import NotStarted, Stopped, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vhostuser.conformance.process import Ending

__all__ = ["ConnectedTarget", "ProgramTarget", "SocketTarget"]

START: Final = 10.0
"""Seconds that a program may take until it listens."""
PARTING: Final = 2.0
"""Seconds that a program for one front-end may take to end after that has left."""
_PEER: Final = struct.Struct("3i")


class _Base(Subject):
    """What all targets have in common: by default nothing can be seen or done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.single_session = False
        self.uncounted: Callable[[], AbstractContextManager[object]] = nullcontext
        self.sessions: int | None = None

    @property
    def pid(self) -> int | None:
        return None

    @property
    def ours(self) -> bool:
        return False

    @property
    def command(self) -> Sequence[str]:
        return ()

    @property
    def scratch(self) -> Path | None:
        return None

    def vitals(self) -> vitals.Sample | None:
        return None if self.pid is None else vitals.look_at(self.pid)

    def held(self) -> Sequence[str]:
        return [] if self.pid is None else vitals.held(self.pid)

    def exited(self) -> int | None:
        ending = self.ending()
        return None if ending is None else ending.status

    def ending(self) -> Ending | None:
        return None

    async def ended(self, within: float) -> Ending | None:
        await trio.lowlevel.checkpoint()
        return None

    def printed(self) -> str:
        return ""

    def endings(self) -> list[Ending]:
        return []

    async def begin(self) -> None:
        await trio.lowlevel.checkpoint()

    async def stop(self) -> Stopped | None:
        await trio.lowlevel.checkpoint()
        return None

    async def kill(self) -> None:
        raise Unsupported(f"{self.name} was not started by us: give --exec, if it may be killed")

    async def terminate(self, *, within: float) -> int | None:
        raise Unsupported(f"{self.name} was not started by us: give --exec, if it may be terminated")


class SocketTarget(_Base):
    """A program that somebody else runs, at a socket.

    Args:
        path: where it listens.
        start: seconds to go on trying when nobody accepts.
    """

    def __init__(self, path: str, *, start: float = START) -> None:
        super().__init__(path)
        self._path = path
        self._start = start
        self._pid: int | None = None
        self._doubtful = False

    @property
    def pid(self) -> int | None:
        return self._pid

    async def begin(self) -> None:
        if self._doubtful:
            (await self.dial()).close()
            self._doubtful = False

    async def dial(self) -> socket.socket:
        with self.uncounted(), trio.move_on_after(self._start):
            while True:
                if (sock := connected(self._path)) is not None:
                    self._pid = _listener_of(sock)
                    return sock
                await trio.sleep(0.02)
        raise NotStarted(f"nobody accepts a connection at {self._path} for {self._start:g} s")

    async def knock(self) -> socket.socket | None:
        await trio.lowlevel.checkpoint()
        sock = connected(self._path)
        self._doubtful = sock is None
        return sock


class ConnectedTarget(_Base):
    """A connected socket: one session, and nothing to go back to.

    Args:
        sock: connected; owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(f"fd {sock.fileno()}")
        self.sessions = 1
        self.single_session = True
        self._sock: socket.socket | None = sock
        sock.setblocking(False)
        self._pid = _listener_of(sock)

    @property
    def pid(self) -> int | None:
        return self._pid

    async def dial(self) -> socket.socket:
        await trio.lowlevel.checkpoint()
        if self._sock is None:
            raise Unsupported("one connected socket is one session: use --socket-path or --exec for more")
        sock, self._sock = self._sock, None
        return sock

    async def knock(self) -> socket.socket | None:
        """Another descriptor of the only connection, as long as nobody has dialled: for harmless questions."""
        await trio.lowlevel.checkpoint()
        return None if self._sock is None else self._sock.dup()

    def close(self) -> None:
        """Hang up, if nobody has dialled."""
        if self._sock is not None:
            self._sock.close()


class ProgramTarget(_Base):
    """A program that we start, and start again whenever it has ended.

    Args:
        command: program and arguments; ``{socket}`` stands for the path where it has to listen, ``{fd}`` for the
            number of a listening socket that it inherits, ``{scratch}`` for a folder that lives as long as the run.
        folder: sockets go there; has a folder ``scratch``.
        nursery: for tasks that read what it prints.
        ahead: start the next one while one is in use, so that nobody has to wait for it; given up when the program
            does not like to be there twice.
        start: seconds that it may take until it listens.
        name: for people; by default the command.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        nursery: trio.Nursery,
        *,
        ahead: bool = True,
        start: float = START,
        name: str = "",
    ) -> None:
        super().__init__(name or " ".join(command))
        self._command, self._folder, self._nursery = list(command), folder, nursery
        self._ahead, self._start = ahead, start
        self._count = 0
        self._now: Launch | None = None
        self._next: Launch | None = None
        self._dialled = False
        self._asked = False
        self._endings: list[Ending] = []
        self._former_output = ""

    @property
    def pid(self) -> int | None:
        return self._now.program.pid if self._now is not None and self.ending() is None else None

    @property
    def ours(self) -> bool:
        return True

    @property
    def command(self) -> Sequence[str]:
        return self._command

    @property
    def scratch(self) -> Path:
        return self._folder / "scratch"

    async def begin(self) -> None:
        self._endings.clear()
        await self._have_one()
        self._former_output = ""
        if self._now is not None:
            self._now.program.output.mark()
        if self._ahead and self._next is None:
            self._next = self._launch()

    async def dial(self) -> socket.socket:
        with self.uncounted():
            if self.single_session and self._dialled and self._now is not None:
                await self._now.program.ended(PARTING)
            await self._have_one()
        assert self._now is not None
        before, self._dialled = self._dialled, True
        try:
            return await self._now.dial(self._start)
        except NotStarted:
            if not before or self.ending() is None:
                raise
        return await self.dial()  # what it was told on its last connection was about to end it

    async def knock(self) -> socket.socket | None:
        await trio.lowlevel.checkpoint()
        return None if self._now is None or self.ending() is not None else self._now.knock()

    def ending(self) -> Ending | None:
        return None if self._now is None else self._now.program.poll()

    def endings(self) -> list[Ending]:
        now = self.ending()
        return [*self._endings, *([now] if now is not None and not self._asked else [])]

    async def ended(self, within: float) -> Ending | None:
        return None if self._now is None else await self._now.program.ended(within)

    def printed(self) -> str:
        return self._former_output + ("" if self._now is None else self._now.program.output.news())

    async def kill(self) -> None:
        self._asked = True
        if self._now is not None:
            await self._now.end()

    async def terminate(self, *, within: float) -> int | None:
        self._asked = True
        if self._now is None:
            return None
        self._now.program.signal(signal.SIGTERM)
        ending = await self._now.program.ended(within)
        return None if ending is None else ending.status

    async def stop(self) -> Stopped | None:
        if self._now is None:
            return None
        now, self._now = self._now, None
        asked, self._asked = self._asked, False
        self._endings.clear()
        stopped = await now.stop(GRACE)
        return None if asked else stopped

    async def close(self) -> None:
        """Kill whatever runs."""
        for launch in filter(None, (self._now, self._next)):
            await launch.end()
        self._now = self._next = None

    async def _have_one(self) -> None:
        if self._now is not None and self.ending() is None:
            return
        self._endings = self.endings()
        if self._now is not None:
            self._now.check_deserted()
            await self._now.stop(0)
            self._former_output += self._now.program.output.news()
        self._now, self._next = self._next, None
        self._dialled = self._asked = False
        if self._now is not None:
            try:
                await self._now.listens(self._start)
            except NotStarted:  # it does not like company: one after the other, then
                self._ahead = False
                await self._now.stop(0)
                self._now = None
        if self._now is None:
            self._now = self._launch()
            await self._now.listens(self._start)

    def _launch(self) -> Launch:
        self._count += 1
        return Launch(self._command, self._path(), self._nursery, scratch=str(self.scratch))

    def _path(self) -> str:
        return str(self._folder / f"{self._count}.sock")


def _listener_of(sock: socket.socket) -> int | None:
    """The process at the other end, if we may look at it; Linux only.

    The kernel names who has made the socket.  Where that is who has started us, the target is somebody else.
    """
    try:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    except (AttributeError, OSError):
        return None
    pid: int = _PEER.unpack(credentials)[0]
    if pid <= 0 or os.getpid() in vitals.family(pid):
        return None
    return None if vitals.look_at(pid) is None else pid
