"""Where channels come from: connecting, listening, and sockets that somebody else made.

Either role may connect and either may listen; nothing here knows which it is.

A socket file outlives the process that made it.  `listen` finds out whether anybody still answers, and only then takes
the file's place.  When it goes, it removes the file only if that is still its own: a successor may have replaced it.
Two listeners that start in the same instant can still both find a dead file (looking and removing are two steps);
whoever starts daemons has to keep them apart.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import socket
import stat
import sys
from typing import TYPE_CHECKING, TypeAlias

import trio

from vhostuser.errors import VhostUserError
from vhostuser.fd import Fd
from vhostuser.transport.channel import Channel, ChannelOptions

if TYPE_CHECKING:
    from typing import Unpack

StrPath: TypeAlias = "str | os.PathLike[str]"

MAX_LISTEN_PATH = 103
"""Bytes.  ``sun_path`` has room for 104 on macOS and the BSDs, the final NUL included: 103 fit everywhere."""
MAX_CONNECT_PATH = 107 if sys.platform == "linux" else MAX_LISTEN_PATH

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 1.0
"""Seconds between two attempts to connect: doubled each time, and varied so that clients do not march in step."""
CAPACITY_PAUSE = 0.1
"""Seconds before `Listener.accept` tries again when this process, or the machine, has no free descriptor."""

_NOT_THERE_YET = frozenset({errno.ENOENT, errno.ECONNREFUSED})
_NO_CAPACITY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_logger = logging.getLogger(__name__)


class SocketPathError(VhostUserError, ValueError):
    """This path cannot name a unix socket."""


class NotAChannel(VhostUserError, ValueError):
    """A descriptor that was handed over is not a unix stream socket in the state we need."""


async def connect(path: StrPath, *, retry_for: float = 0, **options: Unpack[ChannelOptions]) -> Channel:
    """Connect to whoever listens at ``path``.

    Args:
        retry_for: seconds to go on trying while nobody answers there, for a daemon that is still starting.  A daemon
            that answers but is busy is waited for without limit; use a cancel scope.
        options: see `Channel`.

    Raises:
        SocketPathError: the path is too long.
        OSError: nobody answered; with errno and path.
    """
    _check_path(path, MAX_CONNECT_PATH)
    await trio.lowlevel.checkpoint()
    deadline = trio.current_time() + retry_for
    pause = FIRST_PAUSE
    while True:
        try:
            return Channel(_connected(path), **options)
        except BlockingIOError:
            pass  # Linux: the listener's queue is full
        except OSError as error:
            if error.errno not in _NOT_THERE_YET or trio.current_time() >= deadline:
                raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        await trio.sleep(pause * random.uniform(0.75, 1))
        pause = min(2 * pause, LONGEST_PAUSE)


def listen(path: StrPath, *, backlog: int = 8, **options: Unpack[ChannelOptions]) -> Listener:
    """Listen at ``path``, in place of a socket file whose process is gone.

    Args:
        backlog: connections that may wait to be accepted.
        options: for each accepted channel, see `Channel`.

    Raises:
        SocketPathError: longer than 103 bytes, empty, or with a NUL.
        FileExistsError: something that is not a socket has this name.
        OSError: EADDRINUSE when somebody answers there; whatever else bind says, with the path.
    """
    _check_path(path, MAX_LISTEN_PATH)
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(os.fspath(path))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    return Listener(sock, _SocketFile(path), **options)


class Listener(trio.abc.Listener[Channel]):
    """A listening unix socket; `trio.serve_listeners` takes it as it is.

    Args:
        sock: the listening socket, owned from now on.
        file: the name to remove at the end, if it is ours.
        options: for each accepted channel.
    """

    def __init__(self, sock: socket.socket, file: _SocketFile | None = None, **options: Unpack[ChannelOptions]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._file = file
        self._options = options

    def fileno(self) -> int:
        """The socket's number, still owned by the listener; -1 when closed."""
        return self._sock.fileno()

    async def accept(self) -> Channel:
        """The next connection.

        Without a free descriptor the connection stays in the queue and the socket stays readable; so this waits a
        moment and tries again, instead of failing or spinning.

        Raises:
            trio.ClosedResourceError: this listener is closed.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self.fileno() < 0:
                raise trio.ClosedResourceError("this listener was closed")
            try:
                sock, _ = self._sock.accept()
                return Channel(sock, **self._options)
            except (BlockingIOError, ConnectionAbortedError):
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as error:
                if error.errno not in _NO_CAPACITY:
                    raise
                _logger.warning("cannot accept now: %s; trying again in %g s", error.strerror, CAPACITY_PAUSE)
                await trio.sleep(CAPACITY_PAUSE)

    def close(self) -> None:
        """Stop listening and remove the socket's file, if it is still ours."""
        if self.fileno() < 0:
            return
        if self._file is not None:
            self._file.remove()
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()

    async def aclose(self) -> None:
        """As `close`; for ``async with``."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        if self.fileno() < 0:
            return "<Listener closed>"
        return f"<Listener fd {self.fileno()} at {os.fsdecode(self._sock.getsockname())}>"


def adopt(fd: Fd, **options: Unpack[ChannelOptions]) -> Channel | Listener:
    """What an inherited or received socket is: a connection, or a listener (SO_ACCEPTCONN tells).

    The descriptor is owned from the call on, and closed when it is refused.  A listener made here removes no file.

    Raises:
        NotAChannel: not a socket, not a unix stream socket, or neither connected nor listening.
    """
    sock = _unix_stream_socket(fd)
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return Listener(sock, **options)
    return Channel(_checked_connected(sock), **options)


def adopt_channel(fd: Fd, **options: Unpack[ChannelOptions]) -> Channel:
    """As `adopt`, for a socket that has to be connected: the one that comes with SET_BACKEND_REQ_FD.

    Raises:
        NotAChannel: anything but a connected unix stream socket.
    """
    return Channel(_checked_connected(_unix_stream_socket(fd)), **options)


def channel_pair(**options: Unpack[ChannelOptions]) -> tuple[Channel, Channel]:
    """Two channels connected to each other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours, **options), Channel(theirs, **options)


def socket_pair(**options: Unpack[ChannelOptions]) -> tuple[Channel, Fd]:
    """A channel, and its other end as a descriptor to send away (SET_BACKEND_REQ_FD)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return Channel(ours, **options), Fd(theirs.detach())


class _SocketFile:
    """The file that ``bind`` made: known by its inode, so that nobody else's is ever removed."""

    def __init__(self, path: StrPath) -> None:
        self._path = os.path.abspath(path)  # the working directory may change
        self._identity = _identity(self._path)

    def remove(self) -> None:
        if self._identity is not None and _identity(self._path) == self._identity:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


def _identity(path: StrPath) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _check_path(path: StrPath, limit: int) -> None:
    name = os.fsencode(path)
    if len(name) > limit:
        raise SocketPathError(f"socket path of {len(name)} bytes, at most {limit} are possible: {os.fsdecode(name)}")
    if not name or b"\0" in name:
        raise SocketPathError(f"socket path is empty or contains a NUL: {os.fsdecode(name)!r}")


def _connected(path: StrPath) -> socket.socket:
    """A connected socket, at once or not at all.

    Unlike a TCP connection one to a unix socket is made in the call.  So this needs no waiting, and must not use
    trio's: it takes Linux's EAGAIN for "under way", and reports a connection that was never made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(path: StrPath) -> None:
    """Make room for ``bind``: the file may go when it is a socket that refuses connections, and only then."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "exists and is not a socket, will not replace it", os.fspath(path))
    try:
        _connected(path).close()
    except (ConnectionRefusedError, FileNotFoundError):
        if _identity(path) == (status.st_dev, status.st_ino):
            os.unlink(path)
        return
    except OSError as error:
        raise OSError(error.errno, f"cannot tell whether anybody listens: {error.strerror}", os.fspath(path)) from None
    raise OSError(errno.EADDRINUSE, "somebody listens here already", os.fspath(path))


def _unix_stream_socket(fd: Fd) -> socket.socket:
    number = fd.take()
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        os.close(number)
        raise NotAChannel(f"file descriptor {number} is not a socket: {error.strerror}") from None
    if (sock.family, sock.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
        with sock:
            raise NotAChannel(f"found a socket of {sock.family!r}, {sock.type!r}, expected a unix stream socket")
    sock.set_inheritable(False)
    return sock


def _checked_connected(sock: socket.socket) -> socket.socket:
    try:
        sock.getpeername()
    except OSError as error:
        with sock:
            raise NotAChannel(f"found a unix socket that is not connected ({error.strerror}): {sock!r}") from None
    return sock
