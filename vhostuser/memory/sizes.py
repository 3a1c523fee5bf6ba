"""Sizes as QEMU's users write them: ``64M``, ``1.5G``, ``4096``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from vhostuser.errors import VhostUserError

SUFFIXES: Final = {letter: 1 << 10 * power for power, letter in enumerate("BKMGTPE")}
"""All of them binary, as everywhere in QEMU: K is 1024."""

_SIZE: Final = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<suffix>[BKMGTPE]?)", re.ASCII | re.IGNORECASE)


class SizeError(VhostUserError, ValueError):
    """This text is not a size."""


def parse_size(text: str) -> int:
    """The number of bytes that ``text`` means.

    Args:
        text: a decimal number, then B, K, M, G, T, P or E in either case, or nothing (bytes).

    Raises:
        SizeError: it is something else, no whole number of bytes, or needs more than 64 bits.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise SizeError(f"found size {text!r}, expected a number and a suffix out of {' '.join(SUFFIXES)}, like 64M")
    size = Fraction(found["number"]) * SUFFIXES[found["suffix"].upper() or "B"]
    if size.denominator != 1:
        raise SizeError(f"size {text!r} is not a whole number of bytes")
    if size >= 1 << 64:
        raise SizeError(f"size {text!r} needs more than 64 bits")
    return int(size)


def format_size(size: int) -> str:
    """``size`` with the largest suffix that keeps it whole: what `parse_size` reads back."""
    for letter, unit in reversed(SUFFIXES.items()):
        if size >= unit > 1 and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)
