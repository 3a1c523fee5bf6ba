"""Who is woken, and when, in a packed ring: each side with its own and its peer's event suppression."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engines import python_only
from tests.virtqueue.formats import PackedRings, kinds
from vhostuser.memory.map import GuestAddr
from vhostuser.virtqueue import packed_device, packed_driver
from vhostuser.virtqueue.queue import Segment
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from vhostuser.testing.packed_rings import PackedRingBuilder
    from vhostuser.virtqueue.queue import DriverQueue

LAST_ENTRY = 0x8007_8007
"""The base of a ring of eight entries that is at the end of its first lap."""
SEGMENT = Segment(GuestAddr(0x1000), 16)


def request(ring: PackedRingBuilder) -> None:
    """Offer a chain of one readable and one writable element."""
    ring.offer(0, (ring.buffer(7), False), (ring.buffer(4), True))


class TestADevice:
    @pytest.mark.parametrize(("driver_flags", "expected"), [(0, True), (1, False), (2, True), (0xFFFC, True)])
    @kinds("packed", event_idx=False)
    def test_without_event_idx_the_drivers_flags_decide(
        self, packed: PackedRings, driver_flags: int, expected: bool
    ) -> None:
        ring = packed()
        queue = ring.open_device()
        ring.set_driver_event(0x8005, driver_flags)
        request(ring)
        assert queue.complete(queue.pop(1)) is expected

    @kinds("packed", event_idx=True)
    def test_with_event_idx_passing_the_entry_notifies_once(self, packed: PackedRings) -> None:
        ring = packed(8, base=LAST_ENTRY)
        queue = ring.open_device()
        ring.set_driver_event(0x0001, 2)
        outcomes = []
        for _ in range(5):
            ring.offer(0, (ring.buffer(1), False))
            outcomes.append(queue.complete(queue.pop(1)))
        # Entries 7, 0, 1, 2, 3; the first notifies since nothing was signalled before.
        assert outcomes == [True, False, True, False, False]

    @kinds("packed", event_idx=True)
    def test_with_event_idx_entries_are_counted_and_not_chains(self, packed: PackedRings) -> None:
        ring = packed(8)
        queue = ring.open_device()
        request(ring)
        queue.complete(queue.pop(1))
        ring.set_driver_event(0x8003, 2)
        request(ring)
        assert queue.complete(queue.pop(1)) is True, "this chain has entries 2 and 3"

    @python_only
    @kinds("packed", event_idx=False)
    def test_a_machine_without_a_full_fence_never_suppresses_and_always_notifies(
        self, packed: PackedRings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packed_device, "FENCE_IS_FULL", False)
        ring = packed()
        queue = ring.open_device()
        queue.disarm()
        assert ring.device_event == (0, 0)
        ring.set_driver_event(0, 1)
        request(ring)
        assert queue.complete(queue.pop(1)) is True

    def test_arming_and_disarming(self, packed: PackedRings) -> None:
        ring = packed(8, base=LAST_ENTRY)
        queue = ring.open_device()
        ring.set_device_event(0xABCD, 0)
        queue.disarm()
        assert ring.device_event == (0xABCD, 1)
        request(ring)
        assert queue.arm() is True, "it arrived meanwhile"
        queue.pop(1)
        assert queue.arm() is False
        assert ring.device_event == ((0x0001, 2) if packed.has(VirtioFeature.EVENT_IDX) else (0xABCD, 0))


class TestADriver:
    @pytest.mark.parametrize(("flags", "expected"), [(0, True), (1, False), (2, True), (0xFFFC, True)])
    @kinds("packed", event_idx=False)
    def test_without_event_idx_the_devices_flags_decide(self, packed: PackedRings, flags: int, expected: bool) -> None:
        ring = packed()
        queue = ring.open_driver()
        ring.set_device_event(0x8005, flags)
        queue.add([SEGMENT], [], None)
        assert queue.publish() is expected

    @kinds("packed", event_idx=True)
    def test_with_event_idx_passing_the_entry_kicks(self, packed: PackedRings) -> None:
        ring = packed(8, base=0x8007_8007)
        queue = ring.open_driver()
        ring.set_device_event(0x0001, 2)
        outcomes = []
        for _ in range(4):
            queue.add([SEGMENT], [], None)
            outcomes.append(queue.publish())
        assert outcomes == [False, False, True, False], "entries 7, 0, 1, 2"

    @kinds("packed", event_idx=True)
    def test_with_event_idx_a_batch_kicks_when_the_entry_is_inside_it(self, packed: PackedRings) -> None:
        ring = packed(8)
        queue = ring.open_driver()
        ring.set_device_event(0x8003, 2)
        for _ in range(2):
            queue.add([SEGMENT, SEGMENT], [], None)
        assert queue.publish() is True

    def test_nothing_added_means_nothing_to_kick_for(self, packed: PackedRings) -> None:
        assert packed().open_driver().publish() is False

    @python_only
    @kinds("packed", event_idx=False)
    def test_a_machine_without_a_full_fence_never_suppresses_and_always_kicks(
        self, packed: PackedRings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(packed_driver, "FENCE_IS_FULL", False)
        ring = packed()
        queue = ring.open_driver()
        queue.disarm()
        assert ring.driver_event == (0, 0)
        ring.set_device_event(0, 1)
        queue.add([SEGMENT], [], None)
        assert queue.publish() is True

    def test_arming_and_disarming(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue: DriverQueue[str] = ring.open_driver()
        queue.disarm()
        assert ring.driver_event[1] == 1
        queue.add([SEGMENT], [], "a")
        queue.publish()
        ring.use(0, 0)
        assert queue.arm() is True, "arrived meanwhile"
        queue.reap(1)
        queue.add([SEGMENT], [], "b")
        queue.publish()
        assert queue.arm() is False
        expected = (0x8001, 2) if packed.has(VirtioFeature.EVENT_IDX) else (0, 0)
        assert ring.driver_event == expected, "the next entry to be used, and not the next to be made available"
