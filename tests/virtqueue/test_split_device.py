"""The device's side of a split ring, in front of drivers that keep the rules.  Those that do not: test_hostile.py."""

import pytest

from tests.engines import python_only
from tests.virtqueue.formats import SplitRings, kinds
from vhostuser.memory.map import GuestAddr
from vhostuser.testing.rings import BUFFERS_ADDR, RingBuilder
from vhostuser.virtqueue import split_device
from vhostuser.virtqueue.chain import Chain
from vhostuser.virtqueue.queue import PUBLISH_EVERY, DeviceQueue, Segment, UnsupportedRing
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.split import AvailFlags, DescFlags, UsedFlags

NEXT, WRITE, INDIRECT = DescFlags.NEXT, DescFlags.WRITE, DescFlags.INDIRECT


def request(ring: RingBuilder, head: int, data: bytes = b"request", room: int = 4) -> None:
    """Offer a chain of one readable and one writable element at descriptors ``head`` and ``head + 1``."""
    ring.chain(head, (ring.buffer(len(data), data), False), (ring.buffer(room), True))
    ring.offer(head)


def pop_one(queue: DeviceQueue) -> Chain:
    (chain,) = queue.pop(1)
    return chain


def test_an_empty_ring_gives_nothing(split: SplitRings) -> None:
    queue = split().open_device()
    assert queue.pop(8) == []
    assert queue.complete([]) is False


def test_a_chain_is_read_and_answered(split: SplitRings) -> None:
    ring = split()
    queue = ring.open_device()
    request(ring, 2, b"question", 8)
    chain = pop_one(queue)
    assert chain.head == 2
    assert chain.readable.read() == b"question"
    chain.writable.write(b"answer")
    assert (queue.in_flight, queue.base) == (1, 1)
    assert queue.complete([chain]) is True
    assert ring.used() == [(2, 6)]
    assert queue.in_flight == 0


def test_pop_takes_no_more_than_asked_for_in_the_drivers_order(split: SplitRings) -> None:
    ring = split()
    queue = ring.open_device()
    for head in (4, 0, 6):
        request(ring, head)
    assert [chain.head for chain in queue.pop(2)] == [4, 0]
    assert [chain.head for chain in queue.pop(2)] == [6]
    assert queue.pop(2) == []


@kinds("split", in_order=False)
def test_chains_are_completed_in_any_order(split: SplitRings) -> None:
    ring = split()
    queue = ring.open_device()
    for head in (0, 2, 4):
        request(ring, head)
    first, second, third = queue.pop(8)
    queue.complete([third, first])
    queue.complete([second])
    assert [head for head, _ in ring.used()] == [4, 0, 2]


def test_a_full_ring_is_legal(split: SplitRings) -> None:
    ring = split(4)
    queue = ring.open_device()
    for head in range(4):
        ring.chain(head, (ring.buffer(1), False))
    ring.offer(0, 1, 2, 3)
    assert len(queue.pop(100)) == 4


def test_a_chain_as_long_as_the_queue_is_legal(split: SplitRings) -> None:
    ring = split(8)
    ring.chain(0, *((ring.buffer(1, bytes([number])), False) for number in range(8)))
    ring.offer(0)
    assert pop_one(ring.open_device()).readable.read() == bytes(range(8))


def test_positions_wrap_at_65536(split: SplitRings) -> None:
    ring = split(4, base=65534)
    queue = ring.open_device()
    for number in range(6):
        request(ring, 0, bytes([number]))
        chain = pop_one(queue)
        assert chain.readable.read() == bytes([number])
        queue.complete([chain])
    assert queue.base == 4
    assert (ring.avail_idx, ring.used_idx) == (4, 4)


def test_a_base_beyond_16_bits_is_taken_modulo_65536(split: SplitRings) -> None:
    ring = split(base=5)
    ring.base = 65536 + 5
    queue = ring.open_device()
    assert queue.base == 5
    assert queue.pop(8) == []


def test_the_used_index_continues_where_the_memory_says(split: SplitRings) -> None:
    """SET_VRING_BASE carries the available index only."""
    ring = split(8, base=3)
    ring.set_used_idx(2)
    queue = ring.open_device()
    request(ring, 0)
    queue.complete(queue.pop(1))
    assert ring.used_idx == 3


def test_a_buffer_may_span_touching_regions(split: SplitRings) -> None:
    ring = split(regions=[(0x50_0000, 16), (0x50_0010, 16)])
    ring.memory.write(0x50_0000 + 10, b"abcdef")
    ring.memory.write(0x50_0010, b"ghij")
    ring.desc(0, 0x50_0000 + 10, 10)
    ring.offer(0)
    chain = pop_one(ring.open_device())
    assert len(chain.readable.views()) == 2
    assert chain.readable.read() == b"abcdefghij"


def test_empty_elements_are_skipped(split: SplitRings) -> None:
    """The standard does not mention them; the address of nothing need not exist."""
    ring = split()
    ring.desc(0, 0xDEAD_BEEF_0000, 0, NEXT, 1)
    ring.desc(1, *ring.buffer(2, b"ab"), NEXT, 2)
    ring.desc(2, 0, 0, WRITE)
    ring.offer(0)
    chain = pop_one(ring.open_device())
    assert chain.readable.read() == b"ab"
    assert chain.writable.remaining == 0


class TestIndirect:
    def test_a_table_takes_the_place_of_the_chain(self, split: SplitRings) -> None:
        ring = split()
        question, answer = ring.buffer(8, b"question"), ring.buffer(6)
        table = ring.table((*question, NEXT, 1), (*answer, WRITE, 0))
        ring.desc(5, *table, INDIRECT)
        ring.offer(5)
        chain = pop_one(ring.open_device())
        assert (chain.head, chain.readable.read(), chain.writable.remaining) == (5, b"question", 6)

    def test_direct_descriptors_may_come_first(self, split: SplitRings) -> None:
        ring = split()
        table = ring.table((*ring.buffer(3, b"def"), 0, 0))
        ring.desc(0, *ring.buffer(3, b"abc"), NEXT, 4)
        ring.desc(4, *table, INDIRECT)
        ring.offer(0)
        assert pop_one(ring.open_device()).readable.read() == b"abcdef"

    def test_entries_are_linked_by_next_not_by_place(self, split: SplitRings) -> None:
        ring = split()
        table = ring.table(
            (*ring.buffer(1, b"a"), NEXT, 2), (*ring.buffer(1, b"c"), 0, 0), (*ring.buffer(1, b"b"), NEXT, 1)
        )
        ring.desc(0, *table, INDIRECT)
        ring.offer(0)
        assert pop_one(ring.open_device()).readable.read() == b"abc"

    def test_the_write_flag_of_the_descriptor_itself_means_nothing(self, split: SplitRings) -> None:
        ring = split()
        table = ring.table((*ring.buffer(1, b"a"), 0, 0))
        ring.desc(0, *table, INDIRECT | WRITE)
        ring.offer(0)
        assert pop_one(ring.open_device()).readable.read() == b"a"

    def test_a_table_as_long_as_the_queue_is_legal(self, split: SplitRings) -> None:
        ring = split(4)
        entries = [(*ring.buffer(1, bytes([number])), NEXT if number < 3 else 0, number + 1) for number in range(4)]
        ring.desc(0, *ring.table(*entries), INDIRECT)
        ring.offer(0)
        assert pop_one(ring.open_device()).readable.read() == bytes(range(4))

    def test_the_table_is_copied_once(self, split: SplitRings) -> None:
        """What the driver does to it while the chain is in flight changes nothing."""
        ring = split()
        table = ring.table((*ring.buffer(4, b"good"), 0, 0))
        ring.desc(0, *table, INDIRECT)
        ring.offer(0)
        chain = pop_one(ring.open_device())
        ring.memory.write(table.addr, b"\xff" * 16)
        ring.desc(0, 2**64 - 1, 2**32 - 1, 0xFFFF, 0xFFFF)
        assert chain.readable.read() == b"good"


class TestNotification:
    @pytest.mark.parametrize(("flags", "expected"), [(0, True), (AvailFlags.NO_INTERRUPT, False), (0xFFFE, True)])
    @kinds("split", event_idx=False)
    def test_without_event_idx_the_drivers_flag_decides(self, split: SplitRings, flags: int, expected: bool) -> None:
        ring = split()
        queue = ring.open_device()
        ring.set_avail_flags(flags)
        request(ring, 0)
        assert queue.complete(queue.pop(1)) is expected

    @kinds("split", event_idx=True)
    def test_with_event_idx_the_first_completion_always_notifies(self, split: SplitRings) -> None:
        ring = split()
        queue = ring.open_device()
        ring.set_used_event(40000)
        ring.set_avail_flags(AvailFlags.NO_INTERRUPT)
        request(ring, 0)
        assert queue.complete(queue.pop(1)) is True
        request(ring, 0)
        assert queue.complete(queue.pop(1)) is False

    @kinds("split", event_idx=True)
    def test_with_event_idx_passing_the_event_notifies_once(self, split: SplitRings) -> None:
        ring = split(base=65535)
        queue = ring.open_device()
        ring.set_used_event(1)
        outcomes = []
        for _ in range(5):
            request(ring, 0)
            outcomes.append(queue.complete(queue.pop(1)))
        # Used elements 65535, 0, 1, 2, 3; the first notifies since nothing was signalled before.
        assert outcomes == [True, False, True, False, False]

    @kinds("split", event_idx=True)
    def test_nothing_completed_notifies_nobody(self, split: SplitRings) -> None:
        ring = split()
        assert ring.open_device().complete([]) is False

    def test_on_empty_a_legacy_driver_is_notified_when_the_ring_is_drained(self, split: SplitRings) -> None:
        ring = split(features=split.features | VirtioFeature.NOTIFY_ON_EMPTY)
        queue = ring.open_device()
        ring.set_avail_flags(AvailFlags.NO_INTERRUPT)
        ring.set_used_event(40000)
        request(ring, 0)
        assert queue.complete(queue.pop(8)) is True
        request(ring, 0)
        request(ring, 2)
        first, second = queue.pop(8)
        assert queue.complete([first]) is False, "one more is in flight"
        request(ring, 4)
        assert queue.complete([second]) is False, "one more is available"
        assert queue.complete(queue.pop(8)) is True

    @python_only
    @kinds("split", event_idx=False)
    def test_a_machine_without_a_full_fence_never_suppresses_and_always_notifies(
        self, split: SplitRings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(split_device, "FENCE_IS_FULL", False)
        ring = split()
        queue = ring.open_device()
        queue.disarm()
        assert ring.used_flags == 0
        ring.set_avail_flags(AvailFlags.NO_INTERRUPT)
        request(ring, 0)
        assert queue.complete(queue.pop(1)) is True


class TestArming:
    @kinds("split", event_idx=False)
    def test_without_event_idx_it_is_the_flag(self, split: SplitRings) -> None:
        ring = split()
        ring.set_avail_event(0xABCD)
        queue = ring.open_device()
        queue.disarm()
        assert ring.used_flags == UsedFlags.NO_NOTIFY
        assert queue.arm() is False
        assert ring.used_flags == 0
        assert ring.avail_event == 0xABCD, "the event word is not ours without EVENT_IDX"

    @kinds("split", event_idx=True)
    def test_with_event_idx_it_is_the_event_word(self, split: SplitRings) -> None:
        ring = split(base=65535)
        queue = ring.open_device()
        queue.disarm()
        request(ring, 0)
        queue.pop(1)
        assert queue.arm() is False
        assert (ring.used_flags, ring.avail_event) == (0, 0)

    def test_what_arrived_meanwhile_forbids_sleep(self, split: SplitRings) -> None:
        ring = split()
        queue = ring.open_device()
        request(ring, 0)
        assert queue.arm() is True
        queue.pop(1)
        assert queue.arm() is False


class TestPublishing:
    def test_used_elements_are_published_in_groups(self, split: SplitRings) -> None:
        """A driver that sleeps is not kept waiting for the whole batch."""
        ring = split(64)
        queue = ring.open_device()
        for head in range(PUBLISH_EVERY + 4):
            ring.chain(head, (ring.buffer(1), False))
            ring.offer(head)
        seen: list[int] = []

        def watched(chains: list[Chain]) -> object:
            for chain in chains:
                seen.append(ring.used_idx)
                yield chain

        queue.complete(watched(queue.pop(64)))  # type: ignore[arg-type]
        assert seen == [0] * PUBLISH_EVERY + [PUBLISH_EVERY] * 4
        assert ring.used_idx == PUBLISH_EVERY + 4

    def test_completing_twice_is_a_mistake_that_does_not_reach_the_ring(self, split: SplitRings) -> None:
        ring = split()
        queue = ring.open_device()
        request(ring, 0)
        request(ring, 2)
        first, second = queue.pop(8)
        with pytest.raises(ValueError, match="not in flight"):
            queue.complete([first, first, second])
        assert [head for head, _ in ring.used()] == [0], "what came before the mistake is given back"
        queue.complete([second])
        assert [head for head, _ in ring.used()] == [0, 2]

    def test_a_chain_of_another_queue_is_not_taken_for_ours(self, split: SplitRings) -> None:
        one, other = split(), split()
        queue = one.open_device(queue_index=1)
        request(one, 0)
        request(other, 0)
        queue.pop(1)
        with pytest.raises(ValueError, match=r"split ring 1: <Chain 0: .*> is not in flight"):
            queue.complete(other.open_device().pop(1))

    def test_nothing_to_complete_leaves_the_ring_alone(self, split: SplitRings) -> None:
        """After GET_VRING_BASE not a byte of it may change."""
        ring = split()
        queue = ring.open_device()
        ring.set_used_idx(77)
        queue.complete([])
        assert ring.used_idx == 77

    def test_a_used_length_that_does_not_fit_is_cut(self, split: SplitRings) -> None:
        """2^32 bytes may be written, and the field has 32 bits; less than the truth is legal."""
        size = 1 << 27
        ring = split(32, regions=[(1 << 32, size)])
        ring.chain(0, *[(Segment(GuestAddr(1 << 32), size), True)] * 32)
        ring.offer(0)
        chain = pop_one(queue := ring.open_device())
        chain.writable.wrote(1 << 32)
        queue.complete([chain])
        assert ring.used() == [(0, 2**32 - 1)]


class TestRebinding:
    def test_positions_go_on_in_the_new_memory(self, split: SplitRings) -> None:
        old, new = split(), split()
        queue = old.open_device()
        request(old, 0, b"old")
        chain = pop_one(queue)
        new.set_avail_idx(1)
        queue.rebind(new.layout, new.memory.guest)
        request(new, 2, b"new")
        assert pop_one(queue).readable.read() == b"new"
        assert chain.readable.read() == b"old", "a chain in flight keeps its memory"
        chain.writable.write(b"ok")
        queue.complete([chain])
        assert old.used_idx == 0
        assert new.used() == [(0, 2)]
        assert queue.base == 2

    def test_another_size_is_refused_and_changes_nothing(self, split: SplitRings) -> None:
        ring, other = split(8), split(16)
        queue = ring.open_device(queue_index=3)
        with pytest.raises(UnsupportedRing, match="split ring 3: resized from 8 to 16"):
            queue.rebind(other.layout, other.memory.guest)
        request(ring, 0)
        assert len(queue.pop(8)) == 1


@kinds("split", event_idx=False)
def test_event_words_are_left_alone_without_event_idx(split: SplitRings) -> None:
    ring = split()
    ring.set_used_event(0x1234)
    ring.set_avail_event(0x5678)
    queue = ring.open_device()
    for _ in range(3):
        request(ring, 0)
        queue.disarm()
        queue.complete(queue.pop(1))
        queue.arm()
    assert ring.avail_event == 0x5678


def test_the_descriptor_table_and_what_is_readable_stay_as_they_were(split: SplitRings) -> None:
    ring = split()
    queue = ring.open_device()
    data = ring.buffer(4, b"data")
    ring.chain(0, (data, False), (Segment(GuestAddr(BUFFERS_ADDR + 4096), 4), True))
    ring.offer(0)
    before = bytes(ring.layout.descriptor), bytes(ring.layout.driver)
    chain = pop_one(queue)
    chain.writable.write(b"yes!")
    queue.complete([chain])
    assert (bytes(ring.layout.descriptor), bytes(ring.layout.driver)) == before
    assert ring.memory.read(*data) == b"data"
    assert ring.memory.intact
