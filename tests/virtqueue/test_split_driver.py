"""The driver's side of a split ring, in front of devices that keep the rules and of some that do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engines import python_only
from tests.virtqueue.formats import SplitRings, drawn, kinds
from vhostuser.memory.map import GuestAddr
from vhostuser.testing.rings import RingBuilder
from vhostuser.virtqueue import split_driver
from vhostuser.virtqueue.queue import BrokenQueue, DriverQueue, QueueFull, Segment, Used
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.schema import codec
from vhostuser.wire.split import AvailFlags, DescFlags, UsedFlags, VirtqDesc

NEXT, WRITE, INDIRECT = DescFlags.NEXT, DescFlags.WRITE, DescFlags.INDIRECT


def descs(data: bytes) -> list[tuple[int, ...]]:
    return list(codec(VirtqDesc).iter_unpack(data))


def segment(number: int, length: int = 16) -> Segment:
    return Segment(GuestAddr(0x1000 * number), length)


def published(queue: DriverQueue[str], *tokens: str, room: int = 8) -> None:
    for token in tokens:
        queue.add([], [segment(1, room)], token)
    queue.publish()


class TestAdding:
    def test_a_chain_is_linked_in_the_table_and_offered_by_its_head(self, split: SplitRings) -> None:
        ring = split(8)
        queue = ring.open_driver()
        queue.add([segment(1), segment(2)], [segment(3, 512)], "token")
        assert ring.avail_idx == 0, "nothing is visible before publish"
        assert queue.publish() is True
        first, second, third, _ = descs(bytes(ring.layout.descriptor))[:4]
        assert [first, second, third] == [(0x1000, 16, NEXT, 1), (0x2000, 16, NEXT, 2), (0x3000, 512, WRITE, 0)]
        assert ring.layout.driver.cast("H")[2] == 0
        assert (ring.avail_idx, queue.free, queue.outstanding) == (1, 5, 1)

    def test_several_chains_become_visible_at_once(self, split: SplitRings) -> None:
        ring = split(8)
        queue = ring.open_driver()
        queue.add([segment(1)], [], 1)
        queue.add([segment(2)], [], 2)
        queue.publish()
        assert ring.avail_idx == 2

    def test_a_full_queue_says_so_and_is_unchanged(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver(queue_index=7)
        queue.add([segment(1), segment(2), segment(3)], [], "a")
        with pytest.raises(QueueFull, match="split ring 7: 2 descriptors needed, 1 of 4 free"):
            queue.add([segment(1)], [segment(2)], "b")
        queue.add([segment(1)], [], "c")
        with pytest.raises(QueueFull):
            queue.add([segment(1)], [], "d")
        assert (queue.free, queue.outstanding) == (0, 2)

    @pytest.mark.parametrize("count", [0, 5])
    def test_a_chain_that_can_never_fit_is_a_mistake(self, split: SplitRings, count: int) -> None:
        queue = split(4).open_driver()
        with pytest.raises(ValueError, match=f"a chain of {count} segments, the queue has 4 entries"):
            queue.add([segment(1)] * count, [], None)

    @pytest.mark.parametrize("writable", [False, True])
    def test_an_empty_segment_is_a_mistake(self, split: SplitRings, writable: bool) -> None:
        queue = split(4).open_driver()
        empty = [segment(1), segment(2, 0)]
        with pytest.raises(ValueError, match="segment at 0x2000 has 0 bytes"):
            queue.add([] if writable else empty, empty if writable else [], None)
        assert (queue.free, queue.outstanding) == (4, 0)

    def test_more_than_2_to_the_32_bytes_are_a_mistake(self, split: SplitRings) -> None:
        queue = split(4).open_driver()
        queue.add([segment(1, 2**31)], [segment(2, 2**31)], "just fits")
        with pytest.raises(ValueError, match="more than 4294967296 bytes"):
            queue.add([segment(1, 2**31)], [segment(2, 2**31 + 1)], None)


class TestIndirect:
    def test_a_chain_of_several_segments_takes_one_descriptor(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver(indirect=3)
        queue.add([segment(1)], [segment(2, 512), segment(3, 1)], "token")
        queue.publish()
        assert queue.free == 3
        (addr, length, flags, _), *_ = descs(bytes(ring.layout.descriptor))
        assert (length, flags) == (48, INDIRECT)
        assert descs(ring.memory.read(addr, length)) == [
            (0x1000, 16, NEXT, 1),
            (0x2000, 512, NEXT | WRITE, 2),
            (0x3000, 1, WRITE, 0),
        ]

    def test_each_descriptor_has_a_table_of_its_own(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver(indirect=2)
        for _ in range(4):
            queue.add([segment(1)], [segment(2)], None)
        addresses = [addr for addr, *_ in descs(bytes(ring.layout.descriptor))]
        assert [addr - addresses[0] for addr in addresses] == [0, 32, 64, 96]

    def test_a_single_segment_needs_no_table(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver(indirect=2)
        queue.add([segment(1)], [], None)
        assert descs(bytes(ring.layout.descriptor))[0] == (0x1000, 16, 0, 0)

    def test_a_chain_longer_than_a_table_is_linked_directly(self, split: SplitRings) -> None:
        queue = split(8).open_driver(indirect=2)
        queue.add([segment(1), segment(2)], [segment(3)], None)
        assert queue.free == 5

    @kinds("split", indirect=False)
    def test_tables_are_not_used_when_the_feature_was_not_negotiated(self, split: SplitRings) -> None:
        queue = split(8).open_driver(indirect=4)
        queue.add([segment(1)], [segment(2)], None)
        assert queue.free == 6


class TestReaping:
    @kinds("split", in_order=False)
    def test_tokens_come_back_with_their_used_length(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        published(queue, "a", "b", "c")
        assert queue.reap(8) == []
        heads = list(ring.layout.driver.cast("H")[2:5])
        ring.use((heads[2], 8), (heads[0], 0))
        assert queue.reap(8) == [Used("c", 8), Used("a", 0)]
        assert (queue.free, queue.outstanding) == (3, 1)

    def test_no_more_than_asked_for(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        published(queue, "a", "b")
        ring.use((0, 1), (1, 2))
        assert [used.token for used in queue.reap(1)] == ["a"]
        assert [used.token for used in queue.reap(1)] == ["b"]

    def test_every_descriptor_of_a_chain_is_free_again(self, split: SplitRings) -> None:
        ring = split(4, base=65533)
        queue = ring.open_driver()
        for _ in range(20):
            queue.add([segment(1), segment(2)], [segment(3)], "x")
            queue.publish()
            head = ring.layout.driver.cast("H")[2 + (ring.avail_idx - 1) % 4]
            ring.use((head, 16))
            assert queue.reap(4) == [Used("x", 16)]
        assert queue.free == 4

    def test_descriptors_in_shared_memory_are_never_believed(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        queue.add([segment(1), segment(2)], [segment(3)], "x")
        queue.publish()
        ring.layout.descriptor[:] = b"\xff" * 64
        ring.use((0, 16))
        assert queue.reap(4) == [Used("x", 16)]
        assert queue.free == 4


class TestALyingDevice:
    @pytest.mark.parametrize("head", [1, 4, 0x10000, 0xFFFF_FFFF])
    def test_that_names_a_chain_which_is_not_out(self, split: SplitRings, head: int) -> None:
        ring = split(4)
        queue = ring.open_driver(queue_index=2)
        published(queue, "a")
        ring.use((head, 0))
        with pytest.raises(BrokenQueue, match=f"split ring 2: used element names chain {head}, which is not") as error:
            queue.reap(8)
        assert error.value.ring == "split ring 2"
        assert error.value.reason.startswith("used element names")

    def test_that_uses_a_chain_twice(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        published(queue, "a", "b")
        ring.use((0, 0), (0, 0))
        assert queue.reap(8) == [Used("a", 0)], "the good one first"
        with pytest.raises(BrokenQueue, match="chain 0, which is not outstanding"):
            queue.reap(8)

    def test_that_uses_a_chain_before_it_was_published(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        published(queue, "a")
        queue.add([], [segment(1)], "b")
        ring.use((1, 0))
        with pytest.raises(BrokenQueue, match="chain 1, which is not outstanding"):
            queue.reap(8)

    def test_that_claims_more_bytes_than_it_was_offered(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        published(queue, "a", room=8)
        ring.use((0, 9))
        with pytest.raises(BrokenQueue, match="9 bytes written to chain 0, which offered 8"):
            queue.reap(8)

    @pytest.mark.parametrize("used_idx", [2, 5, 65535])
    def test_whose_index_jumps(self, split: SplitRings, used_idx: int) -> None:
        ring = split(4)
        queue = ring.open_driver()
        published(queue, "a")
        ring.set_used_idx(used_idx)
        with pytest.raises(BrokenQueue, match=f"used.idx jumped from 0 to {used_idx}, with 1 chains outstanding"):
            queue.reap(8)

    def test_is_not_believed_again(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        published(queue, "a")
        ring.set_used_idx(9)
        for _ in range(2):
            with pytest.raises(BrokenQueue, match="jumped"):
                queue.reap(8)
            assert queue.arm() is True, "there is an error to hear of: do not sleep"
            ring.set_used_idx(0)


class TestNotification:
    @pytest.mark.parametrize(("flags", "expected"), [(0, True), (UsedFlags.NO_NOTIFY, False), (0xFFFE, True)])
    @kinds("split", event_idx=False)
    def test_without_event_idx_the_devices_flag_decides(self, split: SplitRings, flags: int, expected: bool) -> None:
        ring = split()
        queue = ring.open_driver()
        ring.set_used_flags(flags)
        queue.add([segment(1)], [], None)
        assert queue.publish() is expected

    @kinds("split", event_idx=True)
    def test_with_event_idx_passing_the_event_kicks(self, split: SplitRings) -> None:
        ring = split(8, base=65535)
        queue = ring.open_driver()
        ring.set_used_flags(UsedFlags.NO_NOTIFY)
        ring.set_avail_event(1)
        outcomes = []
        for _ in range(4):
            queue.add([segment(1)], [], None)
            outcomes.append(queue.publish())
        assert outcomes == [False, False, True, False], "entries 65535, 0, 1, 2"

    @kinds("split", event_idx=True)
    def test_with_event_idx_a_batch_kicks_when_the_event_is_inside_it(self, split: SplitRings) -> None:
        ring = split(8)
        queue = ring.open_driver()
        ring.set_avail_event(2)
        for _ in range(4):
            queue.add([segment(1)], [], None)
        assert queue.publish() is True

    def test_nothing_added_means_nothing_to_kick_for(self, split: SplitRings) -> None:
        assert split().open_driver().publish() is False

    @python_only
    @kinds("split", event_idx=False)
    def test_a_machine_without_a_full_fence_never_suppresses_and_always_kicks(
        self, split: SplitRings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(split_driver, "FENCE_IS_FULL", False)
        ring = split()
        queue = ring.open_driver()
        queue.disarm()
        assert ring.layout.driver.cast("H")[0] == 0
        ring.set_used_flags(UsedFlags.NO_NOTIFY)
        queue.add([segment(1)], [], None)
        assert queue.publish() is True

    @kinds("split", event_idx=False)
    def test_without_event_idx_arming_is_the_flag(self, split: SplitRings) -> None:
        ring = split()
        queue = ring.open_driver()
        ring.set_used_event(0xABCD)
        queue.disarm()
        assert ring.layout.driver.cast("H")[0] == AvailFlags.NO_INTERRUPT
        assert queue.arm() is False
        assert ring.layout.driver.cast("H")[0] == 0
        assert ring.layout.driver.cast("H")[-1] == 0xABCD, "the event word is not ours without EVENT_IDX"

    @kinds("split", event_idx=True)
    def test_with_event_idx_arming_is_the_event_word(self, split: SplitRings) -> None:
        ring = split(4)
        queue = ring.open_driver()
        queue.disarm()
        published(queue, "a")
        ring.use((0, 0))
        assert queue.arm() is True, "arrived meanwhile"
        queue.reap(1)
        assert queue.arm() is False
        assert (ring.layout.driver.cast("H")[0], ring.layout.driver.cast("H")[-1]) == (0, 1)


def test_opening_prepares_the_ring_at_its_base(split: SplitRings) -> None:
    ring = split(4, base=7)
    for part in (ring.layout.driver, ring.layout.device):
        part[:] = b"\xff" * len(part)
    queue = ring.open_driver()
    assert (ring.avail_idx, ring.used_idx, ring.used_flags) == (7, 7, 0)
    assert queue.reap(4) == []
    event_words = [ring.layout.driver.cast("H")[-1], ring.avail_event]
    assert event_words == ([7, 7] if split.has(VirtioFeature.EVENT_IDX) else [0xFFFF, 0xFFFF])


@given(device_part=st.binary(min_size=38, max_size=38), features=st.sampled_from(drawn(packed=False)))
def test_no_used_ring_whatsoever_raises_anything_but_broken_queue(device_part: bytes, features: int) -> None:
    ring = RingBuilder(4, features)
    queue = ring.open_driver()
    published(queue, "a", "b", "c")
    ring.layout.device[:] = device_part
    tokens = []
    try:
        while reaped := queue.reap(2):
            tokens += [used.token for used in reaped]
    except BrokenQueue:
        pass
    assert sorted(tokens) == sorted(set(tokens))
    assert ring.memory.intact
