"""Both sides of a ring against the model, each side driven by each engine."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.engines import ENGINES, need, python_only
from tests.virtqueue.model import Ring
from tests.virtqueue.skipping import open_skipping
from vhostuser.testing.rings import BuiltRing

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.virtqueue.engine import Engine

pytestmark = python_only  # each test says by itself who drives what


def search(machine: Callable[[], Ring]) -> None:
    few = settings(max_examples=60, stateful_step_count=40, deadline=None)
    run_state_machine_as_test(machine, settings=few)  # type: ignore[arg-type]  # any callable will do


@pytest.mark.parametrize("device", ENGINES)
@pytest.mark.parametrize("driver", ENGINES)
def test_no_chain_and_no_wake_up_is_lost(driver: Engine, device: Engine) -> None:
    need(driver)
    need(device)
    search(lambda: Ring(driver, partial(BuiltRing.open_device, engine=device)))


@pytest.mark.parametrize("driver", ENGINES)
def test_nor_is_it_when_the_device_uses_batches(driver: Engine) -> None:
    need(driver)
    search(lambda: Ring(driver, open_skipping, in_order=True))
