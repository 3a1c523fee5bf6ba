"""Rings built by hand, good and hostile: every byte of a ring can be set, to whatever a peer might write.

`RingBuilder` plays a driver that may lie: it writes descriptors, heads and indices one at a time, as told.  What it
does for split rings, ``packed_rings.py`` does for packed ones.  The memory is `GuardedMemory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.memory.map import GuestAddr
from vhostuser.testing.memory import GuardedMemory
from vhostuser.virtqueue.indirect import IndirectTables
from vhostuser.virtqueue.queue import RingLayout, Segment, open_device_queue, open_driver_queue
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.schema import codec
from vhostuser.wire.split import (
    DESC_SIZE,
    FLAGS_OFFSET,
    IDX_OFFSET,
    RING_OFFSET,
    USED_ELEM_SIZE,
    DescFlags,
    VirtqDesc,
    VirtqUsedElem,
    avail_event_offset,
    used_event_offset,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from vhostuser.virtqueue.engine import Engine
    from vhostuser.virtqueue.queue import DeviceQueue, DriverQueue

RING_FEATURES = int(VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC)
"""What `RingBuilder` negotiates unless told otherwise."""

RING_ADDR = 0x1000
BUFFERS_ADDR = 0x10_0000
BUFFERS_SIZE = 0x2_0000
_desc = codec(VirtqDesc)
_used = codec(VirtqUsedElem)


class BuiltRing:
    """The parts of a ring and buffers in plain memory, and who may be put before it.

    The parts lie back to back from ``RING_ADDR`` on, ``BUFFERS_SIZE`` bytes for buffers from ``BUFFERS_ADDR`` on.

    Args:
        queue_size: entries.
        features: what device and driver are opened with.
        base: where the ring stands.
        regions: more guest memory, as for `GuardedMemory`.
    """

    def __init__(self, queue_size: int, features: int, *, base: int, regions: Sequence[tuple[int, int]]) -> None:
        self.queue_size = queue_size
        self.features = features
        self.base = base
        # Event words are there, negotiated or not: one may look whether they stay alone.
        self.sizes = RingLayout.sizes(queue_size, features | VirtioFeature.EVENT_IDX)
        self.desc_addr = RING_ADDR
        self.driver_addr = self.desc_addr + self.sizes.descriptor
        self.device_addr = -(-(self.driver_addr + self.sizes.driver) // 4) * 4
        # A region for each part: a step outside one lands on guard bytes.
        self.memory = GuardedMemory(
            (self.desc_addr, self.sizes.descriptor),
            (self.driver_addr, self.sizes.driver),
            (self.device_addr, self.sizes.device),
            (BUFFERS_ADDR, BUFFERS_SIZE),
            *regions,
        )
        self._next_buffer = BUFFERS_ADDR

    @property
    def layout(self) -> RingLayout:
        """The three parts, each in full."""
        parts = zip((self.desc_addr, self.driver_addr, self.device_addr), self.sizes, strict=True)
        return RingLayout(self.queue_size, *(self.memory.view(addr, size) for addr, size in parts))

    def open_device(self, *, queue_index: int | None = None, engine: Engine | None = None) -> DeviceQueue:
        """The device's side of this ring, on this memory."""
        return open_device_queue(
            self.layout, self.memory.guest, self.features, base=self.base, queue_index=queue_index, engine=engine
        )

    def open_driver(
        self, *, indirect: int = 0, queue_index: int | None = None, engine: Engine | None = None
    ) -> DriverQueue[Any]:
        """The driver's side, with indirect tables of ``indirect`` entries if that is not 0."""
        tables = None
        if indirect:
            buffer = self.buffer(IndirectTables.size(self.queue_size, indirect))
            tables = IndirectTables(self.memory.view(*buffer), buffer.addr, indirect)
        return open_driver_queue(
            self.layout, self.features, indirect=tables, base=self.base, queue_index=queue_index, engine=engine
        )

    def buffer(self, length: int, data: bytes = b"") -> Segment:
        """Room for ``length`` bytes that nobody else got, with ``data`` at its start."""
        addr = self._next_buffer
        self._next_buffer += -(-max(length, 1) // 16) * 16
        self.memory.write(addr, data)
        return Segment(GuestAddr(addr), length)

    def _get16(self, addr: int) -> int:
        return int.from_bytes(self.memory.read(addr, 2), "little")

    def _put16(self, addr: int, value: int) -> None:
        self.memory.write(addr, value.to_bytes(2, "little"))


class RingBuilder(BuiltRing):
    """A split ring in plain memory, every field of which can be set; both indices begin at ``base``."""

    def __init__(
        self,
        queue_size: int = 8,
        features: int = RING_FEATURES,
        *,
        base: int = 0,
        regions: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__(queue_size, features, base=base, regions=regions)
        self.avail_addr = self.driver_addr
        self.used_addr = self.device_addr
        self.set_avail_idx(base)
        self.set_used_idx(base)

    # --- what a driver writes ----------------------------------------------------------------------------------------

    def desc(self, index: int, addr: int, length: int, flags: int = 0, next: int = 0) -> None:  # noqa: A002
        """Write one descriptor of the table."""
        self.memory.write(self.desc_addr + index * DESC_SIZE, _desc.pack(addr, length, flags, next))

    def table(self, *descs: tuple[int, int, int, int]) -> Segment:
        """Write an indirect table somewhere: address, length, flags and next of each entry."""
        data = b"".join(_desc.pack(*desc) for desc in descs)
        return self.buffer(len(data), data)

    def chain(self, head: int, *elements: tuple[Segment, bool]) -> None:
        """Write a good chain into descriptors ``head``, ``head + 1``, …: segment and "device-writable" of each."""
        for place, ((addr, length), writable) in enumerate(elements, start=head):
            more = place - head < len(elements) - 1
            flags = (DescFlags.WRITE if writable else 0) | (DescFlags.NEXT if more else 0)
            self.desc(place, addr, length, flags, place + 1 if more else 0)

    def offer(self, *heads: int) -> None:
        """Put heads into the available ring and move ``avail.idx`` past them."""
        for head in heads:
            position = self.avail_idx
            self._put16(self.avail_addr + RING_OFFSET + 2 * (position % self.queue_size), head)
            self.set_avail_idx((position + 1) % 65536)

    @property
    def avail_idx(self) -> int:
        """``avail.idx``"""
        return self._get16(self.avail_addr + IDX_OFFSET)

    def set_avail_idx(self, value: int) -> None:
        """Store ``avail.idx``, true or not."""
        self._put16(self.avail_addr + IDX_OFFSET, value)

    def set_avail_flags(self, value: int) -> None:
        """Store ``avail.flags``."""
        self._put16(self.avail_addr + FLAGS_OFFSET, value)

    def set_used_event(self, value: int) -> None:
        """Store ``used_event``."""
        self._put16(self.avail_addr + used_event_offset(self.queue_size), value)

    # --- what a device writes ----------------------------------------------------------------------------------------

    def use(self, *elements: tuple[int, int]) -> None:
        """Put used elements, id and length, into the used ring and move ``used.idx`` past them."""
        for element in elements:
            position = self.used_idx
            at = self.used_addr + RING_OFFSET + USED_ELEM_SIZE * (position % self.queue_size)
            self.memory.write(at, _used.pack(*element))
            self.set_used_idx((position + 1) % 65536)

    def used(self) -> list[tuple[int, int]]:
        """Id and length of the used elements since ``base``, at most a ring full."""
        count = (self.used_idx - self.base) % 65536
        slots = [(self.base + number) % self.queue_size for number in range(count)]
        start = self.used_addr + RING_OFFSET
        found = [_used.unpack(self.memory.read(start + USED_ELEM_SIZE * slot, USED_ELEM_SIZE)) for slot in slots]
        return [(head, length) for head, length in found]

    @property
    def used_idx(self) -> int:
        """``used.idx``"""
        return self._get16(self.used_addr + IDX_OFFSET)

    def set_used_idx(self, value: int) -> None:
        """Store ``used.idx``, true or not."""
        self._put16(self.used_addr + IDX_OFFSET, value)

    @property
    def used_flags(self) -> int:
        """``used.flags``"""
        return self._get16(self.used_addr + FLAGS_OFFSET)

    def set_used_flags(self, value: int) -> None:
        """Store ``used.flags``."""
        self._put16(self.used_addr + FLAGS_OFFSET, value)

    @property
    def avail_event(self) -> int:
        """``avail_event``"""
        return self._get16(self.used_addr + avail_event_offset(self.queue_size))

    def set_avail_event(self, value: int) -> None:
        """Store ``avail_event``."""
        self._put16(self.used_addr + avail_event_offset(self.queue_size), value)
