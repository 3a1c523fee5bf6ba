"""The kinds of memory and of notifiers there are, as parameters for tests.

Those that a system lacks are skipped there, with the reason.  What counts is what the kernel answers: a Python that
has ``os.eventfd`` may run where the call is missing, which is how ``tests/posix`` plays another system.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from vhostuser.fd import Fd
from vhostuser.memory.backends import MemoryBackendMemfd, MemoryBackendShm
from vhostuser.transport.notifier import NotifierKind

if TYPE_CHECKING:
    from collections.abc import Callable


def _is_missing(call: str, *arguments: object) -> bool:
    function: Callable[..., int] | None = getattr(os, call, None)
    if function is None:
        return True
    try:
        os.close(function(*arguments))
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return True
    return False


HAS_EVENTFD = not _is_missing("eventfd", 0)
needs_eventfd = pytest.mark.skipif(not HAS_EVENTFD, reason="this system has no eventfd")
needs_memfd = pytest.mark.skipif(_is_missing("memfd_create", "probe"), reason="this system has no memfd")

NOTIFIERS = [
    pytest.param(NotifierKind.EVENTFD, id="eventfd", marks=needs_eventfd),
    pytest.param(NotifierKind.PIPE, id="pipe"),
]
MEMORY_BACKENDS = [
    pytest.param(MemoryBackendShm, id="shm"),
    pytest.param(MemoryBackendMemfd, id="memfd", marks=needs_memfd),
]


def event() -> Fd:
    """A descriptor to signal or to wait for, whichever it is sent for; nobody else has it."""
    if HAS_EVENTFD:
        return Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    ends = os.pipe()
    try:
        # A pipe that is open in both directions; Linux allows that.
        return Fd(os.open(f"/proc/self/fd/{ends[0]}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    finally:
        for end in ends:
            os.close(end)
