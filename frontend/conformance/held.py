"""Does the back-end let go of what it was given?  Counted from outside, before and after doing a thing many times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from vhostuser.conformance import Failure, Unsupported

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from frontend.conformance.peer import Peer
    from vhostuser.conformance.target import Vitals

SLACK = 8
"""Descriptors or mappings more than before that may come from elsewhere: an allocator, a log file."""
SETTLE = 1.0
"""Seconds that it may take until old memory is let go."""
LOOK_AGAIN = 0.01


def look(peer: Peer) -> Vitals:
    """A look at the back-end's process.

    Raises:
        Unsupported: there is none that we may look at.
    """
    vitals = peer.target.vitals()
    if vitals is None or vitals.fds is None or vitals.mappings is None:
        raise Unsupported("the back-end's process cannot be looked at")
    return vitals


async def lets_go(peer: Peer, what: str, repeat: Callable[[], Awaitable[None]]) -> None:
    """Descriptors and mappings are as many after ``repeat``, which does something many times, as before.

    Raises:
        Failure: they are more; ``what`` was done.
    """
    before = look(peer)
    await repeat()
    with trio.move_on_after(SETTLE):
        while _kept(before, look(peer)):  # noqa: ASYNC110 - no event tells of it
            await trio.sleep(LOOK_AGAIN)
    after = look(peer)
    if kept := _kept(before, after):
        raise Failure(f"after {what}: found {', '.join(kept)}")
    if before.resident and after.resident:
        peer.note(f"resident memory after {what}: {(after.resident - before.resident) >> 10:+} KiB")


def _kept(before: Vitals, after: Vitals) -> list[str]:
    pairs = (("descriptors", before.fds, after.fds), ("mappings", before.mappings, after.mappings))
    return [
        f"{now} {name} ({then} before)"
        for name, then, now in pairs
        if then is not None and now is not None and now > then + SLACK
    ]
