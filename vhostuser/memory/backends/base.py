"""What all memory backends have in common: the properties.

A backend is a description (frozen: its properties cannot change once somebody allocated from it); `allocate` makes
the memory.  Names, defaults and the wording of errors are QEMU's, so that its users know them already; where QEMU's
sentence leaves one wondering what to do, a second half says it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

from vhostuser.memory.backends.errors import MemoryBackendError
from vhostuser.memory.backends.properties import (
    NODES,
    NUMBER,
    SIZE,
    SWITCH,
    HostMemPolicy,
    about,
    choice,
    properties_of,
)

if TYPE_CHECKING:
    from vhostuser.memory.backends.block import MemoryBlock

SHARE: Final = about(SWITCH, "whether a write to the memory is seen by everybody who maps its fd")
"""The metadata of ``share``, for kinds with another default."""

_ID: Final = re.compile(r"[a-z][a-z0-9._-]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class MemoryBackend(ABC):
    """Where a piece of guest memory comes from.

    The fields are QEMU's properties, each with its meaning; `id` is what other objects call it.

    Raises:
        MemoryBackendError: a property has a value that it cannot have.
    """

    type: ClassVar[str]
    """QEMU's name for this kind: ``memory-backend-shm`` and so on."""

    id: str = "mem0"
    size: int = field(metadata=about(SIZE, "the guest sees exactly these bytes"))
    share: bool = field(default=True, metadata=SHARE)
    prealloc: bool = field(default=False, metadata=about(SWITCH, "take all pages at once, or fail"))
    prealloc_threads: int = field(default=1, metadata=about(NUMBER, "how many threads work at prealloc"))
    reserve: bool = field(default=True, metadata=about(SWITCH, "off: have the kernel promise without counting"))
    merge: bool = field(default=False, metadata=about(SWITCH, "let the kernel merge equal pages (private memory)"))
    dump: bool = field(default=True, metadata=about(SWITCH, "off: leave the memory out of core dumps"))
    host_nodes: tuple[int, ...] = field(default=(), metadata=about(NODES, "NUMA nodes, with policy; may be repeated"))
    policy: HostMemPolicy = field(
        default=HostMemPolicy.DEFAULT, metadata=about(choice(HostMemPolicy), "how host-nodes are used")
    )

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise MemoryBackendError(
                f"parameter 'id' of {self.type} expects a letter, then letters, digits, '-', '.' or '_', "
                f"found {self.id!r}"
            )
        self._refuse_zero("size", self.size)
        self._refuse_zero("prealloc-threads", self.prealloc_threads)
        if self.prealloc and not self.reserve:
            raise MemoryBackendError(
                f"{self.title}: 'prealloc=on' and 'reserve=off' are incompatible: leave one of them out"
            )

    @abstractmethod
    def allocate(self) -> MemoryBlock:
        """Make the memory.  Nothing of it is left in any name space, and nothing at all when this fails.

        Raises:
            MemoryBackendError: the properties do not go together, or the system refuses.
        """

    @property
    def title(self) -> str:
        """How error messages name it."""
        return f"{self.type} {self.id}"

    @property
    def why_not_shareable(self) -> str | None:
        """Why no back-end can be given this memory, and what to change; None when one can.

        QEMU sends a file mapped privately to its back-ends all the same, and both sides then see different memory
        without knowing it.
        """
        return None if self.share else f"{self.title} has share=off: set share=on"

    @property
    def shareable(self) -> bool:
        """Whether a back-end can be given this memory."""
        return self.why_not_shareable is None

    @property
    def lasting(self) -> bool:
        """Whether what is written to the memory is still there when all processes are gone."""
        return False

    @property
    def saved(self) -> bool:
        """Whether the memory is part of a saved state; memory that is a file by itself need not be."""
        return True

    def to_option(self) -> str:
        """The option string that `parse_object` makes an equal backend of; defaults are left out."""
        given = [self.type, f"id={self.id}"]
        for name, prop in properties_of(self).items():
            value = getattr(self, prop.field)
            if value != prop.default:
                given += [f"{name}={text}".replace(",", ",,") for text in prop.write(value)]
        return ",".join(given)

    def _refuse_zero(self, name: str, value: int | None) -> None:
        if value is not None and value <= 0:
            raise MemoryBackendError(f"property '{name}' of {self.type} doesn't take value '{value}'")
