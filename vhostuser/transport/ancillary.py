"""File descriptors beside bytes: one ``sendmsg`` and one ``recvmsg``, neither of which ever blocks.

SCM_RIGHTS has corners, and this file is where they are known:

- Descriptors travel with the first byte of a message.  Without a byte they do not travel at all.
- Too small a buffer, or no free number in this process (EMFILE), does not fail: what fits is delivered, the kernel
  closes the rest, and only MSG_CTRUNC says so.
- Received descriptors are inheritable unless one asks otherwise.  MSG_CMSG_CLOEXEC asks in the same step; macOS has
  no such flag, so what came without it is marked right after.
- macOS refuses a control pointer with length 0: without descriptors there must be no control argument at all.
- O_NONBLOCK belongs to the open file, which an adopted socket may share with another process that clears it.
  MSG_DONTWAIT is said per call and cannot be taken away.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from vhostuser.fd import NO_FDS, Fds

if TYPE_CHECKING:
    from collections.abc import Sequence

# Plain numbers: an operator of IntFlag is a Python function.
MSG_CMSG_CLOEXEC = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_MSG_DONTWAIT, _MSG_CTRUNC = int(socket.MSG_DONTWAIT), int(socket.MSG_CTRUNC)
_FD_SIZE = array.array("i").itemsize


class Received(NamedTuple):
    """What one ``recvmsg`` brought.  The receiver owns ``fds``."""

    data: bytes
    fds: Fds
    truncated: bool
    """Some descriptors were lost: there was no room for them, or no free number."""


def send_nowait(sock: socket.socket, data: memoryview, numbers: Sequence[int] = ()) -> int:
    """Send what the kernel takes now; the descriptors are duplicated into the message, and stay the caller's.

    Returns:
        Bytes taken, at least 1.  With the first of them went every descriptor.

    Raises:
        BlockingIOError: nothing was taken: no room now.
        OSError: nothing was taken.
    """
    if not numbers:
        return sock.sendmsg([data], [], _MSG_DONTWAIT)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))
    return sock.sendmsg([data], [rights], _MSG_DONTWAIT)


def receive_nowait(sock: socket.socket, size: int, max_fds: int) -> Received:
    """Take at most ``size`` bytes, and up to ``max_fds`` descriptors or a few more (alignment); no bytes: the end.

    Raises:
        BlockingIOError: nothing is there now.
        OSError: the connection failed.
    """
    space = socket.CMSG_SPACE(max_fds * _FD_SIZE)
    data, ancillary, flags, _ = _recvmsg(sock, size, space)
    if not ancillary:
        return Received(data, NO_FDS, bool(flags & _MSG_CTRUNC))
    numbers = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(content[: len(content) // _FD_SIZE * _FD_SIZE])
    fds = Fds.adopt(numbers)
    if not flags & MSG_CMSG_CLOEXEC:
        for fd in fds:
            os.set_inheritable(fd.fileno(), False)
    return Received(data, fds, bool(flags & _MSG_CTRUNC))


def _recvmsg(sock: socket.socket, size: int, space: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, object]:
    try:
        return sock.recvmsg(size, space, _MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
    except OSError as error:
        # Built where the flag exists, run where it does not: a refused flag takes nothing off the socket.
        if error.errno != errno.EINVAL:
            raise
    return sock.recvmsg(size, space, _MSG_DONTWAIT)
