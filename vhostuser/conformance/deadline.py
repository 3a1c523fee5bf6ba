"""How long a case may take: a cancel scope whose clock can be stopped."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Deadline"]


class Deadline:
    """Args:
    seconds: from now on.

    Attributes:
        scope: what is cancelled when they are over.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.scope = trio.CancelScope(deadline=trio.current_time() + seconds)

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What is done in this block takes no time."""
        left = self.scope.deadline - trio.current_time()
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            self.scope.deadline = trio.current_time() + left
