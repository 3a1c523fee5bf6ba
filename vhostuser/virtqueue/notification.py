"""Who wants to be woken, and when: the arithmetic of notification suppression (virtio 1.3, 2.7.7, 2.7.10, 2.8.10)."""

from __future__ import annotations

SPLIT_SPAN = 1 << 16
"""Positions of a split ring before they come round again; those of a packed ring: see ``packed_ring.py``."""


def needs_event(event: int, new: int, old: int, span: int = SPLIT_SPAN) -> bool:
    """Did the index pass the entry that the peer waits for?

    With EVENT_IDX the peer names the entry whose publication should wake it.

    Args:
        event: the peer's ``used_event`` or ``avail_event``, or its ``off_wrap`` as a position.
        new: our position now.
        old: our position when this was asked last; at most one queue size behind ``new``.
        span: all of them are modulo this.

    Returns:
        True when ``event`` is one of the entries ``old`` to ``new - 1``.
    """
    return (new - event - 1) % span < (new - old) % span
