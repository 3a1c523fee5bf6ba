"""From a head to a chain: descriptors followed and checked (virtio 1.3, 2.7.4 and 2.7.5).

What holds for every format is in ``walk.py``.  Here a descriptor names the next one, so places in a table are bounded
by its size, and the walk along ``next`` by a budget, for a chain may not have more elements than the queue has
entries.  That is also what ends a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.virtqueue.ring import Lie
from vhostuser.virtqueue.walk import INDIRECT, NEXT, Walker
from vhostuser.wire.schema import codec
from vhostuser.wire.split import DESC_SIZE, VirtqDesc

if TYPE_CHECKING:
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.walk import Element

_unpack_from = codec(VirtqDesc).unpack_from


class SplitWalker(Walker):
    """Makes chains out of one descriptor table."""

    __slots__ = ()

    def chain(self, head: int) -> Chain:
        """The chain that begins with descriptor ``head``.

        Raises:
            Lie: it is none.
        """
        return self._assemble(head, self._elements(head))

    def _elements(self, head: int) -> list[Element]:
        """The elements along the chain; their links are good, nothing else is known about them."""
        elements: list[Element] = []
        table: memoryview | bytes = self._table
        entries, index = self._queue_size, head
        # An indirect descriptor is no element, and there is at most one: that is the one round more.
        for _ in range(self._queue_size + 1):
            if index >= entries:
                raise Lie(f"chain {head} goes to descriptor {index} of a table of {entries}")
            element = _unpack_from(table, index * DESC_SIZE)
            _, _, flags, index = element
            if flags & INDIRECT:
                misplaced = "" if table is self._table else "inside an indirect table"
                self._check_indirect(f"chain {head}", flags, misplaced=misplaced)
                addr, length, _, _ = element
                most = self._queue_size - len(elements)  # direct ones may stand before it
                table = self._copy_table(head, addr, length, most=most)
                entries, index = length // DESC_SIZE, 0
                continue
            elements.append(element)
            if not flags & NEXT:
                break
        if flags & NEXT or len(elements) > self._queue_size:
            raise Lie(f"chain {head} is longer than the {self._queue_size} entries of the queue, or a loop")
        return elements
