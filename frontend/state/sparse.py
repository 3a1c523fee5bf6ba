"""Going through memory or a file in chunks, without those that are holes.

A system that can tell where a file has holes is asked (Linux: SEEK_DATA): then 64 GiB of memory of which the guest has
touched one are read in the time of one, and stay untouched.  That is worth something, because merely reading a hole of
shared memory allocates its pages.  Where the question cannot be asked (macOS lets nobody seek shared memory) all of it
counts as data, is read and compared with zeros; the outcome is the same.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Final

from frontend.state.layout import CHUNK_SIZE, chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from vhostuser.fd import Fd

    Progress: TypeAlias = Callable[[int, int], object]

CAN_ASK: Final = sys.platform == "linux"


class Done:
    """Counts what is done of several blocks, for whoever wants to know.

    Args:
        progress: called with the bytes done so far and with all of them.
        total: bytes of all blocks.
    """

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._before = 0

    def reached(self, position: int) -> None:
        """All before ``position`` in the block of now is done."""
        if self._progress is not None:
            self._progress(self._before + position, self._total)

    def finished(self, size: int) -> None:
        """The block of now, of ``size`` bytes, is done."""
        self.reached(size)
        self._before += size


def data_chunks(fd: Fd | None, begin: int, size: int) -> Iterator[int]:
    """Numbers of the chunks that hold data, ascending; the others are zero.

    Args:
        fd: of a file that holds still; None for memory without one, where every chunk counts.
        begin: where in the file the first chunk begins.
        size: bytes of all chunks.
    """
    following = 0
    for start, end in data_in(fd, begin, begin + size):
        following = max(following, (start - begin) // CHUNK_SIZE)
        yield from range(following, chunks(end - begin))
        following = max(following, chunks(end - begin))


def data_in(fd: Fd | None, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Ranges of a file, from ``begin`` to before ``end``, that hold data; what lies between them reads as zero.

    Moves the descriptor's offset, which is nobody's business with memory.

    Args:
        fd: of a file that holds still; None for memory that has none, where all counts as data.
        begin: offset of the first byte of interest.
        end: offset behind the last.
    """
    position = begin
    while position < end:
        found = _next_data(fd, position, end)
        if found is None:
            return
        yield found
        position = found[1]


def _next_data(fd: Fd | None, position: int, end: int) -> tuple[int, int] | None:
    if fd is None or not CAN_ASK:
        return position, end
    try:
        data = os.lseek(fd.fileno(), position, os.SEEK_DATA)
        hole = os.lseek(fd.fileno(), data, os.SEEK_HOLE)
    except OSError as error:
        # ENXIO: nothing but a hole follows.  Anything else: a device, hugetlbfs, a file system that does not know.
        return None if error.errno == errno.ENXIO else (position, end)
    return (data, min(hole, end)) if data < end else None
