"""A back-end that is a program: started, waited for until it listens, and ended with nothing left of it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Self

from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PAUSE = 0.01
"""Seconds between two looks whether it listens: there is nothing else that says so for every program."""
_ACCEPTS = 0x10000
"""__SO_ACCEPTCON, in the flags of /proc/net/unix."""


class ProgramNotReady(VhostUserError):
    """The program ended, or did not listen in time; what it printed on stderr is in the message."""


class StartedProgram:
    """A running program.

    Args:
        command: what to start; ``{socket}`` in a word becomes ``socket_path``.
        socket_path: where it is to listen.
        environment: what to add to ours.
        timeout: seconds that it has to listen, and to end.

    Attributes:
        socket_path: as given.
        process: it.

    Raises:
        OSError: it cannot be started.
        ProgramNotReady: it does not listen.
    """

    def __init__(
        self,
        command: Sequence[str],
        socket_path: str,
        *,
        environment: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.socket_path = socket_path
        self._timeout = timeout
        # A file, because nobody reads while the program runs, and a full pipe would stop it.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the program
        # A group of its own: what it starts ends with it.
        words = [word.replace("{socket}", socket_path) for word in command]
        try:
            self.process = self._start(words, environment)
        except OSError:
            self._stderr.close()
            raise
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.close()
            raise

    def stop(self) -> tuple[int, bytes]:
        """SIGTERM, and SIGKILL if that is not enough: exit status (negative: a signal), and what it said on stderr."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            self._kill_group()
            self.process.wait()
        return self.process.returncode, self.printed()

    def printed(self) -> bytes:
        """What it has said on stderr so far."""
        self._stderr.seek(0)
        return self._stderr.read()

    def close(self) -> None:
        """As `stop`, and remove its socket; may be called again."""
        if self._stderr.closed:
            return
        self.stop()
        self._kill_group()
        self._stderr.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, words: Sequence[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stderr=self._stderr,
            env={**os.environ, **(environment or {})},
            process_group=0,
        )

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def _wait_until_it_listens(self) -> None:
        until = time.monotonic() + self._timeout
        while not _listens(self.socket_path):
            if self.process.poll() is not None:
                status, stderr = self.stop()
                raise ProgramNotReady(f"the program ended with status {status} before it listened: {_shown(stderr)}")
            if time.monotonic() >= until:
                _, stderr = self.stop()
                raise ProgramNotReady(
                    f"nobody listens at {self.socket_path} after {self._timeout:g} s: {_shown(stderr)}"
                )
            time.sleep(PAUSE)


def _listens(path: str) -> bool:
    """Whether a program listens at ``path``, found out without a connection, which many programs would end after.

    Between bind and listen the file is there and connections are refused; Linux tells the two apart in /proc.
    """
    if not os.path.exists(path):
        return False
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="replace") as table:
            flags = [words[3] for words in map(str.split, table) if words[7:] == [path]]
    except OSError:
        return True
    return any(int(each, 16) & _ACCEPTS for each in flags)


def _shown(stderr: bytes) -> str:
    return stderr.decode(errors="backslashreplace").strip()[-500:] or "it printed nothing"
