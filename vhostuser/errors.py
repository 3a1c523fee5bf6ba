"""The root of our errors, and the two that say whose fault it was.

Every other error is defined beside the code that raises it.  The split between *local* and *remote* follows h11:
inside, a broken rule is a `LocalProtocolError`; at the one door where a peer's bytes come in it is raised again as
a `RemoteProtocolError`, which also says how to answer.
"""

from __future__ import annotations

from enum import Enum


class VhostUserError(Exception):
    """Root of everything this library raises on its own behalf."""


class Hint(Enum):
    """What the receiver of a broken message should do about it."""

    NACK = "nack"
    """The stream is still in step: refuse the request, with a non-zero ack if one was asked for."""
    CLOSE = "close"
    """Nothing after this message can be trusted: close the connection."""


class ProtocolError(VhostUserError):
    """A rule of the vhost-user document was broken.

    Attributes:
        section: where the document states the rule, if one place does.
    """

    def __init__(self, message: str, *, section: str | None = None) -> None:
        super().__init__(f"{message} [{section}]" if section else message)
        self.reason = message
        self.section = section


class LocalProtocolError(ProtocolError):
    """You asked for something that the protocol forbids now."""


class RemoteProtocolError(ProtocolError):
    """The peer broke a rule.

    Attributes:
        hint: what to do next.
    """

    def __init__(self, message: str, *, section: str | None = None, hint: Hint = Hint.CLOSE) -> None:
        super().__init__(message, section=section)
        self.hint = hint
