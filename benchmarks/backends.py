"""The back-ends that are measured: ours in every way of serving that it has, and qemu-storage-daemon.

All of them serve one image.  Each inherits a listening socket, so that a connect succeeds from the first moment on.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.doctor.programs import search_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAM = (sys.executable, "-m", "vhostuser")
DAEMON = "qemu-storage-daemon"
TICKS = os.sysconf("SC_CLK_TCK")
WATCH = ("--poll-us", "50")
STOP_SECONDS = 5


@dataclass(frozen=True)
class Backend:
    """One way to serve a disk.

    Attributes:
        name: in samples.
        title: for people.
        options: of ``vhost-user backend blk``; for qemu-storage-daemon the block driver's.
        engine: what VHOST_USER_ENGINE asks for; empty for a daemon that is not ours.
        file: whether it serves the image, and not memory or nothing.
    """

    name: str
    title: str
    options: tuple[str, ...]
    engine: str = ""
    file: bool = True

    def watching(self) -> Backend:
        """The same, watching an empty ring for 50 microseconds before it sleeps."""
        title = f"{self.title}, watching 50 µs"
        return replace(self, name=f"{self.name}+poll", title=title, options=(*self.options, *WATCH))

    def why_not(self) -> str | None:
        """Why it cannot be started here; None if it can."""
        if not self.engine:
            return None if _daemon() else f"found no {DAEMON}: make peers"
        if self.engine == "native" and not has_native_engine():
            return "the native engine is not built"
        missing = [option for option in self.options if option.startswith("--") and option not in _our_help()]
        return f"vhost-user backend blk has no {missing[0]}" if missing else None

    def command(self, image: Path, fd: int) -> list[str]:
        """How to start it on a listening socket that it inherits."""
        if self.engine:
            served = ["--blk-file", str(image)] if self.file else []
            return [*PROGRAM, "backend", "blk", *served, *self.options, "--fd", str(fd)]
        file = [f"filename={image},locking=off"] if self.file else []
        export = f"type=vhost-user-blk,id=e,node-name=f,addr.type=fd,addr.str={fd},writable=on,num-queues=2"
        return [_daemon() or DAEMON, "--blockdev", ",".join(["node-name=f", *self.options, *file]), "--export", export]


def _ours(name: str, title: str, *options: str, engine: str = "native", file: bool = True) -> Backend:
    return Backend(name, f"ours: {title}", ("--num-queues", "2", *options), engine, file)


PYTHON = _ours("python", "Python, preadv", "--serve", "task", engine="python")
PYTHON_COPY = _ours("python-copy", "Python, copy", "--serve", "task", "--mmap", engine="python")
RING = _ours("ring", "compiled ring, Python device, preadv", "--serve", "task")
RING_COPY = _ours("ring-copy", "compiled ring, Python device, copy", "--serve", "task", "--mmap")
THREAD = _ours("thread", "compiled ring, Python device on a thread", "--serve", "thread")
LOOP = _ours("loop", "compiled loop, preadv", "--serve", "native")
LOOP_MAPPED = _ours("loop-mapped", "compiled loop, mapped image", "--serve", "native", "--mmap")
LOOP_NULL = _ours("loop-null", "compiled loop, no I/O", "--serve", "native", "--null", "256M", file=False)
QSD_THREADS = Backend("qsd-threads", f"{DAEMON}, threads", ("driver=file,aio=threads",))
QSD_URING = Backend("qsd-io_uring", f"{DAEMON}, io_uring", ("driver=file,aio=io_uring",))
QSD_NULL = Backend("qsd-null", f"{DAEMON}, null-co", ("driver=null-co,read-zeroes=off,size=268435456",), file=False)

ALL = (
    PYTHON,
    PYTHON_COPY,
    RING,
    RING_COPY,
    THREAD,
    LOOP,
    LOOP_MAPPED,
    LOOP_NULL,
    QSD_THREADS,
    QSD_URING,
    QSD_NULL,
)
TITLES = {each.name: each.title for one in ALL for each in (one, one.watching())}


@dataclass(frozen=True, slots=True)
class Running:
    """A back-end that runs.

    Attributes:
        socket_path: where it listens.
        process: it.
        log: what it said.
    """

    socket_path: Path
    process: subprocess.Popen[bytes]
    log: Path

    def cpu_seconds(self) -> float:
        """Processor time that it has used, with all its threads, in steps of a tick (mostly 10 ms)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def running(backend: Backend, image: Path, folder: Path) -> Iterator[Running]:
    """``backend`` over ``image`` until the block ends; sockets and logs in ``folder``."""
    path = folder / f"{backend.name}-{image.stem}.sock"
    log = path.with_suffix(".log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        command = backend.command(image, listener.fileno())
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[listener.fileno()],
                env=environment(backend.engine),
            )
    try:
        yield Running(path, process, log)
    finally:
        stop(process)
        path.unlink(missing_ok=True)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it, politely first."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def environment(engine: str) -> Mapping[str, str]:
    """Ours, with nothing in it that would change what is measured."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VHOST_USER_")}
    return {**clean, "VHOST_USER_ENGINE": engine} if engine else clean


@cache
def has_native_engine() -> bool:
    """Whether it is built; where an older version has no engines at all, it is not."""
    look = "from vhostuser.virtqueue.engine import ENGINE; print(ENGINE)"
    asked = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, env=environment("native"), check=False
    )
    return asked.stdout.strip() == "native"


@cache
def _our_help() -> str:
    asked: Sequence[str] = [*PROGRAM, "backend", "blk", "--help"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


@cache
def _daemon() -> str | None:
    return shutil.which(DAEMON, path=os.pathsep.join(map(str, search_path())))
