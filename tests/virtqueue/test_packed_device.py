"""The device's side of a packed ring, in front of drivers that keep the rules.

Those that do not: test_packed_hostile.py.  What both formats share: test_pair.py and test_model.py.  Who is woken:
test_packed_notification.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vhostuser.memory.map import GuestAddr
from vhostuser.virtqueue.queue import PUBLISH_EVERY, DeviceQueue, Segment, UnsupportedRing
from vhostuser.wire.packed import PackedDescFlags

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.virtqueue.formats import PackedRings
    from vhostuser.testing.packed_rings import PackedRingBuilder
    from vhostuser.virtqueue.chain import Chain

NEXT, WRITE, INDIRECT = int(PackedDescFlags.NEXT), int(PackedDescFlags.WRITE), int(PackedDescFlags.INDIRECT)


def request(ring: PackedRingBuilder, head: int, data: bytes = b"request", room: int = 4) -> None:
    """Offer a chain of one readable and one writable element."""
    ring.offer(head, (ring.buffer(len(data), data), False), (ring.buffer(room), True))


def pop_one(queue: DeviceQueue) -> Chain:
    (chain,) = queue.pop(1)
    return chain


def flags(ring: PackedRingBuilder) -> list[int]:
    return [ring.entry(offset)[3] for offset in range(ring.queue_size)]


def test_an_empty_ring_gives_nothing(packed: PackedRings) -> None:
    queue = packed().open_device()
    assert queue.pop(8) == []
    assert queue.complete([]) is False
    assert queue.base == 0x8000_8000


def test_a_chain_is_read_and_answered(packed: PackedRings) -> None:
    ring = packed()
    queue = ring.open_device()
    request(ring, 7, b"question", 8)
    chain = pop_one(queue)
    assert chain.head == 7
    assert chain.readable.read() == b"question"
    chain.writable.write(b"answer")
    assert (queue.in_flight, queue.base) == (1, 0x8000_8002)
    assert queue.complete([chain]) is True
    assert ring.used(2) == [(7, 6)]
    assert (queue.in_flight, queue.base) == (0, 0x8002_8002)


def test_available_descriptors_are_those_of_the_standard_byte_for_byte(packed: PackedRings) -> None:
    """A chain over the end of the ring: the second entry belongs to the next lap."""
    ring = packed(2, base=0x8001_8001)
    queue = ring.open_device()
    ring.memory.write(0x10_0000, b"ab")
    ring.memory.write(ring.desc_addr + 16, bytes.fromhex("0000100000000000 02000000 0900 8100"))
    ring.memory.write(ring.desc_addr, bytes.fromhex("0010100000000000 04000000 0900 0280"))
    chain = pop_one(queue)
    assert (chain.head, chain.readable.read(), chain.writable.remaining) == (9, b"ab", 4)
    chain.writable.write(b"yes")
    queue.complete([chain])
    assert ring.memory.read(ring.desc_addr + 16 + 8, 8) == bytes.fromhex("03000000 0900 8280")
    assert ring.memory.read(ring.desc_addr + 14, 2) == bytes.fromhex("0280"), "the chain's other entry is left alone"


@pytest.mark.parametrize(("base", "room", "expected"), [(0x8000_8000, 1, 0x8082), (1 << 16 | 1, 0, 0x0000)])
def test_a_used_descriptor_says_whether_anything_was_written(
    packed: PackedRings, base: int, room: int, expected: int
) -> None:
    ring = packed(base=base)
    queue = ring.open_device()
    request(ring, 0)
    chain = pop_one(queue)
    chain.writable.write(bytes(room))
    queue.complete([chain])
    assert flags(ring)[base & 0xF] == expected


def test_the_id_is_that_of_the_last_descriptor(packed: PackedRings) -> None:
    ring = packed()
    ring.put((0x10_0000, 1, NEXT), head=1)
    ring.put((0x10_0000, 1, 0), head=0xFFFF)
    assert pop_one(ring.open_device()).head == 0xFFFF


def test_a_chain_as_long_as_the_queue_is_legal(packed: PackedRings) -> None:
    ring = packed(7, base=0x8003_8003)
    ring.offer(0, *((ring.buffer(1, bytes([number])), False) for number in range(7)))
    queue = ring.open_device()
    chain = pop_one(queue)
    assert chain.readable.read() == bytes(range(7))
    assert queue.base == 0x8003_0003
    queue.complete([chain])
    assert queue.base == 0x0003_0003


def test_a_device_that_follows_another_knows_what_that_one_had_in_flight(packed: PackedRings) -> None:
    """Both halves of the base: what lies between them was popped, and is not given back by this device."""
    ring = packed(4)
    for head in range(3):
        ring.offer(head, (ring.buffer(1), False))
    first = ring.open_device()
    chain, _ = first.pop(2)
    first.complete([chain])
    ring.base = first.base
    assert ring.base == 0x8001_8002
    second = ring.open_device()
    assert second.pop(8)[0].head == 2
    assert second.base == 0x8001_8003


class TestIndirect:
    def test_a_table_takes_one_entry_and_all_its_descriptors_count(self, packed: PackedRings) -> None:
        """Their ids and flags but WRITE mean nothing (2.8.7)."""
        ring = packed()
        question, answer = ring.buffer(8, b"question"), ring.buffer(6)
        table = ring.table((*question, 0xFFFD), (*answer, WRITE))
        ring.put((*table, INDIRECT | WRITE), head=5)
        queue = ring.open_device()
        chain = pop_one(queue)
        assert (chain.head, chain.readable.read(), chain.writable.remaining) == (5, b"question", 6)
        assert queue.base == 0x8000_8001

    def test_a_table_as_long_as_the_queue_is_legal(self, packed: PackedRings) -> None:
        ring = packed(3)
        table = ring.table(*((*ring.buffer(1, bytes([number])), 0) for number in range(3)))
        ring.put((*table, INDIRECT))
        assert pop_one(ring.open_device()).readable.read() == bytes(range(3))

    def test_descriptor_and_table_are_copied_once(self, packed: PackedRings) -> None:
        ring = packed()
        table = ring.table((*ring.buffer(4, b"good"), 0))
        ring.put((*table, INDIRECT))
        chain = pop_one(ring.open_device())
        ring.memory.write(table.addr, b"\xff" * 16)
        ring.memory.write(ring.desc_addr, b"\xff" * 16)
        assert chain.readable.read() == b"good"


class TestPublishing:
    def test_used_descriptors_are_published_in_groups_the_first_of_each_last(self, packed: PackedRings) -> None:
        ring = packed(64)
        queue = ring.open_device()
        for head in range(PUBLISH_EVERY + 4):
            ring.offer(head, (ring.buffer(1), False))
        seen = []

        def watched(chains: list[Chain]) -> Iterator[Chain]:
            for chain in chains:
                seen.append([offset for offset in (0, 1, PUBLISH_EVERY) if ring.entry(offset)[3] == 0x8080])
                yield chain

        queue.complete(watched(queue.pop(64)))
        first_group, second_group = seen[:PUBLISH_EVERY], seen[PUBLISH_EVERY:]
        assert not any(0 in used for used in first_group)
        assert all(used == [0, 1] for used in second_group)
        assert ring.entry(PUBLISH_EVERY)[3] == 0x8080
        assert queue.base == 0x8014_8014

    def test_completing_twice_is_a_mistake_that_does_not_reach_the_ring(self, packed: PackedRings) -> None:
        ring = packed()
        queue = ring.open_device(queue_index=1)
        request(ring, 0)
        request(ring, 2)
        first, second = queue.pop(8)
        with pytest.raises(ValueError, match=r"packed ring 1: <Chain 0: .*> is not in flight"):
            queue.complete([first, first, second])
        assert ring.used(2, 2) == [(0, 0), None], "what came before the mistake is given back"
        queue.complete([second])
        assert ring.used(2, 2) == [(0, 0), (2, 0)]

    def test_nothing_to_complete_leaves_the_ring_alone(self, packed: PackedRings) -> None:
        ring = packed()
        queue = ring.open_device()
        request(ring, 0)
        queue.pop(1)
        before = bytes(ring.layout.descriptor)
        queue.complete([])
        assert bytes(ring.layout.descriptor) == before


class TestRebinding:
    def test_positions_go_on_in_the_new_memory(self, packed: PackedRings) -> None:
        old, new = packed(), packed()
        queue = old.open_device()
        request(old, 0, b"old")
        chain = pop_one(queue)
        new.available_at = old.available_at
        queue.rebind(new.layout, new.memory.guest)
        request(new, 2, b"new")
        assert pop_one(queue).readable.read() == b"new"
        assert chain.readable.read() == b"old", "a chain in flight keeps its memory"
        chain.writable.write(b"ok")
        queue.complete([chain])
        assert (old.used(2), new.used(2)) == ([None], [(0, 2)])

    def test_another_size_is_refused_and_changes_nothing(self, packed: PackedRings) -> None:
        ring, other = packed(8), packed(9)
        queue = ring.open_device(queue_index=3)
        with pytest.raises(UnsupportedRing, match="packed ring 3: resized from 8 to 9"):
            queue.rebind(other.layout, other.memory.guest)
        request(ring, 0)
        assert len(queue.pop(8)) == 1


def test_empty_elements_are_skipped(packed: PackedRings) -> None:
    """The standard does not mention them; the address of nothing need not exist."""
    ring = packed()
    ring.put((0xDEAD_BEEF_0000, 0, NEXT), (*ring.buffer(2, b"ab"), NEXT), (0, 0, WRITE))
    chain = pop_one(ring.open_device())
    assert (chain.readable.read(), chain.writable.remaining) == (b"ab", 0)


def test_a_used_length_that_does_not_fit_is_cut(packed: PackedRings) -> None:
    """2^32 bytes may be written, and the field has 32 bits; less than the truth is legal."""
    size = 1 << 27
    ring = packed(32, regions=[(1 << 32, size)])
    ring.offer(0, *[(Segment(GuestAddr(1 << 32), size), True)] * 32)
    queue = ring.open_device()
    chain = pop_one(queue)
    chain.writable.wrote(1 << 32)
    queue.complete([chain])
    assert ring.used(32) == [(0, 2**32 - 1)]
