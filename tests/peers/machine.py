"""A guest that is running: its console, what one can type there, and how it ended."""

from __future__ import annotations

import re
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from tests.peers.programs import LOG_TAIL, Peer, PeerError, run_peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

# A boot costs 4 s of CPU time in QEMU; a machine that runs other tests as well may take several times that.
GUEST_SECONDS = 60


@dataclass(frozen=True, slots=True)
class GuestRun:
    """One boot that came to its end.

    Attributes:
        output: what the console showed, with plain newlines.
        status: exit status of the job.
        seconds: from the program's start to its end.
    """

    output: str
    status: int
    seconds: float


@dataclass(slots=True)
class Machine:
    """A guest that is running; ``peer`` is the program that runs it."""

    peer: Peer
    _started: float = field(default_factory=trio.current_time)
    _console: bytearray = field(default_factory=bytearray)

    @property
    def output(self) -> str:
        """What the console has shown so far, with plain newlines."""
        return self._console.decode(errors="replace").replace("\r", "")

    async def wait_for(self, text: str) -> None:
        """Return once the console has shown ``text``.

        Raises:
            PeerError: the program ended before.
        """
        while text not in self.output:
            if not await self._read():
                raise PeerError(f"found the end of the console, expected {text!r}\n{self.story()}")

    async def enter(self, line: str) -> None:
        """Type ``line`` at the console; a job takes it with ``read word < /dev/console``."""
        assert self.peer.process.stdin is not None
        await self.peer.process.stdin.send_all(line.encode() + b"\n")

    async def finished(self) -> GuestRun:
        """Return once the guest has run its job and powered off.

        Raises:
            PeerError: it ended without telling the job's exit status.
        """
        while await self._read():
            pass
        await self.peer.process.wait()
        result = re.search(r"^GUEST-RESULT (\d+)$", self.output, re.MULTILINE)
        if result is None:
            status = self.peer.process.returncode
            raise PeerError(f"found exit status {status}, expected GUEST-RESULT before\n{self.story()}")
        return GuestRun(self.output, int(result[1]), trio.current_time() - self._started)

    async def finished_within(self, seconds: float) -> GuestRun:
        """`finished`, or PeerError when that takes longer than ``seconds``."""
        with trio.move_on_after(seconds):
            return await self.finished()
        raise PeerError(f"found the guest still running after {seconds} s\n{self.story()}")

    def story(self) -> str:
        """The end of the console and of the program's log, for a message."""
        return f"{self.peer.tail()}\nconsole: {self.output[-LOG_TAIL:].strip() or 'nothing'}"

    async def _read(self) -> bool:
        assert self.peer.process.stdout is not None
        data = await self.peer.process.stdout.receive_some()
        self._console += data
        return bool(data)


@asynccontextmanager
async def run_machine(
    command: Sequence[str | Path],
    *,
    log: Path,
    no_eventfd: bool = False,
    stop: signal.Signals = signal.SIGTERM,
) -> AsyncIterator[Machine]:
    """`run_peer` for a program whose standard input and output are the console of a guest."""
    async with run_peer(command, log=log, console=True, no_eventfd=no_eventfd, stop=stop) as peer:
        machine = Machine(peer)
        try:
            yield machine
        except BaseException:
            print(f"console: {machine.output[-LOG_TAIL:]}", file=sys.stderr)
            raise
