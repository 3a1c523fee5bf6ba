"""A back-end as a process of its own: what it holds can be counted from outside, what it says can be read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.backend.scripted import Script

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parents[2]


class Held(NamedTuple):
    """What a process holds: open descriptors, shared mappings."""

    fds: int
    mappings: int


class BackendProcess:
    """``vhost-user backend`` in the foreground of a process.

    Args:
        folder: for its socket and its log.
        options: type of the device and its options.
        socket: its name in the folder.
    """

    def __init__(self, folder: Path, options: Sequence[str], *, socket: str = "backend.sock") -> None:
        self.path = folder / socket
        self._log = folder / "backend.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vhostuser", "backend", *options, "--socket-path", os.fspath(self.path)],
                stderr=log,
                stdout=log,
                cwd=HERE,
            )

    async def connect(self) -> Script:
        """A new connection; the process serves one after the other, so the one before it has ended completely once
        this one gets an answer."""
        return await Script.connect(self.path, retry_for=15)

    async def held(self) -> Held:
        """What it holds while it serves a front-end that has said nothing yet."""
        with await self.connect() as script:
            assert await script.alive()
            return self.held_now()

    def held_now(self) -> Held:
        proc = Path(f"/proc/{self._process.pid}")
        maps = (proc / "maps").read_text().splitlines()
        return Held(len(os.listdir(proc / "fd")), sum(re.match(r"\S+ ...s ", line) is not None for line in maps))

    def cpu_seconds(self) -> float:
        """Time it has spent so far, its own and the kernel's for it."""
        user, system = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def end(self) -> int:
        """SIGTERM; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(10)

    def stop(self) -> None:
        """It does nothing more, and hangs up on nobody.

        A signal is sent in no time, but a thread on another processor runs on until it is told: the parent hears of the
        stop when the last of them has.
        """
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
