"""The driver's side of a packed virtqueue (virtio 1.3, 2.8).

The device may be as hostile to us as a driver to a device.  It gets addresses of buffers, and it can write whatever
it likes into the ring, so

* what a chain consists of is kept here, in `Record`; the descriptors that we write are never read again, and the
  device overwrites them with used descriptors anyway;
* a used descriptor must name a chain that was published and has not come back, and no more bytes than it offered.

The device looks at one entry only, the next in order.  So `PackedDriver.add` writes descriptors in full, but for the
flags of the first one since the last `PackedDriver.publish`: while those are held back nobody sees any of them.
Fences and their absence are as in ``packed_device.py``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeVar

from vhostuser.memory.ordering import FENCE_IS_FULL, acquire_fence, full_fence, release_fence
from vhostuser.virtqueue.driver_side import DriverSide, Record
from vhostuser.virtqueue.packed_ring import (
    AVAILABLE,
    DESC_LENGTHS,
    DESC_WORDS,
    FLAGS,
    ID,
    LENGTH,
    TURN,
    USED,
    ask,
    clear,
    decline,
    is_asked,
    positions_of,
)
from vhostuser.virtqueue.ring import QueueFull, UnsupportedRing, make_used, ring_name, ring_words
from vhostuser.virtqueue.segments import measure
from vhostuser.virtqueue.walk import INDIRECT, NEXT, WRITE
from vhostuser.wire.packed import DESC_SIZE, PackedDesc
from vhostuser.wire.schema import codec

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    from vhostuser.virtqueue.indirect import IndirectTables
    from vhostuser.virtqueue.ring import RingLayout, Segment, Used

Token = TypeVar("Token")

_pack_body_into: Final = struct.Struct(codec(PackedDesc).format.removesuffix("H")).pack_into
"""Writes a descriptor but for its flags, the last field, which are stored by themselves."""


class PackedDriver(DriverSide[Token]):
    """A `vhostuser.virtqueue.queue.DriverQueue` over a packed ring."""

    __slots__ = (
        "_desc_ring",
        "_device_event",
        "_driver_event",
        "_free",
        "_held",
        "_ids",
        "_lengths",
        "_next_avail",
        "_next_used",
        "_span",
        "_visible",
        "_words",
    )

    def __init__(
        self,
        layout: RingLayout,
        features: int,
        *,
        indirect: IndirectTables | None,
        base: int,
        queue_index: int | None,
    ) -> None:
        layout = layout.cut(features)
        super().__init__(ring_name("packed", queue_index), layout.queue_size, features, indirect)
        self._span = 2 * layout.queue_size
        self._desc_ring = layout.descriptor
        self._words, self._lengths = ring_words(layout.descriptor), layout.descriptor.cast("I")
        self._driver_event, self._device_event = ring_words(layout.driver), ring_words(layout.device)
        self._free = layout.queue_size
        self._ids = list(range(layout.queue_size - 1, -1, -1))
        self._start_at(base)

    def _start_at(self, base: int) -> None:
        """An empty ring: the driver prepares all of it, the device's part too, before the device may look (3.1.1)."""
        next_avail, next_used = positions_of(base, self._queue_size)
        if next_avail != next_used:
            raise UnsupportedRing(f"{self._name}: base {base:#x} has chains in flight, a new ring has none")
        self._next_avail = self._next_used = self._visible = next_avail
        self._held = 0
        clear(self._desc_ring, next_avail, self._queue_size)
        ask(self._driver_event, next_avail, self._queue_size, event_idx=self._event_idx)
        ask(self._device_event, next_avail, self._queue_size, event_idx=False)  # a device may leave it at that

    @property
    def free(self) -> int:
        """Entries that `add` can still take; with indirect tables, that many chains."""
        return self._free

    # --- chains out --------------------------------------------------------------------------------------------------

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment], token: Token) -> None:
        """See `vhostuser.virtqueue.queue.DriverQueue.add`."""
        count, offered = measure(self._name, self._queue_size, readable, writable)
        tables = self._indirect if self._indirect is not None and 1 < count <= self._indirect.entries else None
        needed = count if tables is None else 1
        if needed > self._free:
            raise QueueFull(f"{self._name}: {needed} descriptors needed, {self._free} of {self._queue_size} free")
        head = self._ids.pop()
        if tables is None:
            self._write_direct(head, readable, writable, count)
        else:
            self._write(tables.fill_packed(head, readable, writable), count * DESC_SIZE, head, INDIRECT)
        self._free -= needed
        self._added[head] = Record(token, offered, needed)

    def _write_direct(self, head: int, readable: Sequence[Segment], writable: Sequence[Segment], count: int) -> None:
        for flags, segments in ((NEXT, readable), (NEXT | WRITE, writable)):
            for addr, length in segments:
                count -= 1
                self._write(addr, length, head, flags if count else flags ^ NEXT)

    def _write(self, addr: int, length: int, head: int, flags: int) -> None:
        """Write one descriptor at the next entry, and all but the first since `publish` with its flags."""
        position = self._next_avail
        lap, offset = divmod(position, self._queue_size)
        _pack_body_into(self._desc_ring, offset * DESC_SIZE, addr, length, head)
        if position == self._visible:
            self._held = flags | AVAILABLE[lap]
        else:
            self._words[offset * DESC_WORDS + FLAGS] = flags | AVAILABLE[lap]
        self._next_avail = (position + 1) % self._span

    def _expose(self) -> bool:
        before, self._visible = self._visible, self._next_avail
        release_fence()
        self._words[before % self._queue_size * DESC_WORDS + FLAGS] = self._held
        # Store the flags, then load what the device wants.  The device does the mirror of this before it sleeps: it
        # stores "kick me", then loads those flags.  If our load overtook our store, it could find nothing while we
        # find kicks suppressed: nobody would ever look at these chains.  With a full fence on both sides one must
        # see the other's store.
        full_fence()
        if not FENCE_IS_FULL:
            return True
        return is_asked(self._device_event, self._visible, before, self._queue_size, event_idx=self._event_idx)

    # --- chains back -------------------------------------------------------------------------------------------------

    def _reap_into(self, reaped: list[Used[Token]], limit: int) -> None:
        published = self._published
        while len(reaped) < limit and (named := self._named()) is not None:
            head, length = named
            record = published.pop(head)
            self._take_back(head, record)
            reaped.append(make_used((record.token, length)))

    def _next_batch(self, line: deque[int]) -> tuple[int, int] | None:
        return self._named()

    def _named(self) -> tuple[int, int] | None:
        """The chain that the next entry says is used, and its used length; None: it says nothing yet."""
        lap, offset = divmod(self._next_used, self._queue_size)
        words = self._words
        flags = words[offset * DESC_WORDS + FLAGS]
        if flags & TURN != USED[lap]:
            return None
        acquire_fence()
        head, length = words[offset * DESC_WORDS + ID], self._lengths[offset * DESC_LENGTHS + LENGTH]
        record = self._published.get(head)
        if record is None or length > record.writable:
            if record is None or flags & WRITE:
                raise self._untrue(f"used descriptor {offset}", head, length)
            length = 0  # 2.8.4: without WRITE the field means nothing; QEMU's devices use it all the same
        return head, length

    def _take_back(self, head: int, record: Record[Token]) -> None:
        self._ids.append(head)
        self._free += record.entries
        self._next_used = (self._next_used + record.entries) % self._span

    # --- notifications -----------------------------------------------------------------------------------------------

    def arm(self) -> bool:
        """See `vhostuser.virtqueue.queue.DriverQueue.arm`."""
        ask(self._driver_event, self._next_used, self._queue_size, event_idx=self._event_idx)
        # Store "wake me", then look once more: the mirror of what the device does in complete.  Without the fence
        # our load of the flags can come before our store: it finds nothing new, the device finds notifications
        # still suppressed, and we sleep on a completion.
        full_fence()
        lap, offset = divmod(self._next_used, self._queue_size)
        more = self._lie is not None or self._batch is not None
        return more or self._words[offset * DESC_WORDS + FLAGS] & TURN == USED[lap]

    def disarm(self) -> None:
        """See `vhostuser.virtqueue.queue.DriverQueue.disarm`."""
        if FENCE_IS_FULL:
            decline(self._driver_event)
