"""Programs of other people that speak vhost-user: which are here, and in which version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOPIC = "programs"
PROGRAMS = ("qemu-system-x86_64", "qemu-storage-daemon", "virtiofsd", "passt")
LIBEXEC = ("/usr/libexec", "/usr/lib/qemu")
"""Where distributions put back-ends that people do not start by hand."""
SECONDS = 5
"""How long a program may take to say its version."""


def look_at_programs() -> Iterator[Finding]:
    """One finding for each of `PROGRAMS`."""
    folders = search_path()
    for name in PROGRAMS:
        yield program(name, folders)


def search_path() -> list[Path]:
    """PATH, then where back-ends hide, then the folder that `make peers` fills."""
    on_path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return [*(Path(folder) for folder in (*on_path, *LIBEXEC) if folder), peers_folder()]


def peers_folder() -> Path:
    """Where `make peers` puts programs."""
    if chosen := os.environ.get("VHOST_USER_PEERS"):
        return Path(chosen).absolute() / "bin"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "python-vhost-user" / "peers" / "bin"


def program(name: str, folders: Sequence[Path]) -> Finding:
    """The first ``name`` in ``folders``."""
    path = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    if path is None:
        advice = "make peers, in a checkout, or your system's package; nothing but trying things out depends on it"
        return Finding(TOPIC, name, Level.HINT, "not found", advice)
    try:
        return Finding(TOPIC, name, Level.OK, f"{version_of(path)} in {_short(path)}")
    except (OSError, subprocess.SubprocessError) as error:
        advice = f"see what {path} --version says; make peers, in a checkout, fetches one that works"
        return Finding(TOPIC, name, Level.BROKEN, f"does not start: {error}", advice)


def version_of(path: str) -> str:
    """What it says of itself; some that run well say nothing (passt, for one).

    Raises:
        OSError: it cannot be started.
        subprocess.SubprocessError: it fails, or takes too long.
    """
    ran = subprocess.run(
        [path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=True
    )
    found = re.search(r"\d+[._]\w[\w.~+-]*", ran.stdout.decode(errors="replace"))
    return found[0] if found else "of unknown version,"


def _short(path: str) -> str:
    folder = Path(path).parent
    return f"~/{folder.relative_to(Path.home())}" if folder.is_relative_to(Path.home()) else str(folder)
