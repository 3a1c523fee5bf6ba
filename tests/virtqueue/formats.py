"""The kinds of ring that every test of behaviour runs on."""

from __future__ import annotations

from itertools import product

from vhostuser.wire.features import VirtioFeature

_CHOICES = {
    "packed": VirtioFeature.RING_PACKED,
    "indirect": VirtioFeature.INDIRECT_DESC,
    "event_idx": VirtioFeature.EVENT_IDX,
}

FORMATS = {
    "-".join([name for name, taken in zip(_CHOICES, chosen, strict=True) if taken]) or "split": sum(
        (feature for feature, taken in zip(_CHOICES.values(), chosen, strict=True) if taken),
        start=int(VirtioFeature.VERSION_1),
    )
    for chosen in product((False, True), repeat=len(_CHOICES))
}
"""Features of each kind, by its name; split and direct unless the name says otherwise."""


def near_the_end(features: int) -> int:
    """The base of a ring of eight entries that is about to begin a new lap: of 65536 positions, or of the ring."""
    return 0x8006_8006 if features & VirtioFeature.RING_PACKED else 65530
