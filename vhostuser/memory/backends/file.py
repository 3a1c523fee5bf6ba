"""memory-backend-file: memory that is a file, so it can be looked at, kept, shared, or made from a template.

Three switches decide what the guest and the file see of each other (``rom=auto`` is the value of ``readonly``):

========  ===  =====  =====================================================================================
readonly  rom  share
========  ===  =====  =====================================================================================
off       off  on     RAM, and writes reach the file: the only kind that a back-end can be given
off       off  off    RAM; writes are this process's own, the file stays as it is
on        on   any    ROM: nobody can write, the mapping has no PROT_WRITE
on        off  off    RAM made from a template: like the second, but the file need not be writable
off       on   any    refused: who can write the file could change the ROM
on        off  on     refused: writes would have to reach a file that is open for reading
========  ===  =====  =====================================================================================

A file that holds something is never resized: too small is an error, and of a larger one the rest is left alone.
"""

from __future__ import annotations

import os
import stat
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from vhostuser.memory.backends.allocation import MappedBackend
from vhostuser.memory.backends.base import SHARE
from vhostuser.memory.backends.errors import MemoryBackendError, MemoryBackendWarning
from vhostuser.memory.backends.mapping import Backing
from vhostuser.memory.backends.opening import device_limits, open_backing
from vhostuser.memory.backends.pages import page_size_of
from vhostuser.memory.backends.pmem import warn_unless_synchronous
from vhostuser.memory.backends.properties import SIZE, SWITCH, TEXT, OnOffAuto, about, choice

if TYPE_CHECKING:
    from contextlib import ExitStack

    from vhostuser.fd import Fd
    from vhostuser.memory.backends.mapping import Mapping


@dataclass(frozen=True, kw_only=True)
class MemoryBackendFile(MappedBackend):
    """Memory in a file.

    ``create``, ``exact-size`` and ``save`` are ours and not QEMU's; `pcram` sets all three.
    """

    type: ClassVar[str] = "memory-backend-file"

    share: bool = field(default=False, metadata=SHARE)
    mem_path: str = field(metadata=about(TEXT, "a file, made if missing, or a folder for a file without a name"))
    align: int = field(default=0, metadata=about(SIZE, "the mapping's address is a multiple of this"))
    offset: int = field(default=0, metadata=about(SIZE, "where in the file the memory begins"))
    discard_data: bool = field(default=False, metadata=about(SWITCH, "throw the contents away at the end"))
    pmem: bool = field(default=False, metadata=about(SWITCH, "the file is persistent memory: use MAP_SYNC"))
    readonly: bool = field(default=False, metadata=about(SWITCH, "open the file for reading only"))
    rom: OnOffAuto = field(
        default=OnOffAuto.AUTO, metadata=about(choice(OnOffAuto), "the guest sees ROM; auto: as readonly")
    )
    create: bool = field(default=True, metadata=about(SWITCH, "off: the file must be there"))
    exact_size: bool = field(default=False, metadata=about(SWITCH, "the file must end where the memory ends"))
    save: bool = field(default=True, metadata=about(SWITCH, "off: not in saved states, the file is the state"))

    @classmethod
    def pcram(cls, path: str, size: int, *, id: str = "pc.ram") -> Self:  # noqa: A002 -- the property's name
        """The guest's RAM is a given file: shared, of exactly this size, never made, and not saved elsewhere."""
        return cls(id=id, size=size, mem_path=path, share=True, create=False, exact_size=True, save=False)

    @property
    def is_rom(self) -> bool:
        """Whether the guest sees ROM."""
        return self.readonly if self.rom is OnOffAuto.AUTO else self.rom is OnOffAuto.ON

    @property
    def why_not_shareable(self) -> str | None:
        if self.readonly:
            seen = "the guest sees it as ROM" if self.is_rom else "it is private"
            return (
                f"{self.title} has readonly=on, so {seen} and its fd cannot be mapped for writing: set readonly=off"
                + ("" if self.share else " and share=on")
            )
        return super().why_not_shareable

    @property
    def lasting(self) -> bool:
        return self.share and not self.readonly

    @property
    def saved(self) -> bool:
        return self.save

    def _check(self) -> None:
        if not self.mem_path:
            raise MemoryBackendError(f"{self.title}: mem-path property not set: add mem-path=/some/file")
        if self.is_rom and not self.readonly:
            raise MemoryBackendError(
                f"{self.title}: property 'rom' = 'on' is not supported with 'readonly' = 'off': set readonly=on"
            )
        if self.readonly and self.share and not self.is_rom:
            raise MemoryBackendError(
                f"{self.title}: property 'rom' = 'off' is incompatible with 'readonly' = 'on' and 'share' = 'on': "
                "set share=off for private RAM, rom=on for ROM, or readonly=off for shared RAM"
            )
        if self.align & (self.align - 1) or self.align < 0:
            raise MemoryBackendError(f"{self.title}: property 'align' must be a power of two, found {self.align:#x}")
        if self.discard_data and not self.lasting:
            text = f"{self.title}: property 'discard-data=on' has no effect: the file is never written"
            warnings.warn(text, MemoryBackendWarning, stacklevel=3)

    def _open(self, undo: ExitStack) -> Backing:
        fd = open_backing(
            self.mem_path, self.id, readonly=self.readonly, create=self.create, private=not self.share, undo=undo
        )
        device_size, device_align = device_limits(fd)
        backing = Backing(
            fd=fd,
            page_size=page_size_of(fd),
            offset=self.offset,
            align=self.align or device_align,
            writable=not self.is_rom,
            synchronous=self.pmem,
            discard=self.discard_data and self.lasting,
        )
        self._check_whole_pages(backing)
        self._check_places(backing, device_align)
        self._give_size(fd, device_size)
        return backing

    def _complete(self, backing: Backing, mapping: Mapping) -> None:
        super()._complete(backing, mapping)
        if self.pmem:
            warn_unless_synchronous(mapping, self.title)

    def _check_places(self, backing: Backing, device_align: int) -> None:
        page = backing.page_size
        for name, value in (("align", self.align), ("offset", self.offset)):
            if value % page or value < 0:
                raise MemoryBackendError(
                    f"{self.title}: property '{name}' must be a multiple of the page size {page:#x}, found {value:#x}"
                )
        if 0 < self.align < device_align:
            raise MemoryBackendError(
                f"{self.title}: property 'align' is {self.align:#x}, the device wants {device_align:#x}: leave it out"
            )

    def _give_size(self, fd: Fd, device_size: int) -> None:
        """Accept the size that the file has, or give an empty one its size.  Anything else is refused."""
        status, needed = os.fstat(fd.fileno()), self.offset + self.size
        found = status.st_size if stat.S_ISREG(status.st_mode) else device_size
        wanted = f"'size' option {self.size:#x} plus 'offset' option {self.offset:#x}"
        if found == 0 and self.readonly:
            raise MemoryBackendError(
                f"{self.title}: backing store {self.mem_path} is empty, and readonly=on cannot give it {wanted}: "
                "fill it first, or set readonly=off"
            )
        if found == 0 and self.create:
            self._resize(fd, needed)
        elif self.exact_size and found != needed:
            raise MemoryBackendError(
                f"{self.title}: with exact-size=on backing store {self.mem_path} must have {wanted}, "
                f"found {found:#x}: set size to the file's size; the file is not resized"
            )
        elif found < needed:
            raise MemoryBackendError(
                f"{self.title}: backing store size {found:#x} is too small for {wanted}: "
                "a file that holds something is not resized, so enlarge it first or ask for less"
            )

    def _resize(self, fd: Fd, size: int) -> None:
        try:
            os.ftruncate(fd.fileno(), size)
        except (OSError, OverflowError) as error:
            raise MemoryBackendError(
                f"{self.title}: failed to resize backing store {self.mem_path} to {size:#x}: {error}"
            ) from error
