"""Both sides of a ring against each other: what one writes, the other understands."""

import pytest

from tests.virtqueue.formats import AnyRings, kinds, near_the_end
from vhostuser.testing.packed_rings import PackedRingBuilder
from vhostuser.testing.rings import BuiltRing
from vhostuser.virtqueue.queue import DeviceQueue, Segment
from vhostuser.wire.features import VirtioFeature


@pytest.fixture
def ring(rings: AnyRings) -> BuiltRing:
    """An empty ring of eight entries, close to where its positions wrap."""
    return rings(8, base=near_the_end(rings.features))


def upper(queue: DeviceQueue, limit: int = 8) -> bool:
    """A device that answers in capitals."""
    chains = queue.pop(limit)
    for chain in chains:
        if chain.writable.remaining:
            chain.writable.write(chain.readable.read().upper())
    return queue.complete(chains)


def test_requests_are_answered_across_the_wrap(ring: BuiltRing) -> None:
    driver, device = ring.open_driver(indirect=4), ring.open_device()
    first, second, answer = ring.buffer(3, b"abc"), ring.buffer(2, b"de"), ring.buffer(16)
    for number in range(20):
        driver.add([first, second], [Segment(answer.addr, 4), Segment(type(answer.addr)(answer.addr + 4), 4)], number)
        kick = driver.publish()
        assert kick or (number and ring.features & VirtioFeature.EVENT_IDX), "the ring begins armed"
        upper(device)
        assert driver.reap(8) == [(number, 5)]
        assert ring.memory.read(answer.addr, 5) == b"ABCDE"
    if isinstance(ring, PackedRingBuilder):
        # A position for each entry, so for each chain only when it is in a table.
        end = int(ring.after(ring.available_at, 20 if ring.features & VirtioFeature.INDIRECT_DESC else 20 * 4))
        assert device.base == end | end << 16
    else:
        assert device.base == (65530 + 20) % 65536
    assert (driver.free, driver.outstanding, device.in_flight) == (8, 0, 0)


def test_a_full_ring_drains(ring: BuiltRing) -> None:
    driver, device = ring.open_driver(indirect=4), ring.open_device()
    for number in range(8):
        driver.add([ring.buffer(1, b"a")], [], number)
    driver.publish()
    upper(device, 3)
    assert [used.token for used in driver.reap(8)] == [0, 1, 2]
    upper(device)
    assert [used.token for used in driver.reap(8)] == [3, 4, 5, 6, 7]
    assert driver.free == 8


def test_nobody_sleeps_on_work(ring: BuiltRing) -> None:
    """Each side goes to sleep by the rules and must be woken by what the other does next."""
    driver, device = ring.open_driver(indirect=4), ring.open_device()
    buffer = ring.buffer(1, b"a")
    for number in range(30):
        assert device.arm() is False
        assert driver.arm() is False
        driver.add([buffer], [buffer], number)
        assert driver.publish() is True, "the device sleeps: kick it"
        device.disarm()
        assert upper(device) is True, "the driver sleeps: call it"
        driver.disarm()
        assert len(driver.reap(8)) == 1


def test_a_side_that_works_is_not_woken(ring: BuiltRing) -> None:
    driver, device = ring.open_driver(indirect=4), ring.open_device()
    buffer = ring.buffer(1, b"a")

    def round_trip() -> tuple[bool, bool]:
        driver.add([buffer], [buffer], None)
        outcome = driver.publish(), upper(device)
        driver.reap(8)
        return outcome

    round_trip()  # with EVENT_IDX the ring begins armed
    device.disarm()
    driver.disarm()
    assert round_trip() == (False, False)


def test_a_device_goes_on_where_another_stopped(ring: BuiltRing) -> None:
    driver, device = ring.open_driver(indirect=4), ring.open_device()
    for number in range(3):
        driver.add([ring.buffer(1, b"a")], [], number)
        driver.publish()
    upper(device, 2)
    ring.base = device.base
    upper(ring.open_device())
    assert [used.token for used in driver.reap(8)] == [0, 1, 2]


@kinds("rings", in_order=False)
def test_chains_that_end_in_any_order_come_back_in_that_order(ring: BuiltRing) -> None:
    """In a packed ring, used descriptors then land on the entries of chains that are still in flight."""
    driver, device = ring.open_driver(indirect=4), ring.open_device()
    buffers = [ring.buffer(1, bytes([letter])) for letter in b"abc"]
    for lap in range(5):
        for number, buffer in enumerate(buffers):
            driver.add([buffer] * (2 - number // 2), [buffer] * (number // 2), number)
        driver.publish()
        first, second, third = device.pop(8)
        device.complete([third])
        assert first.readable.read() == b"aa", lap
        device.complete([first])
        assert second.readable.read() == b"bb", lap
        device.complete([second])
        assert [used.token for used in driver.reap(8)] == [2, 0, 1]
        assert driver.free == 8


def test_nothing_is_visible_before_it_is_published(ring: BuiltRing) -> None:
    driver, device = ring.open_driver(indirect=4), ring.open_device()
    buffer = ring.buffer(1, b"a")
    for _ in range(2):
        for number in range(2):
            driver.add([buffer], [buffer], number)
        assert device.pop(8) == []
        assert device.arm() is False
        assert driver.reap(8) == []
        driver.publish()
        upper(device)
        assert [used.token for used in driver.reap(8)] == [0, 1]
