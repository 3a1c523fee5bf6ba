"""Notifications over an eventfd or a pipe: one end signals, the other waits.

A notification says only "look again".  Several become one, and the eight bytes mean nothing: a reader accepts any
number of bytes and does not interpret them.  With an eventfd both ends are the same open file; with a pipe (systems
without eventfd, or on request) there are two, and the right one has to travel:

    message                    the sender keeps        the receiver gets
    SET_VRING_KICK             `EventNotifier`         `EventConsumer`'s fd (read end)
    SET_VRING_CALL             `EventConsumer`         `EventNotifier`'s fd (write end)
    SET_VRING_ERR              `EventConsumer`         `EventNotifier`'s fd (write end)

Make a pair with `event_pair`, send ``end.take_fd()`` of the end that travels, keep the other.  With a pipe this also
gives a death notice: waiting ends with `trio.EndOfChannel`, signalling with `PeerClosed`.  (An eventfd has none.  And
QEMU keeps both ends itself, and sends the read end as err: that one is adopted with ``tolerant=True``.)

Never blocking is harder than O_NONBLOCK.  That flag belongs to the open file, which the peer shares: it can clear the
flag, fill the pipe or empty the eventfd, and our next write or read would stop the whole trio loop.  So every call
says for itself that it must not wait (RWF_NOWAIT) where the kernel knows how: Linux, for reads of both kinds and for
writes to pipes.  Elsewhere, and for writes to an eventfd, poll is asked immediately before.  There a peer that
clears the flag and wins a race of microseconds could still stop us; we know of no remedy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import sys
from enum import Enum
from typing import TYPE_CHECKING, Self

import trio

from vhostuser.errors import VhostUserError
from vhostuser.fd import ClosedFd, Fd

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENVIRONMENT_VARIABLE = "VHOST_USER_NOTIFIER"
"""``pipe`` or ``eventfd`` forces one; anything else is an error."""

_SIGNAL = (1).to_bytes(8, sys.byteorder)
_READ_SIZE = 512
_MAX_READS = 128
"""Reads in one `EventConsumer.drain`, so that a peer that never stops writing cannot hold us: 64 KiB, a full pipe."""

_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
_NO_SUCH_WAY = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.ESPIPE})
"""What systems answer that cannot do RWF_NOWAIT, in general or on this kind of file."""


class PeerClosed(VhostUserError, trio.BrokenResourceError):
    """Nobody can be woken through this notifier (any more)."""


class NotANotifier(VhostUserError, ValueError):
    """A descriptor that was handed over can not signal, or can not be waited for."""


class NotifierKind(Enum):
    """What carries the notifications."""

    EVENTFD = "eventfd"
    PIPE = "pipe"


class _End(trio.abc.AsyncResource):
    """One end: an owned descriptor, non-blocking and not inherited."""

    def __init__(self, fd: Fd, poll_for: int) -> None:
        self._fd = fd
        self.kind = NotifierKind.PIPE if stat.S_ISFIFO(os.fstat(fd.fileno()).st_mode) else NotifierKind.EVENTFD
        """As far as it can be told: whatever is not a pipe counts as an eventfd."""
        os.set_blocking(fd.fileno(), False)
        self._poll = select.poll()
        self._poll.register(fd.fileno(), poll_for)
        self._knows_nowait = _RWF_NOWAIT != 0

    @property
    def closed(self) -> bool:
        """True once closed or taken."""
        return self._fd.closed

    def fileno(self) -> int:
        """The number, still owned by this end.

        Raises:
            ClosedFd: closed or taken.
        """
        return self._fd.fileno()

    def duplicate(self) -> Fd:
        """A second descriptor of this end, to send to the peer or to the kernel; this one stays usable."""
        return self._fd.duplicate()

    def take_fd(self) -> Fd:
        """Move the descriptor out, for the peer; this end is closed afterwards."""
        self._wake_waiters()
        return self._fd.move()

    def close(self) -> None:
        """Close the descriptor; a task that waits gets ClosedResourceError."""
        if not self._fd.closed:
            self._wake_waiters()
            self._fd.close()

    async def aclose(self) -> None:
        """As `close`, for ``async with``."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closed' if self.closed else f'{self.kind.value} fd {self.fileno()}'}>"

    def _wake_waiters(self) -> None:
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self.fileno())

    def _without_blocking(self, at_once: Callable[[], int], plainly: Callable[[], int]) -> int:
        """``at_once`` says RWF_NOWAIT; where nobody knows that, do it ``plainly`` when poll says it will not block.

        Raises:
            BlockingIOError: not now.
        """
        if self._knows_nowait:
            try:
                return at_once()
            except OSError as error:
                if error.errno not in _NO_SUCH_WAY:
                    raise
            self._knows_nowait = False
        if not self._poll.poll(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return plainly()


class EventNotifier(_End):
    """The signalling end.

    Args:
        fd: an eventfd, or the write end of a pipe; owned from now on.
        tolerant: an fd that cannot be written to is accepted, and `notify` then does nothing.
    """

    def __init__(self, fd: Fd, *, tolerant: bool = False) -> None:
        super().__init__(fd, select.POLLOUT)
        self._mute = tolerant and not _allows(fd, os.O_WRONLY)

    @classmethod
    def adopt(cls, fd: Fd, *, tolerant: bool = False) -> Self:
        """Own a descriptor that the peer sent; it is closed when refused.

        Args:
            tolerant: for err, where QEMU sends the end that cannot be written to.

        Raises:
            NotANotifier: no eventfd, pipe or socket, or one that cannot be written to.
        """
        _check_adopted(fd, None if tolerant else os.O_WRONLY, "signal through")
        return cls(fd, tolerant=tolerant)

    def notify(self) -> None:
        """Wake whoever waits at the other end; never blocks, and one that is not consumed yet is enough.

        Raises:
            PeerClosed: nobody can be woken through this: the peer closed its end (pipes only), or sent a descriptor
                that takes no notifications.
            ClosedFd: this end is closed.
        """
        fd = self.fileno()
        if self._mute:
            return
        try:
            self._without_blocking(lambda: os.pwritev(fd, [_SIGNAL], -1, _RWF_NOWAIT), lambda: os.write(fd, _SIGNAL))
        except BlockingIOError:
            pass  # full: the peer has been told, and has not looked yet
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerClosed("nobody waits at the other end of this notifier any more") from error
        except OSError as error:
            # The peer sent something else than it should; what to do about it is the same.
            raise PeerClosed(f"cannot signal through {self!r}: {error.strerror}") from error


class EventConsumer(_End):
    """The waiting end; one task at a time may wait.

    Args:
        fd: an eventfd, or the read end of a pipe; owned from now on.
    """

    def __init__(self, fd: Fd) -> None:
        super().__init__(fd, select.POLLIN)

    @classmethod
    def adopt(cls, fd: Fd) -> Self:
        """Own a descriptor that the peer sent; it is closed when refused.

        Raises:
            NotANotifier: no eventfd, pipe or socket, or one that cannot be read from.
        """
        _check_adopted(fd, os.O_RDONLY, "wait for")
        return cls(fd)

    async def wait(self) -> None:
        """Return once there was at least one notification since the last time; all there are count as one.

        Cancelled, it has consumed nothing.

        Raises:
            trio.EndOfChannel: nobody is left who could notify (pipes only), or the peer sent a descriptor that cannot
                be waited for.  Stop waiting: it will not change.
            trio.ClosedResourceError: this end is closed.
            trio.BusyResourceError: another task waits already.
        """
        while True:
            if self.closed:
                await trio.lowlevel.checkpoint()
                raise trio.ClosedResourceError("this end of the notifier was closed or taken")
            # Not first a look whether there is something, as is usual: nobody waits who has not looked at a ring
            # already, and a look that finds nothing costs as much as a wake-up.
            try:
                await trio.lowlevel.wait_readable(self.fileno())
            except OSError as error:
                raise trio.EndOfChannel(f"cannot wait for {self!r}: {error.strerror}") from error
            try:
                if self.drain():
                    return
            except ClosedFd:
                continue  # by a task that was woken together with this one

    def wait_nowait(self) -> None:
        """As `wait`, but without waiting.

        Raises:
            trio.WouldBlock: there was no notification.
            trio.EndOfChannel: see `wait`.
        """
        if not self.drain():
            raise trio.WouldBlock

    def drain(self) -> bool:
        """Consume what is there; whether there was anything.

        Raises:
            trio.EndOfChannel: see `wait`.
            ClosedFd: this end is closed.
        """
        size = self._read()
        if size is None:
            return False
        if size == 0:
            raise trio.EndOfChannel("nobody is left who could notify")
        for _ in range(_MAX_READS - 1):
            if size != _READ_SIZE:
                break  # empty; what comes after this makes the fd readable again
            size = self._read()
        return True

    def _read(self) -> int | None:
        """Bytes read, 0 at the end; None when there is nothing."""
        fd, buffer = self.fileno(), bytearray(_READ_SIZE)
        try:
            return self._without_blocking(
                lambda: os.preadv(fd, [buffer], -1, _RWF_NOWAIT), lambda: len(os.read(fd, _READ_SIZE))
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:
            return 0
        except OSError as error:
            raise trio.EndOfChannel(f"cannot wait for {self!r}: {error.strerror}") from error


def event_pair(kind: NotifierKind | None = None) -> tuple[EventNotifier, EventConsumer]:
    """Two connected ends.

    Args:
        kind: what to make them of; None asks `default_kind`.

    Raises:
        OSError: this system cannot make an eventfd, or there is no free descriptor.
    """
    if (kind or default_kind()) is NotifierKind.EVENTFD:
        consumer = EventConsumer(Fd(_eventfd()))
        try:
            return EventNotifier(consumer.duplicate()), consumer
        except OSError:
            consumer.close()
            raise
    read_end, write_end = os.pipe()
    return EventNotifier(Fd(write_end)), EventConsumer(Fd(read_end))


def default_kind(environment: Mapping[str, str] = os.environ) -> NotifierKind:
    """The kind that ``VHOST_USER_NOTIFIER`` asks for, else an eventfd wherever one can be made.

    Raises:
        ValueError: the variable has another value than ``pipe`` or ``eventfd``.
    """
    asked_for = environment.get(ENVIRONMENT_VARIABLE)
    if asked_for:
        try:
            return NotifierKind(asked_for)
        except ValueError:
            raise ValueError(f"found {ENVIRONMENT_VARIABLE}={asked_for}, expected pipe or eventfd") from None
    try:
        os.close(_eventfd())
    except OSError as error:
        # The function may be there and the system call not: containers and filters take it away at run time.
        if error.errno != errno.ENOSYS:
            raise
        return NotifierKind.PIPE
    return NotifierKind.EVENTFD


def _eventfd() -> int:
    try:
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    except (AttributeError, OSError) as error:
        if getattr(error, "errno", errno.ENOSYS) != errno.ENOSYS:
            raise
        raise OSError(errno.ENOSYS, "this system has no eventfd: use pipes, which any POSIX system has") from None


def _allows(fd: Fd, access: int) -> bool:
    """Whether the open file permits reading (O_RDONLY) or writing (O_WRONLY)."""
    mode = fcntl.fcntl(fd.fileno(), fcntl.F_GETFL) & os.O_ACCMODE
    return mode in (access, os.O_RDWR)


def _check_adopted(fd: Fd, access: int | None, purpose: str) -> None:
    """Refuse, and close, what would only fail later, in the middle of a wait.

    The type bits of an eventfd are all zero, as those of every anonymous inode.
    """
    kind = stat.S_IFMT(os.fstat(fd.fileno()).st_mode)
    if kind not in (0, stat.S_IFIFO, stat.S_IFSOCK):
        found = "a file of another type"
    elif access is not None and not _allows(fd, access):
        found = "an end that is open for the other direction"
    else:
        return
    with fd:
        raise NotANotifier(f"found {found} ({stat.filemode(kind)}), expected an eventfd or a pipe to {purpose}")
