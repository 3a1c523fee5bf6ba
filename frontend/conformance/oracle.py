"""What can be seen of the back-end's process while a case runs; None wherever the system does not let us look."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from frontend.conformance.peer import Peer


def resident_growth(peer: Peer) -> Callable[[], int | None]:
    """Looks at the memory in use now; call the result later for how many bytes were added."""
    before = resident(peer)

    def grown() -> int | None:
        after = resident(peer)
        return None if before is None or after is None else after - before

    return grown


def resident(peer: Peer) -> int | None:
    """Bytes of memory in use."""
    vitals = peer.target.vitals()
    return vitals.resident if vitals else None


def open_fds(peer: Peer) -> int | None:
    """Open descriptors."""
    vitals = peer.target.vitals()
    return vitals.fds if vitals else None
