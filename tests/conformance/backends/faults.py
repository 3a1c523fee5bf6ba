"""What can be wrong with the features of the rare back-end: each fault is one deviation, and has cases that see it.

A fault is a back-end of which one part differs.  The lists are in ``log_faults.py``, ``iommu_faults.py`` and
``inband_faults.py``; the test is beside this folder.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.conformance.backends.rare import Backend
from tests.conformance.backends.rare_memory import DirtyLog
from tests.conformance.backends.rare_ring import Ring

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Fault:
    """One deviation.

    Attributes:
        sentence: what it does.
        seen_by: cases of which each sees it.
        backend: does it.
    """

    sentence: str
    seen_by: tuple[str, ...]
    backend: type[Backend]


FAULTS: dict[str, Fault] = {}


def fault(sentence: str, *seen_by: str) -> Callable[[type[Any]], type[Any]]:
    """Note a part that is wrong, or a whole back-end."""

    def note(part: type[Any]) -> type[Any]:
        whole = part
        if not issubclass(part, Backend):
            place = "Log" if issubclass(part, DirtyLog) else "Ring" if issubclass(part, Ring) else "Space"
            whole = type(part.__name__, (Backend,), {place: part})
        FAULTS[part.__name__] = Fault(sentence, seen_by, whole)
        return part

    return note


def load() -> dict[str, Fault]:
    """All of them, by name."""
    for subject in ("log", "iommu", "inband"):
        importlib.import_module(f"tests.conformance.backends.{subject}_faults")
    return FAULTS
