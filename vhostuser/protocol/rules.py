"""One way to say that a rule is broken: what was found, what was expected."""

from __future__ import annotations

from vhostuser.errors import LocalProtocolError


def expect(holds: bool, found: str, expected: str) -> None:
    """Do nothing if ``holds``.

    Raises:
        LocalProtocolError: it does not.  `ProtocolState.observe` adds the message's name and section.
    """
    if not holds:
        raise LocalProtocolError(f"found {found}, expected {expected}")
