"""What this machine has for vhost-user, what it lacks, and what to do about that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.doctor.finding import Finding, Level
from frontend.doctor.limits import look_at_limits
from frontend.doctor.memory import look_at_memory
from frontend.doctor.programs import look_at_programs
from frontend.doctor.rings import look_at_rings
from frontend.doctor.versions import look_at_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Finding", "Level", "examine"]


def examine() -> Iterator[Finding]:
    """Everything, topic by topic; looking changes nothing."""
    yield from look_at_rings()
    yield from look_at_memory()
    yield from look_at_limits()
    yield from look_at_programs()
    yield from look_at_versions()
