"""From properties to memory: the way that all kinds of backends go.

The order is QEMU's: open, map, advise, bind to NUMA nodes, preallocate.  Whatever fails, all that was done before is
undone: descriptors are closed, files that were made are removed, memory is unmapped.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass

from vhostuser.memory import guard
from vhostuser.memory.backends import numa, prealloc
from vhostuser.memory.backends.advice import advise
from vhostuser.memory.backends.base import MemoryBackend
from vhostuser.memory.backends.block import MemoryBlock
from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.mapping import Backing, Mapping


@dataclass(frozen=True, kw_only=True)
class MappedBackend(MemoryBackend):
    """A backend whose memory is something that is opened and then mapped; a kind says what that is."""

    def allocate(self) -> MemoryBlock:
        self._check()
        numa.check_nodes(self.host_nodes, self.policy, self.title)
        with ExitStack() as undo:
            backing = self._open(undo)
            mapping = self._map(backing)
            # Nobody has a view yet, so this is safe; and who keeps the error must not keep the memory with it.
            undo.callback(mapping.owner.close)
            self._complete(backing, mapping)
            undo.pop_all()  # it is the block's now
        watch = guard.watch(mapping.owner) if backing.fd is not None else None
        return MemoryBlock(backend=self, backing=backing, mapping=mapping, watch=watch)

    def _check_whole_pages(self, backing: Backing) -> None:
        """Refuse a size with part of a page, before anything is given that size."""
        if self.size % backing.page_size:
            raise MemoryBackendError(
                f"backend '{self.type}' memory size must be multiple of {backing.page_size:#x}, found {self.size:#x}"
            )

    def _check(self) -> None:
        """Refuse properties that do not go together; for kinds that have such."""

    @abstractmethod
    def _open(self, undo: ExitStack) -> Backing:
        """Get hold of what will be mapped; register with ``undo`` how to let go of it."""

    def _map(self, backing: Backing) -> Mapping:
        if not self.reserve:
            prealloc.check_reserve_off(backing, share=self.share, title=self.title)
        return Mapping.make(backing, self.size, share=self.share, reserve=self.reserve)

    def _complete(self, backing: Backing, mapping: Mapping) -> None:
        if self.merge:
            advise(mapping, "merge", True, self.title)
        if not self.dump:
            advise(mapping, "dump", False, self.title)
        numa.bind(mapping, self.host_nodes, self.policy, self.title)
        if self.prealloc:
            prealloc.preallocate(backing, mapping, self.prealloc_threads, self.title)
