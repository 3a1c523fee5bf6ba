from __future__ import annotations

import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import Program, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

DISK = 8 << 20


@pytest.fixture(scope="session", autouse=True)
def commands_are_installed() -> None:
    if not entry_points(group="vhostuser.commands"):
        pytest.fail("no vhost-user command is registered: install the checkout, `pip install -e .`", pytrace=False)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a name short enough for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="vhost-user-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def disk() -> Iterator[Program]:
    """A disk of 8 MiB in memory, with two queues; one for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="vhost-user-") as name:
        options = ("--memory-size", str(DISK), "--num-queues", "2", "--serial", "a disk")
        with listening(Path(name), "blk", *options) as program:
            yield program


@pytest.fixture(scope="module")
def entropy() -> Iterator[Program]:
    with tempfile.TemporaryDirectory(prefix="vhost-user-") as name, listening(Path(name), "rng") as program:
        yield program
