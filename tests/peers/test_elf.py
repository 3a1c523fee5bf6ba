"""A program given another loader is started with it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.peers.elf import set_interpreter

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.folder import PeersFolder


def test_a_program_is_started_with_the_loader_it_was_given(peers: PeersFolder, tmp_path: Path) -> None:
    """A loader of a longer path than the old one, and one that is not there."""
    program = tmp_path / "program"
    shutil.copyfile(peers.root / "usr/bin/linux.uml", program)
    program.chmod(0o755)
    loader = tmp_path / "a-loader-with-a-long-name.so"
    set_interpreter(program, loader)
    with pytest.raises(FileNotFoundError):
        subprocess.run([program, "--version"], check=True)
    shutil.copyfile(peers.root / "usr/lib64/ld-linux-x86-64.so.2", loader)
    loader.chmod(0o755)
    libraries = str(peers.root / "usr/lib/x86_64-linux-gnu")
    done = subprocess.run([program, "--version"], capture_output=True, env={"LD_LIBRARY_PATH": libraries}, check=True)
    assert done.stdout.startswith(b"6.")


def test_a_script_has_no_loader(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(ValueError, match="expected a 64-bit ELF file"):
        set_interpreter(script, tmp_path / "loader")


def test_a_static_program_has_no_loader(peers: PeersFolder, tmp_path: Path) -> None:
    program = tmp_path / "busybox"
    shutil.copyfile(peers.root / "usr/bin/busybox", program)
    with pytest.raises(ValueError, match="found no PT_INTERP"):
        set_interpreter(program, tmp_path / "loader")
