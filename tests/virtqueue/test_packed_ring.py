"""Positions, bases, sizes and suppression of packed rings, against bytes and figures written by hand."""

from __future__ import annotations

import pytest

from vhostuser.testing.packed_rings import PACKED_FEATURES, PackedRingBuilder
from vhostuser.virtqueue.packed_ring import (
    AVAILABLE,
    USED,
    ask,
    base_of,
    clear,
    decline,
    is_asked,
    off_wrap_of,
    position_of,
    positions_of,
)
from vhostuser.virtqueue.queue import RingLayout, UnsupportedRing, initial_base, open_device_queue, open_driver_queue
from vhostuser.wire.features import VirtioFeature

PACKED = int(VirtioFeature.RING_PACKED)


def event(off_wrap: int, flags: int) -> memoryview:
    return memoryview(off_wrap.to_bytes(2, "little") + flags.to_bytes(2, "little")).cast("H")


def writable_event() -> memoryview:
    return memoryview(bytearray(b"\xff" * 4)).cast("H")


def test_turns_are_told_by_the_two_flags() -> None:
    assert AVAILABLE == (0x0080, 0x8000)
    assert USED == (0x8080, 0x0000)


class TestPositions:
    @pytest.mark.parametrize("queue_size", [1, 3, 8, 32768])
    def test_run_through_two_laps(self, queue_size: int) -> None:
        places = [off_wrap_of(position, queue_size) for position in range(2 * queue_size)]
        first, second = places[:queue_size], places[queue_size:]
        assert first == [0x8000 | offset for offset in range(queue_size)]
        assert second == list(range(queue_size))
        assert [position_of(place, queue_size) for place in places] == list(range(2 * queue_size))


class TestBases:
    def test_a_new_ring_begins_at_entry_0_with_wrap_counters_of_1(self) -> None:
        assert initial_base(PACKED) == 0x8000_8000
        assert positions_of(0x8000_8000, 8) == (0, 0)
        assert initial_base(0) == 0

    def test_both_halves_count(self) -> None:
        assert positions_of(0x8005_0002, 8) == (10, 5)
        assert base_of(10, 5, 8) == 0x8005_0002

    @pytest.mark.parametrize(("base", "position"), [(0x8000, 0), (0x8003, 3), (0x0003, 11), (0, 8)])
    def test_an_upper_half_of_0_means_that_nothing_is_in_flight(self, base: int, position: int) -> None:
        """DPDK's front-end sends 0x8000."""
        assert positions_of(base, 8) == (position, position)

    @pytest.mark.parametrize(
        ("base", "message"),
        [
            (0x8000_8008, "next available entry 8 of a ring of 8"),
            (0x8008_8000, "next used entry 8 of a ring of 8"),
            (0xFFFF_FFFF, "next available entry 32767 of a ring of 8"),
            (0x8001_8000, "more entries used than available"),
            (0x8000_0001, "more entries used than available"),
        ],
    )
    def test_a_place_that_is_not_in_the_ring_is_refused(self, base: int, message: str) -> None:
        ring = PackedRingBuilder(8)
        with pytest.raises(UnsupportedRing, match=f"base {base:#x}: {message}"):
            open_device_queue(ring.layout, ring.memory.guest, PACKED_FEATURES, base=base)

    def test_a_full_ring_in_flight_is_a_place_in_it(self) -> None:
        assert positions_of(0x8003_0003, 8) == (11, 3)


class TestSizes:
    def test_are_those_of_the_standard(self) -> None:
        assert RingLayout.sizes(256, PACKED) == (4096, 4, 4)
        assert RingLayout.sizes(3, PACKED) == (48, 4, 4)

    @pytest.mark.parametrize("queue_size", [-1, 0, 32769, 65536])
    def test_are_from_1_to_32768(self, queue_size: int) -> None:
        assert RingLayout.sizes(32768, PACKED).descriptor == 1 << 19
        with pytest.raises(UnsupportedRing, match=f"queue size {queue_size} is not from 1 to 32768"):
            RingLayout.sizes(queue_size, PACKED)

    @pytest.mark.parametrize(("part", "name"), [(0, "descriptor"), (1, "driver"), (2, "device")])
    def test_a_part_that_is_too_short_is_named(self, part: int, name: str) -> None:
        lengths = list(RingLayout.sizes(5, PACKED))
        lengths[part] -= 2
        layout = RingLayout(5, *(memoryview(bytearray(length)) for length in lengths))
        with pytest.raises(UnsupportedRing, match=rf"{name} area: {lengths[part]} bytes, a queue of 5 needs"):
            open_driver_queue(layout, PACKED)


class TestSuppression:
    @pytest.mark.parametrize(
        ("off_wrap", "expected"), [(0x8007, True), (0x0001, True), (0x8006, False), (0x0002, False), (0x0000, True)]
    )
    def test_an_entry_counts_with_its_lap(self, off_wrap: int, expected: bool) -> None:
        """Eight entries, moved on by three: 7 in the first lap, 0 and 1 in the second."""
        assert is_asked(event(off_wrap, 2), new=10, old=7, queue_size=8, event_idx=True) is expected

    def test_the_same_entry_one_lap_earlier_is_not_meant(self) -> None:
        assert not is_asked(event(0x8001, 2), new=10, old=7, queue_size=8, event_idx=True)

    @pytest.mark.parametrize(("flags", "expected"), [(0, True), (1, False), (3, True), (0xFFFD, False), (0xFFFC, True)])
    def test_without_an_entry_only_the_two_low_flags_count(self, flags: int, expected: bool) -> None:
        assert is_asked(event(0x8000, flags), new=2, old=1, queue_size=8, event_idx=True) is expected

    def test_an_entry_needs_event_idx(self) -> None:
        assert is_asked(event(0x8000, 2), new=2, old=1, queue_size=8, event_idx=False)

    def test_an_entry_counts_as_passed_when_nothing_is_known_of_the_past(self) -> None:
        assert is_asked(event(0x8007, 2), new=2, old=None, queue_size=8, event_idx=True)
        assert not is_asked(event(0x8007, 1), new=2, old=None, queue_size=8, event_idx=True)

    def test_an_entry_that_is_not_in_the_ring_hurts_nobody(self) -> None:
        for off_wrap in (0x0008, 0x7FFF, 0x8008, 0xFFFF):
            is_asked(event(off_wrap, 2), new=2, old=1, queue_size=8, event_idx=True)

    def test_what_is_written_when_asking(self) -> None:
        words = writable_event()
        ask(words, 9, 8, event_idx=True)
        assert bytes(words) == b"\x01\x00\x02\x00"
        ask(words, 7, 8, event_idx=True)
        assert bytes(words) == b"\x07\x80\x02\x00"
        decline(words)
        assert bytes(words) == b"\x07\x80\x01\x00"
        ask(words, 0, 8, event_idx=False)
        assert bytes(words) == b"\x07\x80\x00\x00"


@pytest.mark.parametrize(
    ("position", "flags"),
    [
        (0, [0, 0, 0, 0]),
        (3, [0x8080, 0x8080, 0x8080, 0]),
        (4, [0x8080, 0x8080, 0x8080, 0x8080]),
        (6, [0, 0, 0x8080, 0x8080]),
    ],
)
def test_a_cleared_ring_looks_as_if_all_had_been_used(position: int, flags: list[int]) -> None:
    ring = memoryview(bytearray(b"\xff" * 64))
    clear(ring, position, 4)
    assert [ring.cast("H")[offset * 8 + 7] for offset in range(4)] == flags
    assert bytes(ring[:14]) == bytes(14)


def test_the_builder_makes_the_ring_that_a_driver_makes() -> None:
    for base in (0x8000_8000, 0x8003_8003, 0x0000_0000, 0x0002_0002):
        built = PackedRingBuilder(4, PACKED_FEATURES, base=base)
        descriptors = bytes(built.layout.descriptor)
        built.open_driver()
        assert bytes(built.layout.descriptor) == descriptors
