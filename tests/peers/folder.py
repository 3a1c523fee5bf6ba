"""Where the programs other people wrote are kept, and what is where inside.

Nothing is installed in the running system.  One folder holds all of it::

    bin/            one wrapper per program; put it in front of PATH to try things by hand
    root/           the unpacked packages: programs, firmware, libraries and their own dynamic loader
    kernel/         vmlinuz and modules/ of the guest's kernel
    installed.json  what was asked for and the version of each package; written last, so its presence means complete

The folder is a cache and shared by every checkout of this user, since it takes a download of 150 MB to make.
``VHOST_USER_PEERS`` names another one; it holds its own path and is made again, not moved.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECIPE = 3  # raised when folders made by an older recipe are to be made again


@dataclass(frozen=True, slots=True)
class PeersFolder:
    """Paths inside one folder of peers; none of them needs to exist yet."""

    path: Path

    @classmethod
    def default(cls) -> "PeersFolder":
        """The folder ``make peers`` fills and the tests look into."""
        chosen = os.environ.get("VHOST_USER_PEERS")
        if chosen:
            return cls(Path(chosen).absolute())
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(cache) / "python-vhost-user" / "peers")

    @property
    def bin(self) -> Path:
        return self.path / "bin"

    @property
    def root(self) -> Path:
        return self.path / "root"

    @property
    def kernel(self) -> Path:
        return self.path / "kernel"

    @property
    def modules(self) -> Path:
        return self.kernel / "modules"

    @property
    def uml_modules(self) -> Path:
        """The modules of user-mode Linux, below its package's own folder for the one version there is."""
        (version,) = (self.root / "usr/lib/uml/modules").iterdir()
        return version / "kernel"

    @property
    def record(self) -> Path:
        return self.path / "installed.json"

    def program(self, name: str) -> Path:
        return self.bin / name

    def installed(self) -> dict[str, Any] | None:
        """What ``installed.json`` says, or None when the folder is absent, half made or of an older recipe."""
        try:
            record: dict[str, Any] = json.loads(self.record.read_text())
        except (FileNotFoundError, ValueError):
            return None
        return record if record.get("recipe") == RECIPE else None
