"""From descriptors to a chain, whatever the format of the ring: what is left to check when the links are good.

The driver's memory is an opponent's until it has proven otherwise, and it stays writable while we look.  Hence every
descriptor is copied once and everything is decided on the copy; every number is bounded where it enters: addresses by
`GuestMemory`, bytes by what a chain may have, elements by the size of the queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.memory.map import GuestAddr, GuestAddressError
from vhostuser.virtqueue.chain import Chain
from vhostuser.virtqueue.ring import Lie
from vhostuser.wire.split import DESC_SIZE, MAX_CHAIN_BYTES, DescFlags

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from vhostuser.memory.map import GuestMemory

    Element: TypeAlias = tuple[GuestAddr, int, int, int]  # address, length, flags, and what else a descriptor has

# Plain numbers: an operator of IntFlag costs 0.5 µs, and a walk needs three for each descriptor.
NEXT, WRITE, INDIRECT = DescFlags.NEXT.value, DescFlags.WRITE.value, DescFlags.INDIRECT.value


class Walker:
    """Makes chains out of one descriptor area.

    Args:
        table: the descriptor table, or the descriptor ring.
        memory: where the addresses in it lead.
        queue_size: its entries.
        indirect: INDIRECT_DESC was negotiated.
    """

    __slots__ = ("_before", "_indirect", "_memory", "_queue_size", "_recent", "_table")

    def __init__(self, table: memoryview, memory: GuestMemory, queue_size: int, *, indirect: bool) -> None:
        self._table = table
        self._memory = memory
        self._recent = self._before = memory.stretch(GuestAddr(0))
        self._queue_size = queue_size
        self._indirect = indirect

    def _check_indirect(self, name: str, flags: int, *, misplaced: str = "") -> None:
        """May the chain called ``name`` have an indirect descriptor with these ``flags``, at a place like this?

        Raises:
            Lie: no.
        """
        if not self._indirect:
            raise Lie(f"{name} has an indirect descriptor, which was not negotiated")
        if misplaced:
            raise Lie(f"{name} has an indirect descriptor {misplaced}")
        if flags & NEXT:
            raise Lie(f"{name} has a descriptor with both INDIRECT and NEXT")

    def _assemble(self, head: int, elements: Iterable[Element], entries: int = 1) -> Chain:
        """The chain of these elements, which are no more than the queue has entries (virtio 1.3, 2.7.4.2 and 2.8.5).

        Args:
            head: what the ring calls the chain.
            elements: in order; of their flags only WRITE matters.
            entries: how many entries of the ring the chain takes, where that counts.

        Raises:
            Lie: too many bytes, addresses of nothing, or something to read behind something to write.
        """
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        recent, before = self._recent, self._before
        start, stop, view = recent
        total = 0
        for addr, length, flags, _ in elements:
            total += length
            if total > MAX_CHAIN_BYTES:
                raise Lie(f"chain {head} has more than {MAX_CHAIN_BYTES} bytes")
            if flags & WRITE:
                pieces = writable
            elif writable:
                raise Lie(f"chain {head} has a device-readable element after a device-writable one")
            else:
                pieces = readable
            if not length:
                continue  # the standard is silent about empty elements: they hurt nobody, wherever they point
            # Nearly always in the region where the last one was, or in the one before (headers and data take turns):
            # some comparisons instead of two calls.
            if not start <= addr < addr + length <= stop:
                recent, before = before, recent
                start, stop, view = recent
                if not start <= addr < addr + length <= stop:
                    start, stop, view = recent = self._memory.stretch(addr)
                    if addr + length > stop:  # it goes on in the next region, or nowhere
                        pieces += self._views(head, addr, length)
                        continue
            pieces.append(view[addr - start : addr + length - start])
        self._recent, self._before = recent, before
        return Chain(head, readable, writable, entries)

    def _views(self, head: int, addr: GuestAddr, length: int) -> list[memoryview]:
        try:
            return self._memory.views(addr, length)
        except GuestAddressError as error:
            raise Lie(f"chain {head}: {error}") from None

    def _copy_table(self, head: int, addr: GuestAddr, length: int, *, most: int) -> bytes:
        """An indirect table of up to ``most`` entries, which may cross regions, at one look (2.7.5.3 and 2.8.7).

        Raises:
            Lie: its length is none that a table can have, or its address leads nowhere.
        """
        if length % DESC_SIZE or not 0 < length <= most * DESC_SIZE:
            raise Lie(
                f"chain {head} has an indirect table of {length} bytes, expected 1 to {most} entries of {DESC_SIZE}"
            )
        return b"".join(self._views(head, addr, length))
