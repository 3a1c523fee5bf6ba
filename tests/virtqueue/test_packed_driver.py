"""The driver's side of a packed ring, in front of devices that keep the rules and of some that do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.virtqueue.formats import PackedRings, kinds
from vhostuser.memory.map import GuestAddr
from vhostuser.testing.packed_rings import PackedRingBuilder
from vhostuser.virtqueue.queue import BrokenQueue, DriverQueue, QueueFull, Segment, UnsupportedRing, Used
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.packed import PackedDesc, PackedDescFlags
from vhostuser.wire.schema import codec

NEXT, WRITE, INDIRECT = int(PackedDescFlags.NEXT), int(PackedDescFlags.WRITE), int(PackedDescFlags.INDIRECT)


def segment(number: int, length: int = 16) -> Segment:
    return Segment(GuestAddr(0x1000 * number), length)


def published(queue: DriverQueue[str], *tokens: str, room: int = 8) -> None:
    for token in tokens:
        queue.add([], [segment(1, room)], token)
    queue.publish()


def driver_of(ring: PackedRingBuilder) -> DriverQueue[str]:
    return ring.open_driver(queue_index=2)


class TestAdding:
    def test_a_chain_is_a_list_with_flags_of_its_lap(self, packed: PackedRings) -> None:
        ring = packed(4, base=0x8002_8002)
        queue = ring.open_driver()
        queue.add([segment(1), segment(2)], [segment(3, 512)], "token")
        assert [ring.entry(offset)[3] for offset in (2, 3, 0)] == [0, 0x0081, 0x8002], "the first entry is held back"
        assert queue.publish() is True
        assert ring.entry(2) == (0x1000, 16, 0, 0x0081)
        assert ring.entry(3) == (0x2000, 16, 0, 0x0081)
        assert ring.entry(0) == (0x3000, 512, 0, 0x8002)
        assert (queue.free, queue.outstanding) == (1, 1)

    @pytest.mark.parametrize(
        ("base", "readable", "writable", "flags"),
        [(0x8000_8000, 0, 1, "8200"), (0x0001_0001, 2, 0, "0180"), (0x8000_8000, 1, 0, "8000")],
    )
    def test_flags_are_those_of_the_standard_byte_for_byte(
        self, packed: PackedRings, base: int, readable: int, writable: int, flags: str
    ) -> None:
        ring = packed(4, base=base)
        queue = ring.open_driver()
        queue.add([segment(1)] * readable, [segment(1)] * writable, None)
        queue.publish()
        assert ring.memory.read(ring.desc_addr + 16 * (base & 0xF) + 14, 2) == bytes.fromhex(flags)

    def test_several_chains_become_visible_at_once_the_first_of_all_last(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue = ring.open_driver()
        queue.add([segment(1)], [], 1)
        queue.add([segment(2), segment(3)], [], 2)
        assert [ring.entry(offset)[3] for offset in range(4)] == [0, 0x0081, 0x0080, 0]
        queue.publish()
        assert ring.entry(0)[3] == 0x0080

    def test_each_chain_has_an_id_of_its_own(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue = ring.open_driver()
        for token in range(4):
            queue.add([segment(1)], [], token)
        assert sorted(ring.entry(offset)[2] for offset in range(4)) == [0, 1, 2, 3]

    def test_a_full_queue_says_so_and_is_unchanged(self, packed: PackedRings) -> None:
        queue = driver_of(packed(3))
        queue.add([segment(1), segment(2)], [], "a")
        with pytest.raises(QueueFull, match="packed ring 2: 2 descriptors needed, 1 of 3 free"):
            queue.add([segment(1)], [segment(2)], "b")
        queue.add([segment(1)], [], "c")
        with pytest.raises(QueueFull):
            queue.add([segment(1)], [], "d")
        assert (queue.free, queue.outstanding) == (0, 2)

    def test_what_can_never_be_added_is_a_mistake(self, packed: PackedRings) -> None:
        queue = driver_of(packed(3))
        with pytest.raises(ValueError, match="packed ring 2: a chain of 4 segments, the queue has 3 entries"):
            queue.add([segment(1)] * 4, [], "a")
        with pytest.raises(ValueError, match="segment at 0x2000 has 0 bytes"):
            queue.add([segment(2, 0)], [], "a")
        assert (queue.free, queue.outstanding) == (3, 0)


class TestIndirect:
    def test_a_chain_of_several_segments_takes_one_entry(self, packed: PackedRings) -> None:
        """Tables have no links, and of the flags only WRITE."""
        ring = packed(5)
        queue = ring.open_driver(indirect=3)
        queue.add([segment(1)], [segment(2, 512), segment(3, 1)], "token")
        queue.publish()
        assert queue.free == 4
        addr, length, _, flags = ring.entry(0)
        assert (length, flags) == (48, INDIRECT | 0x0080)
        assert list(codec(PackedDesc).iter_unpack(ring.memory.read(addr, length))) == [
            (0x1000, 16, 0, 0),
            (0x2000, 512, 0, WRITE),
            (0x3000, 1, 0, WRITE),
        ]

    def test_each_chain_has_a_table_of_its_own(self, packed: PackedRings) -> None:
        ring = packed(3)
        queue = ring.open_driver(indirect=2)
        for _ in range(3):
            queue.add([segment(1)], [segment(2)], None)
        addresses = sorted(ring.entry(offset)[0] for offset in range(3))
        assert [addr - addresses[0] for addr in addresses] == [0, 32, 64]

    def test_one_segment_or_too_many_need_no_table(self, packed: PackedRings) -> None:
        ring = packed(8)
        queue = ring.open_driver(indirect=2)
        queue.add([segment(1)], [], None)
        queue.add([segment(1), segment(2)], [segment(3)], None)
        assert queue.free == 4
        assert [ring.entry(offset)[3] & (NEXT | INDIRECT) for offset in range(4)] == [0, NEXT, NEXT, 0]

    @kinds("packed", indirect=False)
    def test_tables_are_not_used_when_the_feature_was_not_negotiated(self, packed: PackedRings) -> None:
        ring = packed(8)
        queue = ring.open_driver(indirect=4)
        queue.add([segment(1)], [segment(2)], None)
        assert queue.free == 6


class TestReaping:
    @kinds("packed", in_order=False)
    def test_tokens_come_back_with_their_used_length(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue = driver_of(ring)
        published(queue, "a", "b", "c")
        assert queue.reap(8) == []
        heads = [ring.entry(offset)[2] for offset in range(3)]
        ring.use(heads[2], 8)
        ring.use(heads[0], 0)
        assert queue.reap(1) == [Used("c", 8)]
        assert queue.reap(8) == [Used("a", 0)]
        assert (queue.free, queue.outstanding) == (3, 1)

    def test_a_chain_is_skipped_as_a_whole(self, packed: PackedRings) -> None:
        ring = packed(5)
        queue = driver_of(ring)
        for lap in range(7):
            queue.add([segment(1), segment(2)], [segment(3)], "x")
            queue.publish()
            ring.use(0, lap, entries=3)
            assert queue.reap(4) == [Used("x", lap)]
        assert queue.free == 5

    def test_our_own_descriptors_are_never_believed(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue = driver_of(ring)
        queue.add([segment(1), segment(2)], [segment(3)], "x")
        queue.publish()
        ring.layout.descriptor[16:] = b"\xff" * 48
        ring.use(0, 16, entries=3)
        assert queue.reap(4) == [Used("x", 16)]
        assert queue.free == 4

    @pytest.mark.parametrize(("length", "believed"), [(8, 8), (9, 0), (2**32 - 1, 0)])
    def test_a_length_without_the_write_flag_counts_if_it_can_be_true(
        self, packed: PackedRings, length: int, believed: int
    ) -> None:
        """2.8.4 gives it no meaning; QEMU's devices never set the flag, and mean it."""
        ring = packed(4)
        queue = driver_of(ring)
        published(queue, "a", room=8)
        ring.desc(0, 0, length, 0, 0x8080)
        assert queue.reap(8) == [Used("a", believed)]


class TestALyingDevice:
    @pytest.mark.parametrize("head", [1, 4, 0xFFFF])
    def test_that_names_a_chain_which_is_not_out(self, packed: PackedRings, head: int) -> None:
        ring = packed(4)
        queue = driver_of(ring)
        published(queue, "a")
        ring.use(head, 0)
        with pytest.raises(BrokenQueue, match=f"packed ring 2: used descriptor 0 names chain {head}, which is not"):
            queue.reap(8)

    def test_that_uses_a_chain_twice(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue = driver_of(ring)
        published(queue, "a", "b")
        ring.use(0, 0)
        ring.use(0, 0)
        assert queue.reap(8) == [Used("a", 0)], "the good one first"
        for _ in range(2):
            with pytest.raises(BrokenQueue, match="used descriptor 1 names chain 0, which is not outstanding"):
                queue.reap(8)
            assert queue.arm() is True, "there is an error to hear of: do not sleep"
            ring.desc(1, 0, 0, 0, 0)

    def test_that_uses_a_chain_before_it_was_published(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue = driver_of(ring)
        queue.add([], [segment(1)], "b")
        ring.use(0, 0)
        with pytest.raises(BrokenQueue, match="chain 0, which is not outstanding"):
            queue.reap(8)

    def test_that_claims_more_bytes_than_it_was_offered(self, packed: PackedRings) -> None:
        ring = packed(4)
        queue = driver_of(ring)
        published(queue, "a", room=8)
        ring.use(0, 9)
        with pytest.raises(BrokenQueue, match="used descriptor 0 says 9 bytes written to chain 0, which offered 8"):
            queue.reap(8)


def test_opening_prepares_the_ring_at_its_base(packed: PackedRings) -> None:
    """The device's events begin at "always", where a device that never suppresses may leave them."""
    ring = packed(4, base=0x0002_0002)
    for part in (ring.layout.descriptor, ring.layout.driver, ring.layout.device):
        part[:] = b"\xff" * len(part)
    queue = ring.open_driver()
    assert [ring.entry(offset)[3] for offset in range(4)] == [0, 0, 0x8080, 0x8080]
    expected = (0x0002, 2) if packed.has(VirtioFeature.EVENT_IDX) else (0xFFFF, 0)
    assert (ring.driver_event, ring.device_event) == (expected, (0xFFFF, 0))
    assert queue.reap(4) == []


def test_a_base_with_chains_in_flight_is_none_for_a_new_ring(packed: PackedRings) -> None:
    with pytest.raises(UnsupportedRing, match="packed ring 2: base 0x80008001 has chains in flight"):
        driver_of(packed(base=0x8000_8001))


@given(ring_bytes=st.binary(min_size=80, max_size=80), flags=st.lists(st.sampled_from([0, 0x8080, 0x8082, 2])))
def test_no_bytes_whatsoever_raise_anything_but_broken_queue(ring_bytes: bytes, flags: list[int]) -> None:
    ring = PackedRingBuilder(5)
    queue = driver_of(ring)
    published(queue, "a", "b", "c")
    ring.layout.descriptor[:] = ring_bytes
    for offset, value in enumerate(flags[:5]):
        ring.desc(offset, 0, 0, offset % 4, value)
    tokens = []
    try:
        while reaped := queue.reap(2):
            tokens += [used.token for used in reaped]
    except BrokenQueue:
        pass
    assert sorted(tokens) == sorted(set(tokens))
    assert ring.memory.intact
