"""A raw image that is mapped: a block is a copy in memory, twice as fast as a system call that does it.

What it costs: a page that is not in memory is fetched by whoever touches it, and nobody can ask before whether that
would wait.  An error of the disk, or a file that somebody cut short, is a SIGBUS and no error code.  With the guard of
`vhostuser.memory.guard` installed this process survives that, and every later request is an I/O error.
"""

from __future__ import annotations

import errno
import mmap
from typing import TYPE_CHECKING

from vhostuser.devices.blk.storage import Backing, FileStorage
from vhostuser.memory import guard
from vhostuser.memory.guard import REPAIRS

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.schema import Buffer


class MappedStorage(FileStorage):
    """As `FileStorage`, read and written through a mapping of the whole file.

    Args:
        path: the file; not empty.
        read_only: open and map it for reading only.

    Raises:
        OSError: it cannot be opened or mapped.
        ValueError: it is empty.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self._access = mmap.ACCESS_READ if read_only else mmap.ACCESS_WRITE
        self._view = memoryview(b"")
        self._watch: guard.Watch | None = None
        super().__init__(path, read_only=read_only)

    def refresh(self) -> int:
        size = super().refresh()
        if size > len(self._view):
            # Not closed: whoever works with the old mapping holds a view, and it goes with the last of them.
            mapping = mmap.mmap(self._fd.fileno(), size, access=self._access)
            self._view, self._watch = memoryview(mapping), guard.watch(mapping)
        return size

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        for view in views:
            view[:] = self._part(offset, len(view))
            offset += len(view)
        self._check()

    def read_frame(self, offset: int, chain: Chain, length: int, nowait: bool) -> None:
        if offset + length > len(self._view):
            raise self._short()
        chain.fill(self._view[offset : offset + length])
        if REPAIRS[0]:
            self._check()

    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        self._check()
        for view in views:
            self._part(offset, len(view))[:] = view
            offset += len(view)
        self._check()

    def backing(self) -> Backing:
        return Backing(buffer=self._view)

    def close(self) -> None:
        self._view = memoryview(b"")
        super().close()

    def _part(self, offset: int, length: int) -> memoryview:
        if offset + length > len(self._view):
            raise self._short()
        return self._view[offset : offset + length]

    def _short(self) -> OSError:
        return OSError(errno.EIO, f"image ends at byte {len(self._view)}")

    def _check(self) -> None:
        if self._watch is not None and self._watch.damaged:
            raise OSError(errno.EIO, "the image was cut short, or its disk failed, while it was mapped")
