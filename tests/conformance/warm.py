"""Programs that are there in a moment: forks of one that has imported everything already.

To import our back-end takes a second, and the self-test starts hundreds.  So one process imports it, and forks for
each start.  What is started has to be a child of whoever asked, who waits for it and sees how it ended: the fork is a
grandchild whose parent ends at once, and orphans go to the nearest ancestor that is a "subreaper".  Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import trio

from frontend.conformance.launch import Launch
from frontend.conformance.targets import ProgramTarget
from vhostuser.conformance.process import Program, _listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import NoReturn

ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36


# --- the process that forks ------------------------------------------------------------------------------------------


def serve_forks(number: int, run: Callable[[Sequence[str]], NoReturn]) -> None:
    """Fork and ``run`` for each command line that comes on socket ``number``, until it is closed."""
    with socket.socket(fileno=number) as sock:
        while True:
            words, fds, _, _ = socket.recv_fds(sock, 1 << 16, 1)
            if not words:
                return
            sock.send(_fork(sock, json.loads(words), fds[0], run))
            os.close(fds[0])


def _fork(sock: socket.socket, words: Sequence[str], output: int, run: Callable[[Sequence[str]], NoReturn]) -> bytes:
    """Start a grandchild; its number, once its parent is gone."""
    read_end, write_end = os.pipe()
    if (parent := os.fork()) == 0:
        if (child := os.fork()) == 0:
            os.dup2(output, 1)
            os.dup2(output, 2)
            for fd in (read_end, write_end, output):
                os.close(fd)
            sock.close()
            run(words)
        os.setpgid(child, child)
        os.write(write_end, str(child).encode())
        os._exit(0)
    os.close(write_end)
    os.waitpid(parent, 0)
    with open(read_end, "rb") as told:
        return told.read()


# --- whoever asks ----------------------------------------------------------------------------------------------------


class Forks:
    """The process that forks, as it is used."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def start(self, words: Sequence[str], output: int) -> Fork:
        """A program that prints to ``output``."""
        socket.send_fds(self._sock, [json.dumps(words).encode()], [output])
        return Fork(int(self._sock.recv(64)))


@contextmanager
def forks() -> Iterator[Forks]:
    """A process that forks mutants, for as long as the block lasts."""
    reaping = ctypes.CDLL(None).prctl
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    with ours:
        with theirs:
            number = theirs.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.conformance.mutants", "--serve-forks", str(number)],
                pass_fds=[number],
                cwd=ROOT,
                env=environment,
            )
        reaping(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            yield Forks(ours)
        finally:
            reaping(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
            ours.close()
            process.wait()


class Fork:
    """A child that we did not make ourselves, with what `Program` needs of a ``Popen``."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)


class WarmLaunch(Launch):
    """A start that is a fork."""

    def __init__(self, forks: Forks, words: Sequence[str], path: str, nursery: trio.Nursery, *, scratch: str) -> None:
        self._forks = forks
        super().__init__(words, path, nursery, scratch=scratch)

    def _start(self, words: Sequence[str], nursery: trio.Nursery, pass_fds: Sequence[int], *, quiet: bool) -> Program:
        read_end, write_end = os.pipe()
        process = self._forks.start(words, write_end)
        os.close(write_end)
        program = Program(cast("subprocess.Popen[bytes]", process), words)
        reader = (trio.CancelScope(), trio.Event())
        program._readers.append(reader)
        nursery.start_soon(_listen, read_end, program.output, *reader)
        return program


class WarmTarget(ProgramTarget):
    """A `ProgramTarget` whose starts are forks, and cost next to nothing."""

    def __init__(self, forks: Forks, words: Sequence[str], folder: Path, nursery: trio.Nursery, **options: Any) -> None:
        whole = [sys.executable, "-m", "tests.conformance.mutants", *words]
        super().__init__(whole, folder, nursery, ahead=False, **options)
        self._forks, self._words = forks, words

    def _launch(self) -> Launch:
        self._count += 1
        return WarmLaunch(self._forks, self._words, self._path(), self._nursery, scratch=str(self.scratch))
