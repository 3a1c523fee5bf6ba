"""`GuestRam`: blocks of memory laid out at guest addresses, and a small allocator for rings and buffers in them.

Three numbers name the same byte, and they are never mixed: its *guest address* (in descriptors), its *user address*
(in ring addresses: here, as in QEMU, where the byte lies in this process) and its *offset* in the descriptor that the
back-end maps.

A guest can have more memory than a back-end may see.  ROM is not offered, because a back-end maps everything writable;
private memory is not, because the back-end would map something else and neither side would notice.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

from frontend.guest.layout import Place, Span, lay_out
from vhostuser.errors import VhostUserError
from vhostuser.fd import Fds
from vhostuser.memory.address import address_of
from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.wire.records import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from vhostuser.memory.backends import MemoryBackend, MemoryBlock

FIRST_ADDR = 1 << 20
"""Guest address of the first block: not 0, so that an address somebody forgot to fill in is seen to be wrong."""


class NotShareable(VhostUserError, ValueError):
    """Nothing of this guest's memory can be shared with a back-end."""


class OutOfGuestMemory(VhostUserError, MemoryError):
    """No room in guest memory for a buffer of this size."""


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """A piece of guest memory.

    Attributes:
        addr: guest address, for descriptors.
        user_addr: user address, for ring addresses.
        view: the bytes.
    """

    addr: GuestAddr
    user_addr: int
    view: memoryview

    def __len__(self) -> int:
        return len(self.view)


@dataclass(frozen=True, slots=True, eq=False)
class GuestBlock:
    """A range of guest addresses and the memory there; a block that was split is several of these.

    Attributes:
        guest_addr: where it begins for the guest.
        view: its bytes, as this process may use them.
        offset: where it begins in the memory that it is a piece of.
        memory: that memory; still owned by the `GuestRam`.
        rom: the guest's writes are not to reach it.
        why_not_offered: why no back-end is offered it, and what to change; None when one is.
    """

    guest_addr: GuestAddr
    view: memoryview
    offset: int
    memory: MemoryBlock
    rom: bool
    why_not_offered: str | None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.view.nbytes

    def region(self) -> MemoryRegion:
        """What a memory table says about it."""
        return MemoryRegion(self.guest_addr, self.size, address_of(self.view), self.memory.mmap_offset + self.offset)

    @classmethod
    def of(cls, span: Span, place: Place, memory: MemoryBlock) -> GuestBlock:
        """The piece ``span`` of ``memory``, which was made for ``place``."""
        view = memory.view[span.offset : span.offset + span.size]
        return cls(span.guest_addr, view, span.offset, memory, place.rom or view.readonly, place.why_not_offered)


class GuestRam:
    """Guest memory: by default RAM from `FIRST_ADDR` on, with a PC's hole below 4 GiB.

    Owns the blocks' descriptors until `close`; the mappings live as long as somebody holds a view of them.

    Args:
        backends: where each block comes from; a `Place` also says at which guest address, and whether it is ROM.

    Attributes:
        blocks: the memory, one for each of ``backends``.
        layout: what the guest finds where, sorted by guest address.
        regions: the part of it that is offered to back-ends.
        memory: the same, as a back-end has it.

    Raises:
        NotShareable: none of it can be shared, so no back-end could see what the front-end writes.
        LayoutError: the blocks do not fit.
    """

    def __init__(self, *backends: MemoryBackend | Place) -> None:
        places = [each if isinstance(each, Place) else Place(each) for each in backends]
        _check_offer([place.why_not_offered for place in places])
        spans = lay_out(places, first=FIRST_ADDR)
        self.blocks: list[MemoryBlock] = []
        try:
            for place in places:
                self.blocks.append(place.backend.allocate())
            self.layout: Sequence[GuestBlock] = tuple(
                GuestBlock.of(span, places[span.index], self.blocks[span.index]) for span in spans
            )
        except BaseException:
            self.close()
            raise
        self._offered = [block for block in self.layout if block.why_not_offered is None]
        self.regions: Sequence[MemoryRegion] = tuple(block.region() for block in self._offered)
        self.memory = GuestMemory.of(*zip(self.regions, [block.view for block in self._offered], strict=True))
        self._free = [(region.guest_addr, region.size) for region in self.regions]

    def duplicate_fds(self) -> Fds:
        """One descriptor per region, in order, to be sent with SET_MEM_TABLE; the caller owns them."""
        return Fds([block.memory.fd for block in self._offered]).duplicate()

    def buffer(self, size: int, *, align: int = 64) -> Buffer:
        """A piece of ``size`` bytes that back-ends can see, not used by anybody else until `release`.

        Raises:
            OutOfGuestMemory: there is no gap that large.
        """
        for index, (addr, length) in enumerate(self._free):
            start = -(-addr // align) * align
            if start + size <= addr + length:
                gaps = [(addr, start - addr), (start + size, addr + length - start - size)]
                self._free[index : index + 1] = [gap for gap in gaps if gap[1]]
                return self._piece(start, size)
        room = sum(length for _, length in self._free)
        raise OutOfGuestMemory(f"{size} bytes asked for, guest memory has {room} left: make the memory backend larger")

    def release(self, buffer: Buffer) -> None:
        """Give a piece back."""
        insort(self._free, (buffer.addr, len(buffer)))
        index = bisect_left(self._free, (buffer.addr, 0))
        self._join(index)
        if index:
            self._join(index - 1)

    def user_addr(self, addr: GuestAddr) -> int:
        """The user address of a byte that back-ends can see.

        Raises:
            GuestAddressError: it is in no region that is offered.
        """
        self.memory.view(addr, 1)
        region = next(each for each in self.regions if 0 <= addr - each.guest_addr < each.size)
        return region.user_addr + addr - region.guest_addr

    def close(self) -> None:
        """Close the blocks' descriptors; what is mapped stays mapped for those who hold views."""
        for block in self.blocks:
            block.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _piece(self, addr: int, size: int) -> Buffer:
        return Buffer(GuestAddr(addr), self.user_addr(GuestAddr(addr)), self.memory.view(GuestAddr(addr), size))

    def _join(self, index: int) -> None:
        """Make one gap of two that touch and lie in the same block."""
        if index + 1 < len(self._free):
            (addr, length), (following, more) = self._free[index : index + 2]
            if addr + length == following and all(following != region.guest_addr for region in self.regions):
                self._free[index : index + 2] = [(addr, length + more)]


def _check_offer(reasons: list[str | None]) -> None:
    if None not in reasons:
        why = "; ".join(str(reason) for reason in reasons) or "there is no memory at all"
        raise NotShareable(f"nothing of the guest's memory can be shared with a back-end: {why}")
