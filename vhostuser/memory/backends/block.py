"""What a memory backend makes: a block of guest memory, and what can be done with it as long as it lives."""

from __future__ import annotations

import mmap
import os
import stat
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from vhostuser.memory.backends import prealloc
from vhostuser.memory.backends.advice import advise
from vhostuser.memory.backends.errors import MemoryBackendError, MemoryBackendWarning
from vhostuser.memory.backends.pmem import make_durable
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from vhostuser.fd import Fd
    from vhostuser.memory.backends.base import MemoryBackend
    from vhostuser.memory.backends.mapping import Backing, Mapping
    from vhostuser.memory.guard import Watch


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryBlock:
    """Memory that a backend made: a view to work with and, if there is a file behind it, its descriptor.

    Closing it closes the descriptor.  The mapping goes with its last view, wherever that is.

    Attributes:
        backend: what it was made from.
        backing: what was opened for it; its descriptor is owned here.
        mapping: how it is mapped.
        watch: what the SIGBUS guard knows about it; None for memory that nobody else can cut short.
    """

    backend: MemoryBackend
    backing: Backing
    mapping: Mapping
    watch: Watch | None = None

    @property
    def view(self) -> memoryview:
        """All bytes of the guest's memory; read-only if the guest sees them as ROM."""
        return self.mapping.view

    @property
    def fd(self) -> Fd:
        """What the memory can be mapped by, still owned here: duplicate it to give it away.

        Raises:
            MemoryBackendError: it is anonymous memory, which has no descriptor; says what to change.
        """
        if self.backing.fd is None:
            raise MemoryBackendError(self.backend.why_not_shareable)
        return self.backing.fd

    @property
    def mmap_offset(self) -> int:
        """Where in the file the memory begins; bytes."""
        return self.backing.offset

    @property
    def name(self) -> str:
        """What it was called for an instant, before the name was removed; empty if it never had one."""
        return self.backing.name

    @property
    def size(self) -> int:
        """Bytes."""
        return self.backend.size

    @property
    def shareable(self) -> bool:
        """Whether a back-end can be given this memory; ``backend.why_not_shareable`` has the reason."""
        return self.backend.shareable

    @property
    def damaged(self) -> bool:
        """Whether its file was cut short and the SIGBUS guard put zeros in: then stop using it."""
        return self.watch is not None and self.watch.damaged

    def check(self) -> None:
        """Look whether all of the memory is still there.

        Raises:
            MemoryBackendError: its file was cut short; says by how much.
        """
        if self.backing.fd is None:
            return
        status, needed = os.fstat(self.backing.fd.fileno()), self.mmap_offset + self.size
        if stat.S_ISREG(status.st_mode) and (status.st_size < needed or self.damaged):
            raise MemoryBackendError(
                f"{self.backend.title}: its file was cut short after it was mapped: "
                f"it has {status.st_size:#x} bytes and needs {needed:#x}; what the guest had there is lost"
            )

    def persist(self, offset: int = 0, length: int | None = None) -> bool:
        """Make durable what this process wrote: when it returns, the bytes survive a loss of power.

        Whoever writes to a block on the guest's behalf (loading, restoring) calls this afterwards, whatever the block.

        Args:
            offset: of the first byte, in the block.
            length: bytes; all that follow if left out.

        Returns:
            False if there is nothing to make durable, for the memory does not last or writes do not reach its file.

        Raises:
            MemoryBackendError: the range is not in the block, the file was cut short, or it could not be stored.
        """
        length = self.size - offset if length is None else length
        if offset < 0 or length < 0 or offset + length > self.size:
            raise MemoryBackendError(
                f"{self.backend.title}: {length:#x} bytes at offset {offset:#x} are not in its {self.size:#x} bytes"
            )
        if not self.backend.lasting:
            return False
        self.check()
        try:
            make_durable(self.mapping, offset, length)
        except OSError as error:
            raise MemoryBackendError(
                f"{self.backend.title}: cannot make {length:#x} bytes at offset {offset:#x} durable: {error}"
            ) from error
        return True

    def preallocate(self) -> None:
        """Have all pages now: what ``prealloc=on`` does, at any later time.

        Raises:
            MemoryBackendError: there is no room for all of them.
        """
        self.check()
        prealloc.preallocate(self.backing, self.mapping, self.backend.prealloc_threads, self.backend.title)

    def set_merge(self, on: bool) -> None:
        """Change what the property ``merge`` said.

        Raises:
            MemoryBackendError: the host cannot.
        """
        advise(self.mapping, "merge", on, self.backend.title)

    def set_dump(self, on: bool) -> None:
        """Change what the property ``dump`` said.

        Raises:
            MemoryBackendError: the host cannot.
        """
        advise(self.mapping, "dump", on, self.backend.title)

    def describe(self) -> str:
        """One line for people: kind, properties, descriptor, and how many names the file still has."""
        share = "on" if self.backend.share else "off"
        return f"{self.backend.type},id={self.backend.id},size={format_size(self.size)},share={share} ({self._state()})"

    def close(self) -> None:
        """Close the descriptor; once is enough.  With ``discard-data=on`` the contents are gone as well."""
        fd = self.backing.fd
        if fd is not None and not fd.closed:
            if self.backing.discard:
                self._discard()
            fd.close()

    def _state(self) -> str:
        fd = self.backing.fd
        if fd is None:
            return "no fd"
        return "closed" if fd.closed else f"fd {fd.fileno()}, {os.fstat(fd.fileno()).st_nlink} names"

    def _discard(self) -> None:
        try:
            self.mapping.advise(mmap.MADV_REMOVE)
        except OSError as error:  # the memory is not needed any more, so it is no reason to fail
            text = f"{self.backend.title}: discard-data=on did not discard its contents: {error}"
            warnings.warn(text, MemoryBackendWarning, stacklevel=3)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
