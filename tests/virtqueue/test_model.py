"""Both sides of a ring against the model, each side driven by each engine.

Twice: by a long walk of seeded chance through every kind of ring, which meets what is rare, and by Hypothesis, which
finds other paths each day and makes the ones that fail short.
"""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.engines import ENGINES, need, python_only
from tests.virtqueue.formats import KINDS, names
from tests.virtqueue.model import Model
from tests.virtqueue.skipping import open_skipping
from vhostuser.testing.packed_rings import build_ring
from vhostuser.testing.rings import BuiltRing
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.packed import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.virtqueue.engine import Engine
    from vhostuser.virtqueue.queue import DeviceQueue

pytestmark = python_only  # each test says by itself who drives what
drivers = pytest.mark.parametrize("driver", ENGINES)
devices = pytest.mark.parametrize("device", ENGINES)
STEPS = 150
WALKS = 6


def make(chance: Random, features: int, driver: Engine, device: Callable[[BuiltRing], DeviceQueue]) -> Model:
    """A small ring that stands anywhere, most of the time close to where positions wrap."""
    if features & VirtioFeature.RING_PACKED:
        size = chance.randint(1, 11)
        place = int(Position(chance.randrange(size), chance.random() < 0.5))
        base = place | place << 16
    else:
        size = chance.choice([8, 8, 1, 2, 16])
        base = chance.choice([chance.randrange(65536), chance.randrange(65520, 65536)])
    ring = build_ring(size, features, base=base)
    tables = chance.randint(0, min(3, size))
    return Model(ring, lambda ring, entries: ring.open_driver(indirect=entries, engine=driver), device, tables)


def step(model: Model, chance: Random) -> None:
    """Something that one side does, or the world to both of them."""
    total = chance.randint(1, min(4, model.size))
    readable = chance.randint(0, total)
    limit = chance.randint(1, 9)
    deeds: dict[Callable[[], object], int] = {
        partial(model.add, readable, total - readable): 8,
        model.publish: 4,
        partial(model.reap, limit): 4,
        model.driver_goes_to_sleep: 3,
        model.driver_wants_peace: 1,
        partial(model.pop, limit): 5,
        partial(model.complete, chance): 4,
        model.device_goes_to_sleep: 3,
        model.device_wants_peace: 1,
        model.memory_is_mapped_anew: 1,
        model.another_device_takes_over: 1,
    }
    chance.choices(list(deeds), list(deeds.values()))[0]()
    model.nothing_is_lost()


def walk(features: int, driver: Engine, device: Callable[[BuiltRing], DeviceQueue]) -> None:
    for seed in range(WALKS):
        chance = Random(seed)
        model = make(chance, features, driver, device)
        for _ in range(STEPS):
            step(model, chance)


@pytest.mark.parametrize("kind", KINDS)
@devices
@drivers
def test_no_chain_and_no_wake_up_is_lost(kind: str, driver: Engine, device: Engine) -> None:
    need(driver)
    need(device)
    walk(KINDS[kind], driver, partial(BuiltRing.open_device, engine=device))


@pytest.mark.parametrize("kind", names(in_order=True))
@drivers
def test_nor_is_it_when_the_device_uses_batches(kind: str, driver: Engine) -> None:
    need(driver)
    walk(KINDS[kind], driver, open_skipping)


class Machine(RuleBasedStateMachine):
    """The same with chance in the hands of Hypothesis."""

    model: Model

    def __init__(self, driver: Engine, device: Engine) -> None:
        super().__init__()
        self.driver, self.device = driver, device

    @initialize(chance=st.randoms(), features=st.sampled_from(list(KINDS.values())))
    def open(self, chance: Random, features: int) -> None:
        self.model = make(chance, features, self.driver, partial(BuiltRing.open_device, engine=self.device))

    @rule(chance=st.randoms())
    def step(self, chance: Random) -> None:
        step(self.model, chance)

    @invariant()
    def rings_are_small(self) -> None:
        assert not hasattr(self, "model") or 1 <= self.model.size <= 16


@devices
@drivers
def test_hypothesis_finds_nothing_either(driver: Engine, device: Engine) -> None:
    need(driver)
    need(device)
    few = settings(max_examples=25, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(lambda: Machine(driver, device), settings=few)  # type: ignore[arg-type]
