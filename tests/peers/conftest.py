"""Finders for the programs other people wrote, as fixtures.

A test asks for ``qemu_storage_daemon``, ``guest`` or ``user_mode_linux`` and gets it, or is skipped with the reason,
or fails with the reason when ``CI=true``.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.peers.folder import PeersFolder
from tests.peers.guest_image import UML_MODULES, build_guest, initramfs
from tests.peers.qemu import Guest, StorageDaemon
from tests.peers.user_mode_linux import UserModeLinux
from tests.tools.missing import missing

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under ``CI=true`` no test here may be skipped, for whatever reason."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure here: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def peers() -> PeersFolder:
    """The folder ``make peers`` has filled."""
    folder = PeersFolder.default()
    if folder.installed() is None:
        missing(f"no peers in {folder.path}: run `make peers`")
    return folder


@pytest.fixture(scope="session")
def qemu(peers: PeersFolder) -> Path:
    """qemu-system-x86_64."""
    return peers.program("qemu-system-x86_64")


@pytest.fixture(scope="session")
def qemu_storage_daemon(peers: PeersFolder) -> StorageDaemon:
    return StorageDaemon(peers.program("qemu-storage-daemon"))


@pytest.fixture(scope="session")
def guest(qemu: Path, peers: PeersFolder, tmp_path_factory: pytest.TempPathFactory) -> Guest:
    """A Linux guest; its image is built once for all tests."""
    return Guest(qemu, build_guest(peers, tmp_path_factory.mktemp("guest")))


@pytest.fixture(scope="session")
def user_mode_linux(peers: PeersFolder) -> UserModeLinux:
    """A Linux guest that is a process of its own kind, and a front-end other than QEMU."""
    return UserModeLinux(peers.program("linux.uml"), initramfs(peers, peers.uml_modules, UML_MODULES))


@pytest.fixture
def peer_folder() -> Iterator[Path]:
    """A folder for sockets, images and logs with a name short enough for a socket's path (103 bytes)."""
    with tempfile.TemporaryDirectory(prefix="vhost-user-") as folder:
        yield Path(folder)
