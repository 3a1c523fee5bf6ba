"""Memory that is a file that lasts: how what was written to it becomes durable.

A store to a mapped file is in a cache; a loss of power forgets it.  Two ways lead to the medium:

* ``msync`` of the pages, for every file system.  The kernel writes data and metadata, and waits.
* On persistent memory with a DAX file system, a mapping made with MAP_SYNC has no metadata left to write: flushing the
  CPU's caches is enough, and no system call is needed.  libpmem does that (``pmem_persist``); it is loaded when it is
  installed.  Without MAP_SYNC it must not be used: the blocks that hold the bytes might not be in the file yet.

Order matters as much.  When the call returns the bytes are durable, so what must not be durable before them is
written after it.
"""

from __future__ import annotations

import ctypes
import functools
import warnings
from typing import TYPE_CHECKING

from vhostuser.memory.backends.errors import MemoryBackendWarning

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.memory.backends.mapping import Mapping


def make_durable(mapping: Mapping, offset: int, length: int) -> None:
    """Return when these bytes of a shared mapping survive a loss of power.

    Args:
        mapping: of a file.
        offset: of the first byte, in the mapping.
        length: bytes.

    Raises:
        OSError: the file system could not store them.
    """
    persist = pmem_persist() if mapping.synchronous else None
    if persist is not None:
        persist(mapping.address + offset, length)
    elif length:
        mapping.flush(offset, length)


@functools.cache
def pmem_persist() -> Callable[[int, int], object] | None:
    """libpmem's function of that name; None where it is not installed."""
    try:
        function = ctypes.CDLL("libpmem.so.1").pmem_persist
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    function.restype = None
    persist: Callable[[int, int], object] = function
    return persist


def warn_unless_synchronous(mapping: Mapping, title: str) -> None:
    """Say so when ``pmem=on`` got less than it asked for."""
    if not mapping.writable:
        return  # nothing can be written, so nothing need be durable
    if not mapping.shared:
        text = "with share=off what is written never reaches the file: set share=on"
    elif not mapping.synchronous:
        text = "its file system has no MAP_SYNC, so durability comes from msync: slower, and nothing else changes"
    else:
        return
    warnings.warn(f"{title}: property 'pmem=on': {text}", MemoryBackendWarning, stacklevel=4)
