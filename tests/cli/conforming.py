"""Running ``vhost-user conform``, and what it may leave behind."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cli.programs import VHOST_USER, surroundings
from tests.conformance.runs import awful_line

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 80


def conform(*arguments: str | Path, pass_fds: Sequence[int] = ()) -> tuple[int, str, str]:
    """Run it; exit status, stdout, stderr."""
    ran = subprocess.run(
        [*VHOST_USER, "conform", *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=SECONDS,
        env=surroundings(),
        pass_fds=pass_fds,
        check=False,
    )
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


def against(behaviour: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Run it against an awful back-end."""
    return conform("backend", "--exec", awful_line(behaviour), *arguments)


class Register:
    """Where awful back-ends write down who they are; `left` says what is left of them.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, behaviour: str) -> str:
        """For ``--exec``."""
        return f"{awful_line(behaviour)} {self.path}"

    def entries(self) -> list[tuple[int, Path]]:
        """Process and socket of each that has listened so far."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [(int(pid), Path(path)) for pid, path in (line.split() for line in lines)]

    def left(self) -> list[str]:
        """Processes that still run, and folders that are still there."""
        found = [f"process {pid}" for pid, _ in self.entries() if _runs(pid)]
        found += [f"folder {path.parent}" for _, path in self.entries() if path.parent.exists()]
        return found


def _runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
