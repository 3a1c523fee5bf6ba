"""The target's program once more, called otherwise than for the other cases: what its options do.

Its command is taken without the words that have to do with the socket.  The program in use is killed first, since not
every one likes to be there twice.
"""

from __future__ import annotations

import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from frontend.conformance.launch import GRACE, Launch, substituted, without_socket
from frontend.conformance.session import Session
from vhostuser.conformance.process import Program
from vhostuser.conformance.target import NotStarted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from frontend.conformance.peer import Peer

STARTING = 10.0
"""Seconds that it may take until it listens."""
SHOWN = 300
"""Letters of what it printed that go into a message."""


@dataclass(frozen=True)
class Ran:
    """How a program ended by itself, and the end of what it printed.

    Attributes:
        status: its exit status, None if it had to be killed.
    """

    status: int | None
    stdout: bytes
    stderr: bytes

    def __str__(self) -> str:
        how = "it did not end" if self.status is None else f"it ended with status {self.status}"
        said = (self.stderr + self.stdout).decode(errors="replace").strip()
        return f"{how}, having printed: {said[-SHOWN:]}" if said else f"{how}, and printed nothing"


def _command(peer: Peer, arguments: Sequence[str], *, bare: bool = False) -> list[str]:
    words = without_socket(peer.target.command)
    if bare:
        words = words[: next((at for at, word in enumerate(words) if word.startswith("-")), len(words))]
    return [*words, *arguments]


async def ran(peer: Peer, *arguments: str, pass_fds: Sequence[int] = (), within: float = 10.0) -> Ran:
    """The program with these arguments, which are expected to make it end soon.

    Args:
        peer: the back-end under test, which we have started.
        arguments: instead of its socket.
        pass_fds: descriptors that it inherits; they stay the caller's.
        within: seconds, then it is killed.
    """
    await peer.target.kill()
    command = substituted(_command(peer, arguments), scratch=str(peer.target.scratch))
    peer.recorder.note(f"ran {' '.join(command)}")
    async with trio.open_nursery() as nursery:
        program = Program.start(command, nursery, pass_fds=pass_fds, apart=True)
        try:
            ending = await program.ended(within)
        finally:
            await program.end()
    return Ran(None if ending is None else ending.status, program.stdout.kept(), program.output.kept())


@asynccontextmanager
async def another(
    peer: Peer, *arguments: str, bare: bool = False, quiet: bool = False, pass_fds: Sequence[int] = ()
) -> AsyncIterator[Launch]:
    """The program with these arguments, running for the length of the block.

    Args:
        peer: the back-end under test, which we have started.
        arguments: instead of its socket; ``{socket}`` and ``{fd}`` in them stand for what they do in a command.
        bare: without its other options, too.
        quiet: with nothing but /dev/null to read from and to print to.
        pass_fds: descriptors that it inherits besides; they stay the caller's.
    """
    await peer.target.kill()
    with tempfile.TemporaryDirectory(prefix="vhu-", dir="/tmp") as folder:
        async with trio.open_nursery() as nursery:
            command = _command(peer, arguments, bare=bare)
            peer.recorder.note(f"started {' '.join(command)}")
            scratch = str(peer.target.scratch)
            path = f"{folder}/1.sock"
            launch = Launch(command, path, nursery, scratch=scratch, quiet=quiet, pass_fds=pass_fds)
            try:
                yield launch
                await launch.stop(GRACE)
            finally:
                await launch.end()


@asynccontextmanager
async def serving(peer: Peer, launch: Launch) -> AsyncIterator[None]:
    """A first connection to ``launch`` is served, and stays open for the length of the block.

    Raises:
        NotStarted: nobody accepts it; with what the program printed.
        Failure: the answer to GET_FEATURES is not one.
    """
    await launch.listens(STARTING)
    with Session(await launch.dial(STARTING), peer.recorder, patience=STARTING) as session:
        await session.in_sync()
        yield


async def serves(peer: Peer, launch: Launch) -> None:
    """The same, closed again at once: a program for one front-end may end then."""
    async with serving(peer, launch):
        pass


async def started(peer: Peer, *arguments: str, bare: bool = False) -> str:
    """Why the program with these arguments does not serve; empty when it does."""
    async with another(peer, *arguments, bare=bare) as launch:
        try:
            await serves(peer, launch)
        except NotStarted as error:
            return str(error)
    return ""
