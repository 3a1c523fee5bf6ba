"""What a case may do to the program under test, besides talking to it: `Target`.

Who starts the program, and how, is not a case's business.  A target reached by ``--socket-path`` has no process that
we own: what looks at processes says None then, and the case or the runner says UNSUPPORTED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping, Sequence

__all__ = ["Target", "Vitals"]


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

    async def run_program(
        self, *arguments: str, environment: Mapping[str, str] | None = None, within: float = 5.0
    ) -> tuple[int, bytes, bytes]:
        """Run the target's program once more with other arguments: exit status, stdout, stderr.

        Raises:
            Unsupported: it is not ours.
        """
