"""Fences: the right one is chosen for each machine, and can be called.

That a fence *holds* is not shown by any test: on the machines at hand its absence did not show either, as
tests/virtqueue/test_litmus.py tells with figures.
"""

from __future__ import annotations

import platform

import pytest

from vhostuser.memory import ordering
from vhostuser.memory.ordering import Fence, choose, library_fence, lock_fence, no_fence


def test_every_fence_of_this_machine_can_be_called() -> None:
    for fence in (ordering.full_fence, ordering.acquire_fence, ordering.release_fence, lock_fence, no_fence):
        fence()


def test_a_library_that_is_missing_or_lacks_the_function_is_passed_over() -> None:
    sources = [("no-such-library.so.9", "f", ()), (None, "no_such_function", ()), (None, "abs", (5,))]
    found = library_fence(sources)
    assert found is not None
    found()
    assert library_fence(sources[:2]) is None


def library() -> None: ...


@pytest.mark.parametrize(
    ("machine", "found", "full", "weak", "is_full"),
    [
        ("x86_64", library, library, no_fence, True),
        ("AMD64", None, lock_fence, no_fence, True),
        ("aarch64", library, library, library, True),
        ("arm64", None, lock_fence, lock_fence, False),
    ],
)
def test_a_machine_gets_the_cheapest_fences_that_hold_on_it(
    machine: str, found: Fence | None, full: Fence, weak: Fence, is_full: bool
) -> None:
    assert choose(machine, found) == (full, weak, is_full)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other machines need a library for it")
def test_here_the_full_fence_is_full() -> None:
    assert ordering.FENCE_IS_FULL
