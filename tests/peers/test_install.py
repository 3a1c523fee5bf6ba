"""``tests/peers/install``: cheap when there is nothing to do, clear when it cannot be done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.peers.folder import PeersFolder

INSTALL = Path(__file__).with_name("install")


def install(*arguments: str | Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run it with the programs of the folder ``path`` and no others."""
    environment = {**os.environ, "PATH": str(path)}
    return subprocess.run(
        [sys.executable, INSTALL, *arguments], env=environment, capture_output=True, text=True, check=False
    )


def test_a_second_run_finds_all_in_place_and_asks_nobody(peers: PeersFolder, tmp_path: Path) -> None:
    """It has no apt to call here, so it cannot have called it."""
    before = peers.record.stat().st_mtime_ns
    started = time.monotonic()
    done = install("--prefix", peers.path, path=tmp_path)
    assert time.monotonic() - started < 5
    assert (done.returncode, done.stderr) == (0, "")
    assert "qemu-system-x86 " in done.stdout
    assert peers.record.stat().st_mtime_ns == before


def test_a_system_that_is_not_debian_is_told_so(tmp_path: Path) -> None:
    done = install("--prefix", tmp_path / "peers", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("install: found no apt-get, expected a Debian system")
    assert list(tmp_path.iterdir()) == []


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    for name in ("apt-get", "apt-cache", "dpkg-deb", "dpkg"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho arm64\n")
        program.chmod(0o755)
    done = install("--prefix", tmp_path / "new" / "peers", path=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "install: found architecture arm64, expected amd64: the guest is an x86 machine\n"
    assert not (tmp_path / "new").exists()


def test_a_half_made_folder_does_not_count(tmp_path: Path) -> None:
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "installed.json").write_text("{")
    assert install("--prefix", folder, path=tmp_path).returncode == 1
