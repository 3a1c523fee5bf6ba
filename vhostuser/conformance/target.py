"""What a case may do to the program under test, besides talking to it: `Target`.

Who starts the program, and how, is not a case's business.  A target reached by ``--socket-path`` has no process that
we own: what looks at processes says None then, and the case or the runner says UNSUPPORTED.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vhostuser.conformance.case import Failure

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from vhostuser.conformance.process import Ending
    from vhostuser.conformance.verdict import Grade

__all__ = ["NotStarted", "Stopped", "Subject", "Target", "Vitals"]


class NotStarted(Failure):
    """The target could not be started, or nobody accepts where it should listen."""


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """How a target ended when it was stopped.

    Attributes:
        grade: in a word.
        status: exit status, negative for a signal; None when it had to be killed.
        litter: what it left behind: its socket, names in /dev/shm.  They are removed by now.
    """

    grade: Grade
    status: int | None
    litter: Sequence[str] = ()


class Vitals(Protocol):
    """What the system tells of a running process; each is None where it does not."""

    @property
    def fds(self) -> int | None:
        """Open descriptors."""

    @property
    def mappings(self) -> int | None:
        """Entries of its memory map."""

    @property
    def resident(self) -> int | None:
        """Bytes of memory in use (RSS)."""

    @property
    def cpu_seconds(self) -> float | None:
        """Processor time used so far, user and system."""


class Target(Protocol):
    """A program under test, running or ready to be started."""

    name: str

    @property
    def pid(self) -> int | None:
        """Its process, if we may look at it."""

    @property
    def ours(self) -> bool:
        """True when we started it and may end it and start it again (--exec)."""

    @property
    def command(self) -> Sequence[str]:
        """How it was started, ``{socket}`` and all; empty when somebody else did."""

    @property
    def scratch(self) -> Path | None:
        """The folder that ``{scratch}`` in its command stands for; None when somebody else started it."""

    async def dial(self) -> socket.socket:
        """A new connection, non-blocking; starts the program if it is not running and ours.

        Raises:
            Failure: nobody accepts, though the program has had its time to start.
        """

    def vitals(self) -> Vitals | None:
        """A look at the process now; None when there is none to look at."""

    def exited(self) -> int | None:
        """Exit status since the program was last started (negative: a signal), None while it runs or is not ours."""

    async def kill(self) -> None:
        """SIGKILL; the next `dial` starts it again with the same command.

        Raises:
            Unsupported: it is not ours.
        """

    async def terminate(self, *, within: float) -> int | None:
        """SIGTERM; the exit status, None when it did not end ``within`` seconds.

        Raises:
            Unsupported: it is not ours.
        """


class Subject(Target, Protocol):
    """A target as the runner sees it: what a case may do, and the life of the program around a case.

    Attributes:
        single_session: the program ends, in order, when its front-end hangs up; the runner finds out and sets it.
        uncounted: entered while the program starts, for time that is not the case's.
        sessions: how many it can give: None for any number.
    """

    single_session: bool
    uncounted: Callable[[], AbstractContextManager[object]]
    sessions: int | None

    async def begin(self) -> None:
        """Have it ready to be dialled, and forget what it printed so far.

        Raises:
            NotStarted: it is not to be had.
        """

    async def knock(self) -> socket.socket | None:
        """A new connection if the program accepts one; never starts it."""

    def endings(self) -> list[Ending]:
        """How each program ended that was in use since `begin`, unless the case ended it."""

    async def ended(self, within: float) -> Ending | None:
        """Wait until the program in use ends; None when it does not in time, or is not ours."""

    def printed(self) -> str:
        """What it printed since `begin`."""

    def held(self) -> Sequence[str]:
        """Its descriptors and shared mappings in words; empty when nobody may look."""

    async def stop(self) -> Stopped | None:
        """SIGTERM, and SIGKILL if need be; None when there was nothing to stop, or the case has ended it itself."""
