"""Small judgements that many cases pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.session import Closed
from vhostuser.conformance import CaseError, Failure, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from frontend.conformance.peer import Peer


def equal(what: str, found: object, expected: object) -> None:
    """``found`` is ``expected``.

    Raises:
        Failure: it is not; says both.
    """
    if found != expected:
        raise Failure(f"{what}: found {found}, expected {expected}")


async def recorded(peer: Peer, what: str, trying: Awaitable[object]) -> Verdict | None:
    """Try something that the text leaves open: when it does not work, that is told and does not fail the case.

    Returns:
        WARN when it did not work, REJECT when the back-end hung up over it.
    """
    try:
        await trying
    except CaseError as error:
        peer.note(f"{what}: {error}")
        return Verdict.WARN
    except Closed as error:
        peer.note(f"{what}: {error}")
        return Verdict.REJECT
    return None
