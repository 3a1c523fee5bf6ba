"""What one look at the machine found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class Level(Enum):
    """How good what was found is."""

    OK = "ok"
    HINT = "hint"
    """Everything works, and with what the advice says it would do more, or do it faster."""
    BROKEN = "broken"
    """Something that should work here does not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about this machine.

    Attributes:
        topic: what it belongs to: ``rings``, ``memory``, ``limits``, ``programs``, ``versions``.
        name: what was looked at.
        level: how good it is.
        found: what is there.
        advice: the next step; empty when none is needed.
    """

    topic: str
    name: str
    level: Level
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "level": self.level.value}
