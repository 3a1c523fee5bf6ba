"""What can go wrong with saved state."""

from __future__ import annotations

from vhostuser.errors import VhostUserError


class StateError(VhostUserError):
    """State cannot be saved, or a file of it cannot be used: says which file, and why."""
