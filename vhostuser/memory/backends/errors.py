"""What goes wrong with memory backends, and what merely goes otherwise than asked."""

from __future__ import annotations

from vhostuser.errors import VhostUserError


class MemoryBackendError(VhostUserError):
    """A memory backend cannot be made as it is described, or the system refuses to make it."""


class MemoryBackendWarning(UserWarning):
    """A property cannot have the effect that it promises; the memory is made all the same, as QEMU does."""
