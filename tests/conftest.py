"""What every test gets without asking: the leak check, a time limit that explains itself, hypothesis profiles.

The leak check is an autouse fixture, so it is set up first and torn down last: after the other fixtures, and after
the trio run of an async test (pytest-trio runs a test and its async fixtures as one trio run, inside the call).
"""

import gc
import inspect
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.limits import cancel_before_raising, cancelled_at_its_limit
from vhostuser.testing.leaks import Leaks, Snapshot

# Deadlines measure the machine, not the code, and so does how long an example takes to make up.  In CI the same
# examples run each time: a failure there must be repeatable by whoever reads the log; searching for new examples is
# what the developers' machines are for.
FROM_THE_MACHINE = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("default", deadline=None, suppress_health_check=FROM_THE_MACHINE)
hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, suppress_health_check=FROM_THE_MACHINE
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")

PEERS = Path(__file__).parent / "peers"
test_failed = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(PEERS):
            item.add_marker("peer")
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = cancelled_at_its_limit(item.obj)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, object, object]:
    done = yield
    if callable(signal.getsignal(signal.SIGALRM)):
        cancel_before_raising()
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[test_failed] = item.stash.get(test_failed, False) or report.failed
    return report


@pytest.fixture(autouse=True)
def nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves open fds, shared mappings, names in /dev/shm or child processes behind."""
    before = Snapshot.take()
    yield
    if request.node.stash.get(test_failed, False):
        return  # its traceback keeps its objects alive; one failure is enough
    leaks = Leaks.between(before, Snapshot.take())
    if leaks:
        # Only now, because a collection costs more than most tests do.  What is garbage goes, and an object that
        # minds being forgotten (ResourceWarning) fails the test by itself.
        gc.collect()
        leaks = Leaks.between(before, Snapshot.take())
    if leaks:
        pytest.fail(f"this test leaks\n{leaks}", pytrace=False)
