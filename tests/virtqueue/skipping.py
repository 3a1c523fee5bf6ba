"""Devices that make use of IN_ORDER: one used element for a batch of chains, that of the last (virtio 1.3, 2.7.9).

A driver takes the chains that are skipped to be filled to the last byte, so a chain that is not ends a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.virtqueue.packed_device import PackedDevice
from vhostuser.virtqueue.packed_ring import DESC_LENGTHS, DESC_WORDS, FLAGS, ID, LENGTH, USED
from vhostuser.virtqueue.ring import INDEX_MASK
from vhostuser.virtqueue.split_device import IDX, SplitDevice
from vhostuser.virtqueue.walk import WRITE
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vhostuser.testing.rings import BuiltRing
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.queue import DeviceQueue


def open_skipping(ring: BuiltRing) -> DeviceQueue:
    """The device's side of ``ring``, which was negotiated IN_ORDER."""
    device = SkippingPackedDevice if ring.features & VirtioFeature.RING_PACKED else SkippingSplitDevice
    return device(ring.layout, ring.memory.guest, ring.features, base=ring.base, queue_index=None)


def batches(chains: Iterable[Chain]) -> Iterator[list[Chain]]:
    batch: list[Chain] = []
    for chain in chains:
        batch.append(chain)
        if chain.writable.remaining:
            yield batch
            batch = []
    if batch:
        yield batch


class SkippingSplitDevice(SplitDevice):
    """Writes the element of the last chain where that of the first would be."""

    __slots__ = ()

    def _give_back(self, chains: Iterable[Chain]) -> bool:
        before = self._next_used
        for batch in batches(chains):
            last = batch[-1]
            self._elements[self._next_used % self._queue_size] = last.writable.written << 32 | last.head
            for chain in batch:
                del self._in_flight[chain.head]
            self._next_used = (self._next_used + len(batch)) & INDEX_MASK
            self._used[IDX] = self._next_used
        return self._next_used != before and self._should_notify(self._next_used)


class SkippingPackedDevice(PackedDevice):
    """Writes the descriptor of the last chain to the first entry of the first, and goes on behind all of them."""

    __slots__ = ()

    def _give_back(self, chains: Iterable[Chain]) -> bool:
        before = self._next_used
        for batch in batches(chains):
            lap, offset = divmod(self._next_used, self._queue_size)
            written = batch[-1].writable.written
            self._lengths[offset * DESC_LENGTHS + LENGTH] = written
            self._words[offset * DESC_WORDS + ID] = batch[-1].head
            self._words[offset * DESC_WORDS + FLAGS] = USED[lap] | (WRITE if written else 0)
            for chain in batch:
                del self._in_flight[chain.head]
            self._next_used = (self._next_used + sum(chain.entries for chain in batch)) % self._span
        return self._next_used != before and self._should_notify(self._next_used)
