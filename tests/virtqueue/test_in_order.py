"""IN_ORDER: what is given back, and what a driver makes of it when the device names one chain and means several."""

from __future__ import annotations

import pytest

from vhostuser.testing.packed_rings import PackedRingBuilder, build_ring
from vhostuser.testing.rings import BuiltRing, RingBuilder
from vhostuser.virtqueue.queue import BrokenQueue, DeviceQueue, DriverQueue, Used
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.split import DescFlags

IN_ORDER = int(VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC | VirtioFeature.IN_ORDER)
EVENTS = int(VirtioFeature.EVENT_IDX)
FORMATS = {"split": IN_ORDER, "packed": IN_ORDER | int(VirtioFeature.RING_PACKED)}


@pytest.fixture(params=FORMATS)
def ring(request: pytest.FixtureRequest) -> BuiltRing:
    """An empty ring of eight entries."""
    return build_ring(8, FORMATS[request.param])


def offered(ring: BuiltRing, count: int, room: int = 4) -> tuple[DriverQueue[int], DeviceQueue]:
    """Both sides, and chains of one to three elements made available, numbered, the last with ``room`` to write."""
    driver, device = ring.open_driver(), ring.open_device()
    for number in range(count):
        driver.add([ring.buffer(1, b"q")] * (number % 3), [ring.buffer(room)], number)
    driver.publish()
    return driver, device


def numbers(used: list[Used[int]]) -> list[int]:
    return [token for token, _ in used]


class TestADevice:
    def test_that_is_done_with_a_chain_early_holds_it_back(self, ring: BuiltRing) -> None:
        driver, device = offered(ring, 3)
        first, second, third = device.pop(8)
        assert device.complete([third]) is False, "nothing to notify anybody of"
        assert driver.reap(8) == []
        assert device.complete([second]) is False
        assert device.in_flight == 3
        assert device.complete([first]) is True
        assert numbers(driver.reap(8)) == [0, 1, 2]
        assert device.in_flight == 0

    def test_gives_a_chain_back_when_those_in_front_are_done_no_later(self, ring: BuiltRing) -> None:
        driver, device = offered(ring, 4)
        first, second, third, fourth = device.pop(8)
        device.complete([third, first])
        assert numbers(driver.reap(8)) == [0]
        device.complete([second])
        assert numbers(driver.reap(8)) == [1, 2]
        device.complete([fourth])
        assert numbers(driver.reap(8)) == [3]

    def test_keeps_the_order_across_batches(self, ring: BuiltRing) -> None:
        driver, device = offered(ring, 4)
        early, late = device.pop(2), device.pop(2)
        device.complete(late)
        assert driver.reap(8) == []
        device.complete(reversed(early))
        assert numbers(driver.reap(8)) == [0, 1, 2, 3]

    def test_tells_the_length_of_each(self, ring: BuiltRing) -> None:
        driver, device = offered(ring, 3)
        chains = device.pop(8)
        for chain, answer in zip(chains, (b"", b"ab", b"abcd"), strict=True):
            chain.writable.write(answer)
        device.complete(reversed(chains))
        assert driver.reap(8) == [(0, 0), (1, 2), (2, 4)]

    def test_does_not_take_a_held_chain_for_done_twice(self, ring: BuiltRing) -> None:
        driver, device = offered(ring, 2)
        first, second = device.pop(8)
        device.complete([second])
        with pytest.raises(ValueError, match=r"ring: <Chain \d: .*> is not in flight: completed before"):
            device.complete([second])
        device.complete([first])
        with pytest.raises(ValueError, match="is not in flight"):
            device.complete([first])
        assert numbers(driver.reap(8)) == [0, 1]

    def test_gives_back_what_comes_before_a_mistake(self, ring: BuiltRing) -> None:
        driver, device = offered(ring, 2)
        first, second = device.pop(8)
        with pytest.raises(ValueError, match="is not in flight"):
            device.complete([first, first, second])
        assert numbers(driver.reap(8)) == [0]

    def test_does_not_take_the_chains_of_another(self, ring: BuiltRing) -> None:
        _, device = offered(ring, 1)
        other = build_ring(8, ring.features)
        (stranger,) = offered(other, 1)[1].pop(8)
        with pytest.raises(ValueError, match="or from elsewhere"):
            device.complete([stranger])

    def test_wakes_a_driver_that_sleeps_when_the_order_lets_it(self, ring: BuiltRing) -> None:
        ring = build_ring(8, ring.features | EVENTS)
        driver, device = offered(ring, 3)
        first, second, third = device.pop(8)
        device.complete([first])
        driver.reap(8)
        assert driver.arm() is False
        assert device.complete([third]) is False
        assert driver.arm() is False
        assert device.complete([second]) is True


class Skipping:
    """A device that writes one used element for a batch of chains, that of the last."""

    def __init__(self, ring: BuiltRing) -> None:
        self.ring = ring

    def use(self, *counts: int, length: int = 0, announced: int | None = None) -> None:
        """Use batches of so many chains each, naming the last of each with ``length`` bytes written."""
        for count in counts:
            device = self.ring.open_device()  # a new one each time: it knows nothing of chains in flight
            chains = device.pop(count)
            self.ring.base = device.base & 0xFFFF  # of a packed ring: nothing in flight
            if isinstance(self.ring, PackedRingBuilder):
                self.ring.use(chains[-1].head, length, sum(chain.entries for chain in chains))
            elif isinstance(self.ring, RingBuilder):
                self.ring.use((chains[-1].head, length))
                self.ring.set_used_idx((self.ring.used_idx - 1 + (announced or count)) % 65536)


class TestADriver:
    def test_takes_a_batch_for_all_its_chains(self, ring: BuiltRing) -> None:
        driver, _ = offered(ring, 4)
        Skipping(ring).use(3, length=1)
        assert driver.arm() is True
        assert driver.reap(8) == [(0, 4), (1, 4), (2, 1)], "those that are skipped are filled"
        assert driver.arm() is False
        assert driver.outstanding == 1

    def test_finds_the_next_element_where_the_batch_ends(self, ring: BuiltRing) -> None:
        driver, _ = offered(ring, 4)
        Skipping(ring).use(2, 1, 1, length=1)
        assert driver.reap(8) == [(0, 4), (1, 1), (2, 1), (3, 1)]

    def test_may_take_less_than_a_batch(self, ring: BuiltRing) -> None:
        driver, _ = offered(ring, 4)
        Skipping(ring).use(4, length=2)
        found = []
        for left in (3, 2, 1, 0):
            assert driver.arm() is True, "there is more: do not sleep"
            found += driver.reap(1)
            assert driver.outstanding == left
        assert driver.arm() is False
        assert found == [(0, 4), (1, 4), (2, 4), (3, 2)]
        assert driver.free == 8

    def test_goes_on_around_the_ring(self, ring: BuiltRing) -> None:
        driver, device = ring.open_driver(), Skipping(ring)
        buffer = ring.buffer(1)
        for lap in range(12):
            for number in range(3):
                driver.add([], [buffer] * (1 + number % 2), (lap, number))
            driver.publish()
            device.use(lap % 3 + 1, *[1] * (2 - lap % 3))
            assert [token for token, _ in driver.reap(8)] == [(lap, 0), (lap, 1), (lap, 2)]
        assert driver.free == 8

    def test_does_not_believe_a_chain_that_is_not_out(self, ring: BuiltRing) -> None:
        driver, _ = offered(ring, 1)
        if isinstance(ring, PackedRingBuilder):
            ring.use(5, 0)
        elif isinstance(ring, RingBuilder):
            ring.use((5, 0))
        with pytest.raises(BrokenQueue, match="names chain 5, which is not outstanding"):
            driver.reap(8)

    def test_does_not_believe_more_bytes_than_offered(self, ring: BuiltRing) -> None:
        driver, _ = offered(ring, 2)
        Skipping(ring).use(2, length=5)
        with pytest.raises(BrokenQueue, match="says 5 bytes written to chain 1, which offered 4"):
            driver.reap(8)
        assert driver.arm() is True


class TestASplitDriver:
    def test_does_not_believe_a_batch_longer_than_the_index_says(self) -> None:
        ring = RingBuilder(8, IN_ORDER)
        driver, _ = offered(ring, 4)
        Skipping(ring).use(1, 3, announced=1)
        assert driver.reap(8) == [(0, 0)], "the good one first"
        with pytest.raises(BrokenQueue, match=r"used element names chain \d, number 3 of 1 that were used"):
            driver.reap(8)

    def test_does_not_believe_an_index_beyond_what_is_out(self) -> None:
        ring = RingBuilder(8, IN_ORDER)
        driver, _ = offered(ring, 2)
        ring.set_used_idx(3)
        with pytest.raises(BrokenQueue, match=r"used.idx jumped from 0 to 3, with 2 chains outstanding"):
            driver.reap(8)

    def test_lays_chains_one_after_the_other(self) -> None:
        """2.7.5.2: `next` is one more than the descriptor it stands in, and 0 at the end of the table."""
        ring = RingBuilder(4, IN_ORDER)
        driver, device = ring.open_driver(), ring.open_device()
        buffer = ring.buffer(1)
        expected = 0
        for number in range(9):
            for length in (1 + number % 2, 2):
                driver.add([buffer] * length, [], None)
                driver.publish()
                (chain,) = device.pop(1)
                assert chain.head == expected
                if length == 2:
                    following = ring.layout.descriptor[16 * expected + 12 : 16 * expected + 16].cast("H")
                    assert list(following) == [DescFlags.NEXT, (expected + 1) % 4]
                expected = (expected + length) % 4
                device.complete([chain])
                driver.reap(8)
