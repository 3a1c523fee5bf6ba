"""What a back-end does to the device's shared memory regions, replayed from what it said on its channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vhostuser.conformance import Failure
from vhostuser.wire.backend_messages import BackendShmemMap, BackendShmemUnmap
from vhostuser.wire.schema import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from frontend.conformance.session import Answer
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.records import ShmemMap


def messages_of(said: Iterable[Answer], *kinds: type[Message]) -> Iterator[tuple[Answer, Message]]:
    """Requests of these kinds among those that were said, in order, each as it came and as a message.

    Raises:
        Failure: one is malformed.
    """
    by_number = {int(kind.spec.request): kind for kind in kinds}
    for request in said:
        if (kind := by_number.get(request.request)) is not None:
            try:
                yield request, kind.parse(request.payload)
            except FormatError as error:
                raise Failure(f"{kind.spec.name}: {error}") from None


def maps_of(said: Iterable[Answer]) -> list[tuple[Answer, ShmemMap]]:
    """SHMEM_MAP and SHMEM_UNMAP, in order."""
    found: list[tuple[Answer, ShmemMap]] = []
    for request, message in messages_of(said, BackendShmemMap, BackendShmemUnmap):
        assert isinstance(message, BackendShmemMap | BackendShmemUnmap)
        found.append((request, message))
    return found


def in_words(told: ShmemMap) -> str:
    """Where in which region."""
    return f"{told.shm_offset:#x}+{told.len:#x} of region {told.shmid}"


@dataclass
class Regions:
    """The device's shared memory regions with what is mapped in them.

    Attributes:
        sizes: of all regions, by number; 0 is a region that is not there.
        mapped: what is.
    """

    sizes: Sequence[int]
    mapped: list[ShmemMap] = field(default_factory=list)

    def check_range(self, told: ShmemMap) -> None:
        """What is to be mapped lies in a region that there is.

        Raises:
            Failure: it does not.
        """
        size = self.sizes[told.shmid]
        if not told.len or told.shm_offset + told.len > size:
            raise Failure(f"SHMEM_MAP: found {in_words(told)}, expected a range within its {size:#x} bytes")

    def map(self, told: ShmemMap) -> None:
        """Something is mapped.

        Raises:
            Failure: over what is mapped already.
        """
        for old in self.mapped:
            apart = told.shm_offset + told.len <= old.shm_offset or old.shm_offset + old.len <= told.shm_offset
            if old.shmid == told.shmid and not apart:
                raise Failure(f"SHMEM_MAP: found {in_words(told)} over {in_words(old)}, expected no overlap")
        self.mapped.append(told)

    def unmap(self, told: ShmemMap) -> None:
        """Something is not mapped any more.

        Raises:
            Failure: it was not mapped as a whole.
        """
        for old in self.mapped:
            if (old.shmid, old.shm_offset, old.len) == (told.shmid, told.shm_offset, told.len):
                self.mapped.remove(old)
                return
        known = ", ".join(map(in_words, self.mapped)) or "nothing"
        raise Failure(f"SHMEM_UNMAP: found {in_words(told)}, expected one whole mapping of {known}")
