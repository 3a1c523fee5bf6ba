"""Which requirements for back-ends there are: the groups of the catalogue, and how many each has.

Numbers in a group begin with 1 and have no gaps; they are never given again, so these only grow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GROUPS", "requirements"]

GROUPS: Final[Mapping[str, int]] = {
    "HDR": 14,
    "FEAT": 13,
    "PF": 14,
    "OWN": 8,
    "MEM": 17,
    "SLOT": 19,
    "VR": 19,
    "SPL": 18,
    "PKD": 14,
    "NOT": 19,
    "STA": 22,
    "ACK": 9,
    "CFG": 14,
    "MQ": 8,
    "LOG": 24,
    "INF": 26,
    "STS": 6,
    "RST": 7,
    "CH": 15,
    "INB": 9,
    "IOM": 14,
    "NET": 4,
    "CRY": 4,
    "PC": 13,
    "DS": 17,
    "OBJ": 7,
    "SHM": 10,
    "XEN": 3,
    "PRG": 13,
    "HOS": 57,
    "HOR": 37,
}


def requirements() -> list[str]:
    """The id of each, in order."""
    return [f"B-{group}-{number:02}" for group, count in GROUPS.items() for number in range(1, count + 1)]
