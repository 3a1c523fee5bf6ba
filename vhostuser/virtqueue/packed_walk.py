"""From an entry of a packed ring to a chain (virtio 1.3, 2.8.5 to 2.8.7).

A chain is a list of entries one after the other, or one entry that names an indirect table.  What holds for every
format is in ``walk.py``.  Here the list ends the walk at the latest when it has been once around the ring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.virtqueue.packed_ring import TURN
from vhostuser.virtqueue.ring import Lie
from vhostuser.virtqueue.walk import INDIRECT, NEXT, Walker
from vhostuser.wire.packed import DESC_SIZE, PackedDesc
from vhostuser.wire.schema import codec

if TYPE_CHECKING:
    from vhostuser.memory.map import GuestAddr
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.walk import Element

_codec = codec(PackedDesc)
_unpack_from, _iter_unpack = _codec.unpack_from, _codec.iter_unpack


class PackedWalker(Walker):
    """Makes chains out of one descriptor ring."""

    __slots__ = ()

    def chain(self, offset: int, available: int) -> Chain:
        """The chain that begins at entry ``offset``.

        Args:
            offset: an entry of the ring.
            available: what its flags AVAIL and USED have to be.

        Raises:
            Lie: it is none.
        """
        elements: list[Element] = []
        at = offset
        while True:
            addr, length, head, flags = _unpack_from(self._table, at * DESC_SIZE)
            if flags & TURN != available:
                # The whole list is written before its first entry is made available, so all of it must be.
                raise Lie(f"the chain at entry {offset} has entry {at} in it, which is not available")
            if flags & INDIRECT:
                misplaced = "after a direct one" if elements else ""
                self._check_indirect(f"the chain at entry {offset}", flags, misplaced=misplaced)
                return self._assemble(head, self._copied(head, addr, length))
            elements.append((addr, length, flags, head))
            if not flags & NEXT:
                # 2.8.5: the last entry has the buffer id that counts.
                return self._assemble(head, elements, len(elements))
            if len(elements) == self._queue_size:
                raise Lie(f"the chain at entry {offset} is longer than the {self._queue_size} entries of the queue")
            at += 1
            if at == self._queue_size:
                at, available = 0, available ^ TURN

    def _copied(self, head: int, addr: GuestAddr, length: int) -> list[Element]:
        """All entries of an indirect table.  2.8.7: of their flags only WRITE means anything, and ``id`` nothing."""
        table = self._copy_table(head, addr, length, most=self._queue_size)
        return [(addr, length, flags, 0) for addr, length, _, flags in _iter_unpack(table)]
