"""memory-backend-ram: memory that is nothing but memory.

With ``share=off``, the default, it is anonymous and has no descriptor, so no other process can have it.  With
``share=on`` it needs one: a memfd where there are any, else POSIX shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from vhostuser.memory.backends.allocation import MappedBackend
from vhostuser.memory.backends.base import SHARE
from vhostuser.memory.backends.mapping import Backing
from vhostuser.memory.backends.memfd import NoMemfdError, create_memfd, resize
from vhostuser.memory.backends.pages import round_up
from vhostuser.memory.backends.shm import new_shared_memory

if TYPE_CHECKING:
    from contextlib import ExitStack


@dataclass(frozen=True, kw_only=True)
class MemoryBackendRam(MappedBackend):
    """Memory for the guest alone, unless ``share=on``."""

    type: ClassVar[str] = "memory-backend-ram"

    share: bool = field(default=False, metadata=SHARE)

    @property
    def why_not_shareable(self) -> str | None:
        return None if self.share else f"{self.title} has share=off, so it has no fd to share: set share=on"

    def _open(self, undo: ExitStack) -> Backing:
        if not self.share:
            return Backing(fd=None)
        try:
            fd = undo.enter_context(create_memfd(self.id))
        except NoMemfdError:
            return new_shared_memory(self.size, undo)
        backing = Backing(fd=fd)
        resize(fd, round_up(self.size, backing.page_size))
        return backing
