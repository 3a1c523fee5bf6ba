"""The kinds of ring there are: every test of this folder runs on those for which it makes sense.

A test asks for one of the fixtures in ``conftest.py``: `split` and `packed` build rings of one format, `rings` of both,
each time of another kind.  `kinds` above a test says which kinds it is about.  What `given` runs cannot have fixtures
and draws its kind from `KINDS` by itself.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import pytest
from hypothesis import settings

from vhostuser.testing.packed_rings import PackedRingBuilder
from vhostuser.testing.rings import RingBuilder
from vhostuser.virtqueue.queue import initial_base
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Sequence

FEW = settings(max_examples=40)
"""For examples that take longer to make up than to try: each test runs on both engines, and measured by coverage."""

Built = TypeVar("Built", bound=RingBuilder | PackedRingBuilder, covariant=True)

CHOICES = {
    "packed": int(VirtioFeature.RING_PACKED),
    "indirect": int(VirtioFeature.INDIRECT_DESC),
    "event_idx": int(VirtioFeature.EVENT_IDX),
    "in_order": int(VirtioFeature.IN_ORDER),
}


def _name(taken: Sequence[bool]) -> str:
    packed, *others = (name if yes else "" for name, yes in zip(CHOICES, taken, strict=True))
    return "-".join(filter(None, [packed or "split", *others]))


KINDS = {
    _name(taken): sum((bit for bit, yes in zip(CHOICES.values(), taken, strict=True) if yes), VirtioFeature.VERSION_1)
    for taken in product((False, True), repeat=len(CHOICES))
}
"""Features of each kind, by its name: ``split``, ``packed-event_idx-in_order`` and so on."""


def names(**fixed: bool) -> list[str]:
    """The kinds with these choices made, and all others open: ``names(packed=False, in_order=True)``."""
    return [name for name, bits in KINDS.items() if all(bool(bits & CHOICES[it]) is yes for it, yes in fixed.items())]


def drawn(**fixed: bool) -> list[int]:
    """The features of those, for Hypothesis to choose from."""
    return [KINDS[name] for name in names(**fixed)]


def kinds(fixture: str, **fixed: bool) -> pytest.MarkDecorator:
    """The test is about these kinds only; indirect tables are negotiated unless ``fixed`` has an opinion."""
    return pytest.mark.parametrize(fixture, names(**{**DEFAULTS[fixture], **fixed}), indirect=True)


DEFAULTS = {
    "split": {"packed": False, "indirect": True},
    "packed": {"packed": True, "indirect": True},
    "rings": {},
}


class Rings(Generic[Built]):
    """Builds rings of one kind.

    Attributes:
        features: what is negotiated.
    """

    def __init__(self, builder: type[Built], features: int) -> None:
        self._builder = builder
        self.features = features

    def __call__(
        self,
        queue_size: int = 8,
        *,
        base: int | None = None,
        regions: Sequence[tuple[int, int]] = (),
        features: int | None = None,
    ) -> Built:
        """A ring that stands where a new one does unless ``base`` says otherwise."""
        features = self.features if features is None else features
        base = initial_base(features) if base is None else base
        return self._builder(queue_size, features, base=base, regions=regions)

    def has(self, feature: VirtioFeature) -> bool:
        """Was ``feature`` negotiated?"""
        return bool(self.features & feature)


SplitRings: TypeAlias = Rings[RingBuilder]
PackedRings: TypeAlias = Rings[PackedRingBuilder]
AnyRings: TypeAlias = Rings[RingBuilder | PackedRingBuilder]


def near_the_end(features: int) -> int:
    """The base of a ring of eight entries that is about to begin a new lap: of 65536 positions, or of the ring."""
    return 0x8006_8006 if features & VirtioFeature.RING_PACKED else 65530
