"""Packed rings built by hand: every flag and id can be set, to whatever a peer might write.

`PackedRingBuilder` plays both sides of a ring whose sides may lie.  It keeps the position of the driver it plays, and
of the device it plays, so that flags need only be given where they are to be wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.testing.rings import RING_FEATURES, BuiltRing, RingBuilder
from vhostuser.virtqueue.queue import Segment, initial_base
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.packed import (
    DESC_SIZE,
    EVENT_FLAGS_OFFSET,
    INITIAL_BASE,
    OFF_WRAP_OFFSET,
    PackedBase,
    PackedDesc,
    PackedDescFlags,
    Position,
    available_flags,
    used_flags,
)
from vhostuser.wire.schema import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKED_FEATURES = RING_FEATURES | int(VirtioFeature.RING_PACKED)
"""What `PackedRingBuilder` negotiates unless told otherwise."""

_desc = codec(PackedDesc)
_TURN = PackedDescFlags.AVAIL | PackedDescFlags.USED


def build_ring(queue_size: int, features: int, *, base: int | None = None) -> RingBuilder | PackedRingBuilder:
    """A ring of the format that ``features`` choose, standing where a new one does unless ``base`` says otherwise."""
    builder = PackedRingBuilder if features & VirtioFeature.RING_PACKED else RingBuilder
    return builder(queue_size, features, base=initial_base(features) if base is None else base)


class PackedRingBuilder(BuiltRing):
    """A packed ring in plain memory, every field of which can be set.

    Args:
        queue_size: entries.
        features: what device and driver are opened with.
        base: where both sides stand; `available_at` and `used_at` begin there.
        regions: more guest memory, as for `GuardedMemory`.

    Attributes:
        available_at: where the driver played here writes next.
        used_at: where the device played here writes next.
    """

    def __init__(
        self,
        queue_size: int = 8,
        features: int = PACKED_FEATURES,
        *,
        base: int = int(INITIAL_BASE),
        regions: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__(queue_size, features, base=base, regions=regions)
        self.available_at = PackedBase.of(base).next_avail
        self.used_at = PackedBase.of(base).next_used if base >> 16 else self.available_at
        self._first_used = self.used_at
        # What lies ahead was used a lap ago, as in every ring that is not new.
        for offset in range(queue_size):
            behind = offset < self.available_at.offset
            self.desc(offset, 0, 0, 0, int(used_flags(behind is self.available_at.wrap_counter)))

    def after(self, place: Position, entries: int = 1) -> Position:
        """The position ``entries`` further on."""
        laps, offset = divmod(place.offset + entries, self.queue_size)
        return Position(offset, place.wrap_counter ^ bool(laps % 2))

    # --- what a driver writes ----------------------------------------------------------------------------------------

    def desc(self, offset: int, addr: int, length: int, head: int = 0, flags: int = 0) -> None:
        """Write one descriptor of the ring, with its ``id`` and with flags that are right or not."""
        self.memory.write(self.desc_addr + offset * DESC_SIZE, _desc.pack(addr, length, head, flags))

    def table(self, *descs: tuple[int, int, int]) -> Segment:
        """Write an indirect table somewhere: address, length and flags of each entry."""
        data = b"".join(_desc.pack(addr, length, 0xABCD, flags) for addr, length, flags in descs)
        return self.buffer(len(data), data)

    def put(self, *descs: tuple[int, int, int], head: int = 0) -> None:
        """Make descriptors available as they are: address, length, and flags without AVAIL and USED."""
        for addr, length, flags in descs:
            at = self.available_at
            self.desc(at.offset, addr, length, head, flags | available_flags(at.wrap_counter))
            self.available_at = self.after(at)

    def offer(self, head: int, *elements: tuple[Segment, bool]) -> None:
        """Make a good chain available: segment and "device-writable" of each element."""
        last = len(elements) - 1
        self.put(
            *(
                (*segment, (PackedDescFlags.WRITE if writable else 0) | (PackedDescFlags.NEXT if n < last else 0))
                for n, (segment, writable) in enumerate(elements)
            ),
            head=head,
        )

    def set_driver_event(self, off_wrap: int, flags: int) -> None:
        """Store the driver's event suppression."""
        self._put16(self.driver_addr + OFF_WRAP_OFFSET, off_wrap)
        self._put16(self.driver_addr + EVENT_FLAGS_OFFSET, flags)

    @property
    def driver_event(self) -> tuple[int, int]:
        """The driver's ``off_wrap`` and flags."""
        return self._get16(self.driver_addr + OFF_WRAP_OFFSET), self._get16(self.driver_addr + EVENT_FLAGS_OFFSET)

    # --- what a device writes ----------------------------------------------------------------------------------------

    def use(self, head: int, length: int, entries: int = 1) -> None:
        """Give back chain ``head``, which took ``entries``, with ``length`` bytes written, if that is not 0."""
        at = self.used_at
        flags = used_flags(at.wrap_counter) | (PackedDescFlags.WRITE if length else 0)
        self.desc(at.offset, 0, length, head, flags)
        self.used_at = self.after(at, entries)

    def used(self, *entries: int) -> list[tuple[int, int] | None]:
        """Id and length of the next used descriptors from ``base`` on, for chains that took so many ``entries`` each.

        None where the entry has not been used.
        """
        found: list[tuple[int, int] | None] = []
        at = self._first_used
        for count in entries:
            _, length, head, flags = self.entry(at.offset)
            found.append((head, length) if flags & _TURN == used_flags(at.wrap_counter) else None)
            at = self.after(at, count)
        return found

    def entry(self, offset: int) -> tuple[int, int, int, int]:
        """Address, length, id and flags that stand in one entry now."""
        addr, length, head, flags = _desc.unpack(self.memory.read(self.desc_addr + offset * DESC_SIZE, DESC_SIZE))
        return addr, length, head, flags

    def set_device_event(self, off_wrap: int, flags: int) -> None:
        """Store the device's event suppression."""
        self._put16(self.device_addr + OFF_WRAP_OFFSET, off_wrap)
        self._put16(self.device_addr + EVENT_FLAGS_OFFSET, flags)

    @property
    def device_event(self) -> tuple[int, int]:
        """The device's ``off_wrap`` and flags."""
        return self._get16(self.device_addr + OFF_WRAP_OFFSET), self._get16(self.device_addr + EVENT_FLAGS_OFFSET)
