"""A channel with a bare socket at the other end, frames for it, and ways to make a test inconvenient."""

from __future__ import annotations

import array
import contextlib
import os
import resource
import socket
from typing import TYPE_CHECKING

import trio

from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.transport import Channel, ChannelOptions
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from typing import TypeVar, Unpack

    T = TypeVar("T")


def frame(payload: bytes = b"", *fds: Fd, request: int = 1) -> Frame:
    return Frame(Header(request, HeaderFlags.VERSION_1, len(payload)), payload, Fds.of(*fds) if fds else NO_FDS)


def null(count: int = 1) -> list[Fd]:
    return [Fd(os.open(os.devnull, os.O_RDWR)) for _ in range(count)]


def open_fds() -> set[int]:
    """The numbers in use; every open file, so that a difference is a leak or an early close."""
    found = set()
    for number in range(256):
        with contextlib.suppress(OSError):
            os.fstat(number)
            found.add(number)
    return found


@contextlib.asynccontextmanager
async def linked(**options: Unpack[ChannelOptions]) -> AsyncIterator[tuple[Channel, socket.socket]]:
    """A channel and the bare, non-blocking socket that plays its peer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.setblocking(False)
    with theirs:
        async with Channel(ours, **options) as channel:
            yield channel, theirs


def send_with_fds(sock: socket.socket, data: bytes, *fds: Fd) -> None:
    """Send all of it in one call, and close the descriptors: the copies in the message are the receiver's."""
    with Fds.of(*fds) as owned:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", owned.numbers()))] if fds else []
        assert sock.sendmsg([data], rights) == len(data)


def fill(sock: socket.socket) -> int:
    """Write until nothing more fits; the number of bytes."""
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += sock.send(bytes(1024), socket.MSG_DONTWAIT)
    return written


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """What must already be there."""
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data), socket.MSG_DONTWAIT)
    return data


@contextlib.contextmanager
def no_free_fds(but: int = 0) -> Iterator[None]:
    """Inside, this process gets ``but`` more descriptors and then EMFILE; what is open stays open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = null(but + 1)
    limit = max(fd.fileno() for fd in spare)
    Fds(spare).close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class _CancelAtYield(trio.abc.Instrument):
    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, yields: int) -> None:
        self.task, self.scope, self.left = task, scope, yields

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancelled_at(yields: int, work: Callable[[], Awaitable[T]]) -> T | None:
    """Run ``work`` and cancel it when it yields for the nth time (0: before it starts); None when it was cancelled."""
    with trio.CancelScope() as scope:
        if yields == 0:
            scope.cancel()
        instrument = _CancelAtYield(trio.lowlevel.current_task(), scope, yields)
        trio.lowlevel.add_instrument(instrument)
        try:
            return await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return None
