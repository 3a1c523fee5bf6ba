"""Queues that record what is in flight: memory as it was between any two of their lines is enough to go on with.

That is what a SIGKILL there leaves.  No process is killed here; the conformance cases do that (B-INF-11 and 13).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.backends.recorded_packed import RecordedPacked
from tests.conformance.backends.recorded_split import RecordedSplit
from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.memory.region import MappedRegion
from vhostuser.virtqueue.queue import RingLayout, Segment, open_driver_queue
from vhostuser.virtqueue.ring import UnsupportedRing
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.inflight import (
    DescStatePacked,
    DescStateSplit,
    QueueRegionPacked,
    QueueRegionSplit,
    packed_region_size,
)
from vhostuser.wire.packed import PackedBase, Position
from vhostuser.wire.records import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from tests.conformance.backends.recorded import Recorded
    from vhostuser.wire.schema import Structure

SIZE = 8
PART = 4096
"""Bytes for each part of the ring, and for the area; they come first in memory, and buffers behind them."""
BUFFER = 64
PACKED = int(VirtioFeature.RING_PACKED)
KINDS = {0: RecordedSplit, PACKED: RecordedPacked}
SOON = Position(SIZE - 2, True)
BASES = {0: 0xFFFE, PACKED: int(PackedBase(SOON, SOON))}
"""Rings begin where their positions are about to start over, which takes two stores in a packed one."""
TRACED = ("/recorded.py", "/recorded_split.py", "/recorded_packed.py", "/split_device.py", "/packed_device.py")

both = pytest.mark.parametrize("packed", KINDS, ids=["split", "packed"])


class Guest:
    """A driver, and memory that outlives whoever serves its ring."""

    def __init__(self, packed: int, *requests: int) -> None:
        self.features = VirtioFeature.VERSION_1 | packed
        self.kind = KINDS[packed]
        self.whole = whole = memoryview(bytearray(8 * PART))
        self.layout = RingLayout(SIZE, *(whole[at : at + PART] for at in range(0, 3 * PART, PART)))
        self.area = whole[3 * PART : 3 * PART + packed_region_size(SIZE)]
        self.memory = GuestMemory((MappedRegion.of(MemoryRegion(0, len(whole), 0, 0), whole),))
        self.base = BASES[packed]
        self.driver = open_driver_queue(self.layout, self.features, base=self.base)
        self.added = 0
        self.done: list[int] = []
        self.add(*requests)

    def add(self, *requests: int) -> None:
        """Requests of so many segments; their numbers are their tokens, and their first byte."""
        for segments in requests:
            at = 4 * PART + self.added % SIZE * 4 * BUFFER
            pieces = [Segment(GuestAddr(at + number * BUFFER), BUFFER) for number in range(segments)]
            self.whole[at] = self.added
            self.driver.add(pieces, [], self.added)
            self.added += 1
        self.driver.publish()

    def reap(self) -> None:
        """Take back what is done."""
        self.done += [used.token for used in self.driver.reap(SIZE)]

    def queue(self) -> Recorded:
        """The device's side, as whoever goes on opens it."""
        return self.kind(self.area, self.layout, self.memory, self.features, base=self.base, index=0)

    def serve(self) -> list[int]:
        """Take what there is, give it back in a strange order; what was taken."""
        queue = self.queue()
        chains = queue.pop(SIZE)
        taken = [chain.readable.read(1)[0] for chain in chains]
        for batch in (chains[1:2], chains[3:4] + chains[:1], chains[4:] + chains[2:3]):
            queue.complete(batch)
        return taken

    def while_it(self, runs: Callable[[], object]) -> list[bytes]:
        """What memory is like before each line of the queue that ``runs``, and in the end."""
        seen: dict[bytes, None] = {}

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code.co_filename.endswith(TRACED):
                seen[bytes(self.whole)] = None
                return trace
            return None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            runs()
        finally:
            sys.settrace(before)
        seen[bytes(self.whole)] = None
        return list(seen)


def survivor(packed: int, memory: bytes, requests: Sequence[int], more: int) -> Guest:
    """A guest with these requests in its ring whose back-end died and left ``memory``; it reaps, and puts in more."""
    guest = Guest(packed, *requests)
    guest.whole[:] = memory
    guest.reap()
    guest.add(more)
    return guest


@both
def test_whenever_it_is_killed_each_request_is_done_once(packed: int) -> None:
    requests = (1, 2, 1, 1)
    first = Guest(packed, *requests)
    left = first.while_it(first.serve)
    assert len(left) > 20
    for memory in left:
        second = survivor(packed, memory, requests, 2)
        for again in second.while_it(second.queue):  # killed once more, while it recovers
            third = survivor(packed, memory, requests, 2)
            third.whole[:] = again
            assert third.serve() == [number for number in range(5) if number not in third.done]
            third.reap()
            assert sorted(third.done) == list(range(5))
            third.add(1, 1)
            assert third.serve() == [5, 6]
            third.reap()
            assert sorted(third.done) == list(range(7))


@both
def test_it_goes_on_for_many_laps(packed: int) -> None:
    guest = Guest(packed)
    for number in range(20):
        guest.add(1, 2, 1)
        assert guest.serve() == list(range(3 * number, 3 * number + 3))
        guest.reap()
    assert sorted(guest.done) == list(range(60))


SPLIT = QueueRegionSplit(version=1, desc_num=SIZE)
RING = QueueRegionPacked(version=1, desc_num=SIZE, used_wrap_counter=1, old_used_wrap_counter=1)


def _changed(record: Structure, **fields: int) -> Structure:
    values = {name: getattr(record, name) for name in type(record).__match_args__}
    return type(record)(**values | fields)


@pytest.mark.parametrize(
    ("packed", "header", "entry", "found"),
    [
        (0, _changed(SPLIT, version=2), None, "version 2"),
        (0, _changed(SPLIT, desc_num=SIZE + 1), None, "for 9 entries"),
        (0, _changed(SPLIT, used_idx=0xFFFF), None, "used index 65535"),
        (0, _changed(SPLIT, used_idx=0xFFFD, last_batch_head=SIZE), None, "entry 8 in the last batch"),
        (1, _changed(RING, used_idx=SIZE), None, "used index 8"),
        (1, _changed(RING, old_used_idx=SIZE), None, "used index 8"),
        (1, _changed(RING, free_head=SIZE, old_free_head=SIZE), DescStatePacked(inflight=1, num=9), "9 descriptors"),
    ],
)
def test_what_nobody_can_have_left_is_refused(
    packed: int, header: Structure, entry: Structure | None, found: str
) -> None:
    guest = Guest(packed and PACKED)
    data = header.build() + (entry.build() if entry else b"")
    guest.area[: len(data)] = data
    with pytest.raises(UnsupportedRing, match=found):
        guest.queue()


@pytest.mark.parametrize(
    "entry",
    [
        DescStatePacked(inflight=1, num=2, next=SIZE, flags=1),
        DescStatePacked(inflight=1, num=2, next=1, flags=0, len=1),
        DescStatePacked(inflight=1, num=0),
    ],
    ids=["leads outside", "ends too soon", "has no descriptor"],
)
def test_a_request_that_cannot_be_breaks_the_queue(entry: DescStatePacked) -> None:
    guest = Guest(PACKED)
    data = _changed(RING, free_head=SIZE, old_free_head=SIZE).build() + entry.build()
    guest.area[: len(data)] = data
    with pytest.raises(Exception, match=r"of the inflight area|not available"):
        guest.queue().pop(SIZE)


def test_a_head_in_flight_that_is_a_loop_breaks_the_queue() -> None:
    guest = Guest(0)
    data = _changed(SPLIT, used_idx=0xFFFE).build() + DescStateSplit(inflight=1).build()
    guest.area[: len(data)] = data
    guest.layout.descriptor[12] = 1  # NEXT: itself
    with pytest.raises(Exception, match="or a loop"):
        guest.queue().pop(SIZE)
