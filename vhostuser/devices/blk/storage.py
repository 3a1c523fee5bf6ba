"""Where a block device keeps its bytes.

Every operation takes memoryviews of guest memory and hands them to the kernel (``preadv``, ``pwritev``), so data is
not copied through Python, and guest memory that a front-end cut short gives EFAULT instead of a signal.

An operation that might wait for a disk must not run on trio's thread.  Most do not wait: the page cache has the block
already.  So each is tried with ``nowait=True`` first, and `WouldBlock` says that it has to be repeated on a thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vhostuser.errors import VhostUserError
from vhostuser.fd import Fd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.schema import Buffer

IOV_MAX = 1024
_ZEROES = bytes(1 << 16)
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


class WouldBlock(VhostUserError):
    """The operation might wait for a disk; repeat it with ``nowait=False`` where waiting is allowed."""


@dataclass(frozen=True)
class Backing:
    """What a compiled loop can work on without asking: one of the three.

    Attributes:
        fd: a file to ``preadv`` and ``pwritev``, whose owner keeps it open; -1 for none.
        buffer: bytes to copy.
        null: reads and writes do nothing at all.
    """

    fd: int = -1
    buffer: memoryview | None = None
    null: bool = False


class Storage(ABC):
    """A row of bytes that can be read and written at any offset; all lengths and offsets are in bytes."""

    size: int

    @abstractmethod
    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        """Fill ``views`` from ``offset`` on.

        Raises:
            WouldBlock: only with ``nowait``.
            OSError: the bytes could not be had.
        """

    @abstractmethod
    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        """Store ``views`` from ``offset`` on.  Raises as `read` does."""

    def read_frame(self, offset: int, chain: Chain, length: int, nowait: bool) -> None:
        """As `read`, into the frame of a chain (`Chain.frame`), which wants ``length`` bytes.

        For a storage that need not make views for that; one that changes `read` changes this as well.
        """
        self.read(offset, chain.datain(), nowait=nowait)

    @abstractmethod
    def flush(self) -> None:
        """Make everything written before durable.  May wait."""

    def discard(self, offset: int, length: int) -> None:
        """These bytes are of no interest any more; what they read as afterwards is undefined.  May wait."""

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        """Make these bytes read as zero; with ``unmap`` the space may be given back.  May wait."""
        for start in range(offset, offset + length, len(_ZEROES)):
            self.write(start, [_ZEROES[: offset + length - start]], nowait=False)

    def refresh(self) -> int:
        """Look at the size again, and return it: somebody may have made the storage larger."""
        return self.size

    def backing(self) -> Backing | None:
        """What a compiled loop may use instead of `read` and `write`; None where it has to ask."""
        return None

    def close(self) -> None:
        """Give back what is held."""


class MemoryStorage(Storage):
    """A disk that lives in memory and is gone with the process."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._data = memoryview(bytearray(size))

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        for view in views:
            view[:] = self._data[offset : offset + len(view)]
            offset += len(view)

    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        for view in views:
            self._data[offset : offset + len(view)] = view
            offset += len(view)

    def flush(self) -> None:
        pass

    def backing(self) -> Backing:
        return Backing(buffer=self._data)


class NullStorage(Storage):
    """A disk that keeps nothing and answers at once: what is left is the price of the ring."""

    def __init__(self, size: int) -> None:
        self.size = size

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        pass

    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        pass

    def flush(self) -> None:
        pass

    def backing(self) -> Backing:
        return Backing(null=True)


class FileStorage(Storage):
    """A raw image file or block device.

    Args:
        path: the file.
        read_only: open it for reading only.
        inline_writes: write with ``nowait`` even where the file system cannot promise not to wait.

    Reads can be tried safely: RWF_NOWAIT says so when the page cache has not got the bytes.  For writes ext4 and
    others do not know it, and each then takes a thread.  A write into the page cache rarely waits; but when it does
    (too many dirty pages, a journal that commits), for milliseconds or seconds, everything on trio's thread waits as
    well.  So nobody gets that who did not ask for it: twice the writes at depth 1, 1.8 times at depth 32.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False, inline_writes: bool = False) -> None:
        self._inline_writes = inline_writes
        self._fd = Fd(os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC))
        self.size = 0
        self.refresh()

    def refresh(self) -> int:
        # lseek, not fstat: a block device has a size too.
        self.size = os.lseek(self._fd.fileno(), 0, os.SEEK_END)
        return self.size

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        self._all(os.preadv, offset, views, _nowait_flags() if nowait else 0)

    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        flags = _nowait_flags() if nowait and not self._inline_writes else 0
        self._all(os.pwritev, offset, [memoryview(view) for view in views], flags)

    def flush(self) -> None:
        getattr(os, "fdatasync", os.fsync)(self._fd.fileno())

    def discard(self, offset: int, length: int) -> None:
        _punch_hole(self._fd.fileno(), offset, length)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        if not (unmap and _punch_hole(self._fd.fileno(), offset, length)):
            super().write_zeroes(offset, length, unmap=unmap)

    def backing(self) -> Backing:
        return Backing(fd=self._fd.fileno())

    def close(self) -> None:
        self._fd.close()

    def _all(self, move: _Move, offset: int, views: Sequence[memoryview], flags: int) -> None:
        fd, left = self._fd.fileno(), len(views[0]) if len(views) == 1 else sum(map(len, views))
        try:
            while left:
                done = move(fd, views[:IOV_MAX], offset, flags)
                if done == left:
                    return  # nearly always, and at once
                if done == 0:
                    raise OSError(errno.EIO, f"image has nothing at byte {offset}, {left} bytes were wanted")
                offset, left, views = offset + done, left - done, _behind(views, done)
        except OSError as error:
            # EAGAIN: not in the page cache.  EOPNOTSUPP: this file system does not know RWF_NOWAIT (for writes, say).
            if flags and error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                raise WouldBlock(str(error)) from error
            raise


if TYPE_CHECKING:
    from collections.abc import Callable

    _Move = Callable[[int, Sequence[memoryview], int, int], int]


def _nowait_flags() -> int:
    if not _NOWAIT:
        raise WouldBlock("this system cannot say whether a read would wait")
    return _NOWAIT


def _behind(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """What is left of ``views`` after their first ``count`` bytes."""
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]]
        count -= len(view)
    return []


def _punch_hole(fd: int, offset: int, length: int) -> bool:
    """Give the space back; False where the system or the file system cannot."""
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None:
        return False
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, offset, length) == 0)
