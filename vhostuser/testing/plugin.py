"""A pytest plugin: fixtures for the tests of whoever writes a front-end or a back-end, in any language.

pytest loads this module at its start, in every project of the environment; so it imports nothing heavy, has no hooks,
and no fixture that anybody gets without asking.  docs/pytest-plugin.md shows what can be done with them.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from vhostuser.testing.memory import GuardedMemory
    from vhostuser.testing.packed_rings import PackedRingBuilder
    from vhostuser.testing.program import StartedProgram
    from vhostuser.testing.rings import RingBuilder
    from vhostuser.testing.scripted_backend import ScriptedBackend, ScriptedPeer
    from vhostuser.testing.scripted_frontend import ScriptedFrontend


class ProgramFactory(Protocol):
    """Starts a back-end; `StartedProgram` has the options."""

    def __call__(self, *command: str, **options: Any) -> StartedProgram: ...


class DeviceFactory(Protocol):
    """Starts ``vhost-user backend``, whose help has the arguments."""

    def __call__(self, device: str, *arguments: str, **options: Any) -> StartedProgram: ...


class FrontendFactory(Protocol):
    """Makes a front-end, by the path of a back-end or by a connected socket; `ScriptedFrontend` has the options."""

    def __call__(self, backend: str | Path | socket.socket, **options: Any) -> ScriptedFrontend: ...


class BackendFactory(Protocol):
    """Makes a back-end that does what a function says; `ScriptedBackend` has the options."""

    def __call__(self, script: Callable[[ScriptedPeer], Any], **options: Any) -> ScriptedBackend: ...


class RingFactory(Protocol):
    """Makes a ring out of which anything can be made; packed, if ``features`` say so."""

    def __call__(self, queue_size: int = 8, features: int | None = None) -> RingBuilder | PackedRingBuilder: ...


@pytest.fixture
def vhost_user_folder() -> Iterator[Path]:
    """A folder for sockets, with a path that is short enough: a socket's has room for a hundred bytes only."""
    folder = Path(tempfile.mkdtemp(prefix="vhu-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def vhost_user_program(vhost_user_folder: Path) -> Iterator[ProgramFactory]:
    """Starts programs that listen at ``{socket}``, a new one for each, and ends them after the test."""
    from vhostuser.testing.program import StartedProgram

    with contextlib.ExitStack() as stack:
        number = 0

        def start(*command: str, **options: Any) -> StartedProgram:
            nonlocal number
            number += 1
            return stack.enter_context(StartedProgram(command, str(vhost_user_folder / f"{number}.sock"), **options))

        yield start


@pytest.fixture
def vhost_user_device(vhost_user_program: ProgramFactory) -> DeviceFactory:
    """Starts devices of this project, for tests of front-ends: ``vhost_user_device("rng")``."""

    def start(device: str, *arguments: str, **options: Any) -> StartedProgram:
        command = (sys.executable, "-m", "vhostuser", "backend", device, "--socket-path", "{socket}", *arguments)
        return vhost_user_program(*command, **options)

    return start


@pytest.fixture
def vhost_user_frontend() -> Iterator[FrontendFactory]:
    """Makes scripted front-ends, which are closed after the test."""
    from vhostuser.testing.scripted_frontend import ScriptedFrontend

    with contextlib.ExitStack() as stack:

        def make(backend: str | Path | socket.socket, **options: Any) -> ScriptedFrontend:
            if isinstance(backend, str | Path):
                return stack.enter_context(ScriptedFrontend.connect(str(backend), **options))
            return stack.enter_context(ScriptedFrontend(backend, **options))

        yield make


@pytest.fixture
def vhost_user_backend(vhost_user_folder: Path) -> Iterator[BackendFactory]:
    """Makes scripted back-ends; one whose script raised fails the test."""
    from vhostuser.testing.scripted_backend import ScriptedBackend

    with contextlib.ExitStack() as stack:
        number = 0

        def make(script: Callable[[ScriptedPeer], Any], **options: Any) -> ScriptedBackend:
            nonlocal number
            number += 1
            return stack.enter_context(ScriptedBackend(vhost_user_folder / f"backend{number}.sock", script, **options))

        yield make


@pytest.fixture
def vhost_user_memory() -> Callable[..., GuardedMemory]:
    """Makes guest memory out of (guest address, size) pairs, with guard bytes around each region."""
    from vhostuser.testing.memory import GuardedMemory

    return GuardedMemory


@pytest.fixture
def vhost_user_ring() -> RingFactory:
    """Makes rings in memory of their own, with every byte of them in the test's hand."""
    from vhostuser.testing.packed_rings import build_ring
    from vhostuser.testing.rings import RING_FEATURES

    def build(queue_size: int = 8, features: int | None = None) -> RingBuilder | PackedRingBuilder:
        return build_ring(queue_size, RING_FEATURES if features is None else features)

    return build


@pytest.fixture
def vhost_user_no_leaks() -> Iterator[None]:
    """Fails a test that leaves open descriptors, shared mappings, names in /dev/shm or child processes behind.

    It looks when it is torn down: name it first, before fixtures that hold something.
    """
    import gc

    from vhostuser.testing.leaks import Leaks, Snapshot

    before = Snapshot.take()
    yield
    gc.collect()
    if leaks := Leaks.between(before, Snapshot.take()):
        pytest.fail(f"this test leaks\n{leaks}", pytrace=False)
