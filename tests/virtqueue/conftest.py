"""What builds the rings of a test, see ``formats.py``, and who drives them.

Every test of this folder runs on each engine, unless it is marked with one of the marks in ``tests/engines.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engines import ENGINES, need
from tests.virtqueue.formats import DEFAULTS, KINDS, AnyRings, PackedRings, Rings, SplitRings, names
from vhostuser.testing.packed_rings import PackedRingBuilder
from vhostuser.testing.rings import RingBuilder
from vhostuser.virtqueue import queue
from vhostuser.virtqueue.engine import ENGINE
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vhostuser.virtqueue.engine import Engine


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "engine" in metafunc.fixturenames and "engine" not in chosen:
        metafunc.parametrize("engine", ENGINES, indirect=True, scope="module")


@pytest.fixture(autouse=True, scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Who drives rings that are opened without a word about it, as VHOST_USER_ENGINE says it for a process."""
    chosen: Engine = getattr(request, "param", ENGINE)  # a state machine of Hypothesis has no parameters
    need(chosen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "ENGINE", chosen)
        yield chosen


@pytest.fixture(params=names(**DEFAULTS["split"]))
def split(request: pytest.FixtureRequest) -> SplitRings:
    """Split rings of each kind."""
    return Rings(RingBuilder, KINDS[request.param])


@pytest.fixture(params=names(**DEFAULTS["packed"]))
def packed(request: pytest.FixtureRequest) -> PackedRings:
    """Packed rings of each kind."""
    return Rings(PackedRingBuilder, KINDS[request.param])


@pytest.fixture(params=names(**DEFAULTS["rings"]))
def rings(request: pytest.FixtureRequest) -> AnyRings:
    """Rings of each kind in both formats."""
    features = KINDS[request.param]
    return Rings(PackedRingBuilder if features & VirtioFeature.RING_PACKED else RingBuilder, features)
