"""The driver's indirect tables: a chain in a table takes one entry of the ring (virtio 1.3, 2.7.5.3 and 2.8.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.virtqueue.ring import UnsupportedRing
from vhostuser.wire.packed import PackedDesc
from vhostuser.wire.schema import codec
from vhostuser.wire.split import DESC_SIZE, DescFlags, VirtqDesc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.memory.map import GuestAddr
    from vhostuser.virtqueue.ring import Segment

NEXT = DescFlags.NEXT.value
WRITE = DescFlags.WRITE.value
_pack_into = codec(VirtqDesc).pack_into
_pack_packed_into = codec(PackedDesc).pack_into


class IndirectTables:
    """The driver's tables: one for each descriptor of the ring, so that none has to be allocated or freed.

    Args:
        view: shared memory, ``queue_size * entries * 16`` bytes.
        addr: its guest address; a multiple of 16 keeps descriptors in one cache line.
        entries: descriptors per table.
    """

    __slots__ = ("addr", "entries", "view")

    def __init__(self, view: memoryview, addr: GuestAddr, entries: int) -> None:
        self.view = view
        self.addr = addr
        self.entries = entries

    @staticmethod
    def size(queue_size: int, entries: int) -> int:
        """Bytes of shared memory that tables of ``entries`` for each descriptor take."""
        return queue_size * entries * DESC_SIZE

    def check(self, queue_size: int) -> None:
        """Is there a table for each of ``queue_size`` descriptors?

        Raises:
            UnsupportedRing: no, or the tables are longer than a chain may be (2.7.5.3.1).
        """
        if not 0 < self.entries <= queue_size:
            raise UnsupportedRing(f"indirect tables of {self.entries} entries, a queue of {queue_size} allows no more")
        needed = self.size(queue_size, self.entries)
        if len(self.view) < needed:
            raise UnsupportedRing(f"indirect tables: {len(self.view)} bytes, {needed} needed")

    def fill(self, number: int, readable: Sequence[Segment], writable: Sequence[Segment]) -> int:
        """Write table ``number`` for a split ring and return its guest address; the caller has counted the segments."""
        start = number * self.entries * DESC_SIZE
        at, following, last = start, 1, len(readable) + len(writable)
        for flags, segments in ((0, readable), (WRITE, writable)):
            for addr, length in segments:
                more = NEXT if following < last else 0
                _pack_into(self.view, at, addr, length, flags | more, following if more else 0)
                at += DESC_SIZE
                following += 1
        return self.addr + start

    def fill_packed(self, number: int, readable: Sequence[Segment], writable: Sequence[Segment]) -> int:
        """The same for a packed ring: its tables have no links, and of the flags only WRITE (2.8.7)."""
        at = start = number * self.entries * DESC_SIZE
        for flags, segments in ((0, readable), (WRITE, writable)):
            for addr, length in segments:
                _pack_packed_into(self.view, at, addr, length, 0, flags)
                at += DESC_SIZE
        return self.addr + start
