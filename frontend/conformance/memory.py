"""Guest memory under our control: regions wherever we want them, and watch kept over every byte beside the buffers.

Each buffer has canaries on both sides, and what lies in a file before or behind the region that is offered is filled
with a pattern.  `check` says whether any of that was written to: a back-end has no business there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from frontend.guest.memory import Buffer
from vhostuser.conformance import Failure
from vhostuser.fd import Fds
from vhostuser.memory.backends import MemoryBackendMemfd, MemoryBackendShm
from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.wire.frontend_messages import SetMemTable
from vhostuser.wire.records import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.conformance.session import Session
    from vhostuser.fd import Fd
    from vhostuser.memory.backends import MemoryBlock

PAGE = 4096
CANARY = 32
PATTERN = 0xC5
USER_BASE = 0x7F00_0000_0000
"""User addresses begin far from guest addresses: whoever mixes the two up is found out."""


@dataclass(frozen=True, slots=True)
class Span:
    """A region to be.

    Attributes:
        guest_addr: where it begins for the guest.
        size: bytes.
        user_addr: where it begins for us, as we tell; None for far away from ``guest_addr``.
        offset: where it begins in its file.
        behind: bytes of the file behind it.
    """

    guest_addr: int
    size: int
    user_addr: int | None = None
    offset: int = 0
    behind: int = 0


DEFAULT = (Span(0x10_0000, 4 << 20, offset=PAGE, behind=PAGE),)


class SharedMemory:
    """The guest's memory, one file a region.

    Args:
        spans: the regions; by default one of 4 MiB.
        shm: take POSIX shared memory instead of what `MemoryBackendMemfd` makes.

    Attributes:
        regions: as they go into SET_MEM_TABLE.
        home: number of the region that buffers come from, if nothing else is said.
    """

    def __init__(self, *spans: Span, shm: bool = True) -> None:
        spans = spans or DEFAULT
        self.home = 0
        self._spans = spans
        self._blocks: list[MemoryBlock] = []
        self._files: list[memoryview] = []
        try:
            for span in spans:
                size = -(-(span.offset + span.size + span.behind) // PAGE) * PAGE
                backend = MemoryBackendShm(size=size) if shm else MemoryBackendMemfd(size=size, seal=False)
                self._blocks.append(backend.allocate())
                self._files.append(self._blocks[-1].view)
        except BaseException:
            self.close()
            raise
        self.regions = tuple(
            MemoryRegion(
                span.guest_addr,
                span.size,
                USER_BASE + span.guest_addr if span.user_addr is None else span.user_addr,
                span.offset,
            )
            for span in spans
        )
        for span, file in zip(spans, self._files, strict=True):
            file[: span.offset] = bytes([PATTERN]) * span.offset
            file[span.offset + span.size :] = bytes([PATTERN]) * (len(file) - span.offset - span.size)
        self._views = [file[s.offset : s.offset + s.size] for s, file in zip(spans, self._files, strict=True)]
        self.guest = GuestMemory.of(*zip(self.regions, self._views, strict=True))
        self._next = [region.guest_addr for region in self.regions]
        self._buffers: list[tuple[Buffer, memoryview, memoryview]] = []

    # --- for messages ---

    def fd(self, index: int = 0) -> Fd:
        """A duplicate of a region's descriptor; the caller owns it."""
        return self._blocks[index].fd.duplicate()

    def fds(self) -> Fds:
        """One descriptor per region, in order; the caller owns them."""
        return Fds(self.fd(index) for index in range(len(self._blocks)))

    async def share(self, session: Session) -> None:
        """SET_MEM_TABLE with all regions, which has to be accepted."""
        await session.tell(SetMemTable(self.regions), self.fds())

    # --- for buffers ---

    def user_addr(self, addr: int) -> int:
        """The user address of a guest address, as we told it."""
        region = next(each for each in self.regions if 0 <= addr - each.guest_addr < each.size)
        return region.user_addr + addr - region.guest_addr

    def view(self, addr: int, length: int) -> memoryview:
        """The bytes at a guest address, within one region."""
        return self.guest.view(GuestAddr(addr), length)

    def at(self, addr: int, length: int) -> Buffer:
        """A buffer at a guest address of the caller's choice, without canaries."""
        return Buffer(GuestAddr(addr), self.user_addr(addr), self.view(addr, length))

    def buffer(self, data: bytes | int, *, align: int = 16, region: int | None = None) -> Buffer:
        """A new buffer with canaries on both sides, with ``data`` in it or of that many bytes.

        Raises:
            MemoryError: the region is full.
        """
        length = data if isinstance(data, int) else len(data)
        region = self.home if region is None else region
        start = -(-(self._next[region] + CANARY) // align) * align
        end = start + length + CANARY
        if end > self.regions[region].guest_addr + self.regions[region].size:
            raise MemoryError(f"region {region} is full: make it larger")
        self._next[region] = end
        before, behind = self.view(start - CANARY, CANARY), self.view(start + length, CANARY)
        before[:] = behind[:] = bytes([PATTERN]) * CANARY
        buffer = self.at(start, length) if length else Buffer(GuestAddr(start), self.user_addr(start), memoryview(b""))
        if not isinstance(data, int):
            buffer.view[:] = data
        self._buffers.append((buffer, before, behind))
        return buffer

    def skip_to(self, addr: int, *, region: int = 0) -> None:
        """Take the next buffers of a region from ``addr`` on."""
        self._next[region] = max(self._next[region], addr)

    def check(self) -> None:
        """Has the back-end kept to its buffers?

        Raises:
            Failure: no; says where it wrote.
        """
        pattern = bytes([PATTERN])
        for buffer, before, behind in self._buffers:
            for name, canary in (("before", before), ("behind", behind)):
                if bytes(canary) != pattern * CANARY:
                    raise Failure(f"bytes {name} the buffer {buffer.addr:#x}+{len(buffer)} were written to")
        for span, file in zip(self._spans, self._files, strict=True):
            for name, part in (("before", file[: span.offset]), ("behind", file[span.offset + span.size :])):
                if bytes(part) != pattern * len(part):
                    raise Failure(f"bytes of the file {name} the region at {span.guest_addr:#x} were written to")

    def snapshot(self) -> Sequence[bytes]:
        """A copy of all regions, to compare with later."""
        return [bytes(view) for view in self._views]

    def close(self) -> None:
        """Close the descriptors; views keep their mappings until they are dropped."""
        for block in self._blocks:
            block.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
