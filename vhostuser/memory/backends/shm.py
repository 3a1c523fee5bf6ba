"""memory-backend-shm: POSIX shared memory without a name.

``shm_open`` is the one way to shareable memory that every POSIX system has.  It insists on a name, and names are
trouble: others can open them, and they outlive a crash.  So the name is random, must be new (O_EXCL), and is removed
before anything else is done; the descriptor is all that remains, and whoever shall have the memory is sent it.

macOS decides the details: names of at most 31 bytes with the slash, a single ``ftruncate`` for the life of the object
and that before any mapping, no O_TRUNC.  Page-sized objects everywhere, because it would round up anyway.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import posix_ipc  # type: ignore[import-not-found]  # a C module without stubs

from vhostuser.fd import Fd
from vhostuser.memory.backends.allocation import MappedBackend
from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.mapping import Backing
from vhostuser.memory.backends.pages import round_up

if TYPE_CHECKING:
    from contextlib import ExitStack

NAME_LENGTH: Final = 30
"""Bytes of a name, with its slash; macOS takes one more."""


@dataclass(frozen=True, kw_only=True)
class MemoryBackendShm(MappedBackend):
    """Shared memory by ``shm_open`` and ``shm_unlink``: works on any POSIX system.

    ``share=off`` is refused: there is no private shm.
    """

    type: ClassVar[str] = "memory-backend-shm"

    def _check(self) -> None:
        if self.why_not_shareable is not None:
            raise MemoryBackendError(f"can't create shm backend with `share=off`: {self.why_not_shareable}")

    def _open(self, undo: ExitStack) -> Backing:
        return new_shared_memory(self.size, undo)


def new_shared_memory(size: int, undo: ExitStack) -> Backing:
    """Shared memory with ``size`` bytes in whole pages, and without a name; ``undo`` closes it.

    Raises:
        MemoryBackendError: the system refuses.
    """
    name = random_name()
    fd = undo.enter_context(open_nameless(name))
    backing = Backing(fd=fd, name=name)
    resize_once(fd, round_up(size, backing.page_size))
    return backing


def random_name() -> str:
    """A name that nobody can guess and every system takes."""
    # Not posix_ipc's own: that comes from rand(), seeded with the time.
    prefix = "/vhost-user-"
    return prefix + os.urandom((NAME_LENGTH - len(prefix)) // 2).hex()


def open_nameless(name: str) -> Fd:
    """Create shared memory and remove its name again; size 0 so far.

    Raises:
        MemoryBackendError: the system refuses.
    """
    try:
        # shm_open sets FD_CLOEXEC by itself (POSIX), and posix_ipc leaves closing the descriptor to us.
        fd = Fd(posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600).fd)
        try:
            posix_ipc.unlink_shared_memory(name)
        except BaseException:
            fd.close()
            raise
    except (OSError, posix_ipc.Error) as error:
        raise MemoryBackendError(f"failed to create POSIX shared memory: {error}") from error
    return fd


def resize_once(fd: Fd, size: int) -> None:
    """Give new shared memory its size, whole pages: the only ``ftruncate`` that macOS allows it.

    Raises:
        MemoryBackendError: the system refuses.
    """
    try:
        os.ftruncate(fd.fileno(), size)
    except (OSError, OverflowError) as error:
        raise MemoryBackendError(f"failed to resize POSIX shared memory to {size}: {error}") from error
