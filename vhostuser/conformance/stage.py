"""What the runner has to be told by whoever plays the other role: `Stage`, and `Scene` for a single case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from vhostuser.conformance.case import Case
    from vhostuser.conformance.result import Exchange

__all__ = ["Scene", "Stage"]


class Scene(Protocol):
    """A case under way.

    Attributes:
        peer: what the case's function gets.
    """

    peer: Any

    def notes(self) -> list[str]:
        """What the case wants to tell."""

    def log(self) -> list[Exchange]:
        """What went over its connections so far."""


class Stage(Protocol):
    """The role that we play, against one target."""

    def missing(self, case: Case, variant: str) -> Sequence[str]:
        """What the case needs and the target has not, in words; empty when it can be run."""

    def scene(self, case: Case, variant: str) -> AbstractAsyncContextManager[Scene]:
        """Everything for one case; whatever it opened is closed at the end of the block.

        Only `CaseError` comes out of the block for what the target did.
        """

    async def answers(self, sock: socket.socket) -> None:
        """See that a new connection is served; owns ``sock``.

        Raises:
            CaseError: it is not.
        """
