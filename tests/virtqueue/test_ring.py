"""Sizes and parts of a ring, and the rings that nobody here drives."""

import pytest

from vhostuser.memory.map import GuestAddr
from vhostuser.testing.rings import RingBuilder
from vhostuser.virtqueue import ring as ring_module
from vhostuser.virtqueue.indirect import IndirectTables
from vhostuser.virtqueue.queue import RingLayout, UnsupportedRing, open_driver_queue
from vhostuser.wire.features import VirtioFeature

EVENT_IDX = int(VirtioFeature.EVENT_IDX)


def layout(queue_size: int, *lengths: int) -> RingLayout:
    return RingLayout(queue_size, *(memoryview(bytearray(length)) for length in lengths))


def test_sizes_count_the_event_words_only_with_event_idx() -> None:
    assert RingLayout.sizes(256, EVENT_IDX) == (4096, 518, 2054)
    assert RingLayout.sizes(256, 0) == (4096, 516, 2052)


@pytest.mark.parametrize("queue_size", [-8, 0, 3, 300, 65536])
def test_a_size_that_is_no_power_of_two_up_to_32768_is_refused(queue_size: int) -> None:
    with pytest.raises(UnsupportedRing, match=f"queue size {queue_size} is not a power of two"):
        RingLayout.sizes(queue_size, 0)


@pytest.mark.parametrize(("part", "name"), [(0, "descriptor"), (1, "driver"), (2, "device")])
@pytest.mark.parametrize("features", [0, EVENT_IDX])
def test_a_part_that_is_too_short_is_named(part: int, name: str, features: int) -> None:
    lengths = list(RingLayout.sizes(8, features))
    lengths[part] -= 2
    with pytest.raises(UnsupportedRing, match=rf"{name} area: {lengths[part]} bytes, a queue of 8 needs"):
        open_driver_queue(layout(8, *lengths), features)


def test_without_event_idx_the_event_words_need_not_be_there() -> None:
    short = layout(8, *RingLayout.sizes(8, 0))
    queue = open_driver_queue(short, 0)
    assert queue.arm() is False
    queue.disarm()


def test_parts_may_be_longer_than_needed() -> None:
    ring = RingBuilder(4, EVENT_IDX)
    sizes = RingLayout.sizes(4, EVENT_IDX)
    long = layout(4, *(size + 64 for size in sizes))
    queue = open_driver_queue(long, EVENT_IDX)
    queue.add([ring.buffer(1)], [], None)
    assert queue.publish() is True
    assert bytes(long.driver[sizes.driver :]) == bytes(64)


def test_a_ring_at_an_odd_address_is_refused() -> None:
    sizes = RingLayout.sizes(8, EVENT_IDX)
    good = layout(8, *sizes)
    odd = RingLayout(8, good.descriptor, memoryview(bytearray(sizes.driver + 1))[1:], good.device)
    with pytest.raises(UnsupportedRing, match="odd address"):
        open_driver_queue(odd, EVENT_IDX)


def test_a_big_endian_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "NATIVE_IS_LITTLE", False)
    with pytest.raises(UnsupportedRing, match="little-endian"):
        RingBuilder().open_device()


def test_event_idx_without_a_full_fence_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Event words suppress by standing still, so there is no way not to suppress."""
    monkeypatch.setattr(ring_module, "FENCE_IS_FULL", False)
    RingBuilder().open_device()
    with pytest.raises(UnsupportedRing, match="EVENT_IDX"):
        RingBuilder(features=EVENT_IDX).open_device()


@pytest.mark.parametrize("entries", [0, 9])
def test_indirect_tables_are_not_longer_than_the_queue(entries: int) -> None:
    tables = IndirectTables(memoryview(bytearray(1 << 14)), GuestAddr(0), entries)
    with pytest.raises(UnsupportedRing, match=f"tables of {entries} entries, a queue of 8"):
        tables.check(8)


def test_indirect_tables_need_one_for_each_descriptor() -> None:
    needed = IndirectTables.size(8, 4)
    assert needed == 512
    IndirectTables(memoryview(bytearray(needed)), GuestAddr(0), 4).check(8)
    with pytest.raises(UnsupportedRing, match="511 bytes, 512 needed"):
        IndirectTables(memoryview(bytearray(needed - 1)), GuestAddr(0), 4).check(8)
