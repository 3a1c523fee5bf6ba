"""Who wrote where: a copy of guest memory, and what has changed in it since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.memory import PAGE
from vhostuser.conformance import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.ring import TestRing


class Footprint:
    """Guest memory as it was when this was made.

    Args:
        memory: all of it is watched.
    """

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._before = memory.snapshot()

    def check(self, allowed: Iterable[tuple[int, int]] = ()) -> None:
        """Nothing was written to but what is ``allowed``: guest addresses and lengths, which may lead anywhere.

        Raises:
            Failure: something was; says where.
        """
        spans = list(allowed)
        for region, before, after in zip(self._memory.regions, self._before, self._memory.snapshot(), strict=True):
            if before == after:
                continue
            for start in range(0, len(before), PAGE):
                if before[start : start + PAGE] != after[start : start + PAGE]:
                    _check_page(region.guest_addr, start, before, after, spans)


def _check_page(base: int, start: int, before: bytes, after: bytes, allowed: list[tuple[int, int]]) -> None:
    near = [(addr - base, addr - base + length) for addr, length in allowed]
    near = [(first, end) for first, end in near if first < start + PAGE and end > start]
    for at in range(start, min(start + PAGE, len(before))):
        if before[at] != after[at] and not any(first <= at < end for first, end in near):
            raise Failure(
                f"guest memory at {base + at:#x} was written to (found {after[at]:#04x}, it was {before[at]:#04x}): "
                "it belongs to no buffer that the device may write"
            )


def written_by_device(*rings: TestRing) -> list[tuple[int, int]]:
    """The parts of rings that a device writes to: address and length."""
    spans: list[tuple[int, int]] = []
    for ring in rings:
        spans.append((ring.device.addr, len(ring.device)))
        if ring.packed:
            spans.append((ring.descriptor.addr, len(ring.descriptor)))
    return spans
