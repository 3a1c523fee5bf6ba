"""Drivers that lie in a packed ring: each ends its queue with `BrokenQueue`, and nothing outside is ever touched."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.virtqueue.formats import FEW, PackedRings, drawn, kinds
from tests.virtqueue.serving import run_device
from vhostuser.memory.map import GuestAddr
from vhostuser.testing.packed_rings import PACKED_FEATURES, PackedRingBuilder
from vhostuser.testing.rings import BUFFERS_ADDR, BUFFERS_SIZE
from vhostuser.virtqueue.queue import BrokenQueue, Segment
from vhostuser.wire.packed import PackedDesc, PackedDescFlags
from vhostuser.wire.schema import codec

NEXT, WRITE, INDIRECT = int(PackedDescFlags.NEXT), int(PackedDescFlags.WRITE), int(PackedDescFlags.INDIRECT)
BUF = BUFFERS_ADDR
END = BUFFERS_ADDR + BUFFERS_SIZE

Lie = Callable[[PackedRingBuilder], object]


def direct(*descs: tuple[int, int, int]) -> Lie:
    """A ring whose first entries are these descriptors."""
    return lambda ring: ring.put(*descs)


def indirect(*entries: tuple[int, int, int], flags: int = 0, length: int | None = None) -> Lie:
    """A ring whose first entry is an indirect table; ``length`` is what its descriptor says of it."""

    def write(ring: PackedRingBuilder) -> None:
        table = ring.table(*entries)
        ring.put((table.addr, table.length if length is None else length, INDIRECT | flags))

    return write


def a_table_after_a_direct_one(ring: PackedRingBuilder) -> None:
    table = ring.table((BUF, 1, 0))
    ring.put((BUF, 1, NEXT), (*table, INDIRECT))


def a_list_that_was_never_finished(ring: PackedRingBuilder) -> None:
    ring.put((BUF, 1, NEXT))


def an_entry_of_another_lap(ring: PackedRingBuilder) -> None:
    ring.put((BUF, 1, NEXT))
    ring.desc(1, BUF, 1, 0, 0x8000)


LIES: dict[str, tuple[Lie, str]] = {
    "a list as long as a lap and no end": (direct(*[(BUF, 1, NEXT)] * 8), "longer than the 8 entries"),
    "a list whose end is not available": (a_list_that_was_never_finished, "has entry 1 in it, which is not available"),
    "a list that goes on in another lap": (an_entry_of_another_lap, "has entry 1 in it, which is not available"),
    "readable after writable": (
        direct((BUF, 1, WRITE | NEXT), (BUF, 1, 0)),
        "device-readable element after a device-writable one",
    ),
    "readable after writable in a table": (
        indirect((BUF, 1, WRITE), (BUF, 1, 0)),
        "device-readable element after a device-writable one",
    ),
    "an address that is not mapped": (direct((0xDEAD_0000, 1, 0)), "0xdead0000"),
    "an address that wraps": (direct((2**64 - 1, 2, 0)), "0xffffffffffffffff"),
    "a buffer that ends outside": (direct((END - 1, 2, WRITE)), hex(END - 1)),
    "a buffer that begins before its region": (direct((BUF - 1, 2, WRITE)), hex(BUF - 1)),
    "a buffer of 4 GiB": (direct((BUF, 2**32 - 1, WRITE)), "0xffffffff bytes"),
    "an address in a table that is not mapped": (indirect((BUF, 1, 0), (0xDEAD_0000, 1, 0)), "0xdead0000"),
    "a table after a direct descriptor": (a_table_after_a_direct_one, "an indirect descriptor after a direct one"),
    "indirect and next": (indirect((BUF, 1, 0), flags=NEXT), "both INDIRECT and NEXT"),
    "an indirect table of no bytes": (indirect((BUF, 1, 0), length=0), "table of 0 bytes"),
    "an indirect table of 15 bytes": (indirect((BUF, 1, 0), length=15), "table of 15 bytes"),
    "an indirect table of 17 bytes": (indirect((BUF, 1, 0), length=17), "table of 17 bytes"),
    "an indirect table longer than the queue": (indirect(*[(BUF, 1, 0)] * 9), "table of 144 bytes, expected 1 to 8"),
    "an indirect table of 4 GiB": (indirect((BUF, 1, 0), length=2**32 - 16), "table of 4294967280 bytes"),
    "an indirect table that is not mapped": (direct((0xDEAD_0000, 16, INDIRECT)), "0xdead0000"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_broken_chain_breaks_the_queue(packed: PackedRings, name: str) -> None:
    lie, text = LIES[name]
    ring = packed(8)
    queue = ring.open_device(queue_index=4)
    lie(ring)
    with pytest.raises(BrokenQueue, match=text) as error:
        queue.pop(8)
    assert str(error.value).startswith("packed ring 4: ")
    assert (queue.base, queue.in_flight, ring.used(1)) == (0x8000_8000, 0, [None])
    assert ring.device_event == (0, 0)


@kinds("packed", indirect=False)
def test_an_indirect_descriptor_that_was_not_negotiated_breaks_the_queue(packed: PackedRings) -> None:
    ring = packed()
    indirect((BUF, 1, 0))(ring)
    with pytest.raises(BrokenQueue, match="not negotiated"):
        ring.open_device().pop(8)


def test_a_buffer_id_that_is_in_flight_breaks_the_queue(packed: PackedRings) -> None:
    ring = packed()
    ring.offer(5, (ring.buffer(1), True))
    ring.offer(5, (ring.buffer(1), True))
    queue = ring.open_device()
    (chain,) = queue.pop(8)
    with pytest.raises(BrokenQueue, match="chain 5 made available again while it is in flight"):
        queue.pop(8)
    queue.complete([chain])
    assert ring.used(1, 1) == [(5, 0), None]


@pytest.mark.parametrize("entries", [1, 2])
def test_entries_of_a_chain_in_flight_cannot_be_offered_again(packed: PackedRings, entries: int) -> None:
    """The counterpart of an ``avail.idx`` that jumps: more is offered than the ring has entries."""
    ring = packed(4)
    for head in range(5 - entries):
        ring.offer(head, (ring.buffer(1), False))
    queue = ring.open_device()
    chains = queue.pop(8)
    ring.offer(7, *[(ring.buffer(1), False)] * entries)
    assert queue.arm() is True
    with pytest.raises(BrokenQueue, match="takes entries whose chain is in flight"):
        queue.pop(8)
    queue.complete(chains)


def test_more_than_2_to_the_32_bytes_break_the_queue(packed: PackedRings) -> None:
    size = 1 << 27
    ring = packed(64, regions=[(1 << 32, size)])
    whole = Segment(GuestAddr(1 << 32), size)
    ring.offer(0, *[(whole, True)] * 31)
    ring.offer(1, (ring.buffer(1), True), *[(whole, True)] * 32)
    queue = ring.open_device()
    (chain,) = queue.pop(1)
    assert chain.writable.remaining == 31 * size
    with pytest.raises(BrokenQueue, match="chain 1 has more than 4294967296 bytes"):
        queue.pop(1)


def test_good_chains_in_front_of_a_lie_are_served(packed: PackedRings) -> None:
    ring = packed(8)
    for head in (0, 1):
        ring.offer(head, (ring.buffer(4, b"good"), False))
    ring.put((0xDEAD_0000, 1, 0), head=2)
    ring.offer(3, (ring.buffer(4), False))
    queue = ring.open_device()
    chains = queue.pop(8)
    assert [chain.readable.read() for chain in chains] == [b"good", b"good"]
    assert queue.arm() is True, "there is an error to hear of: do not sleep"
    with pytest.raises(BrokenQueue):
        queue.pop(8)
    queue.complete(chains)
    assert ring.used(1, 1, 1) == [(0, 0), (1, 0), None]
    assert queue.base == 0x8002_8002, "the last position that made sense"


def test_a_broken_queue_stays_broken_when_the_driver_repairs_the_ring(packed: PackedRings) -> None:
    ring = packed(8)
    ring.put((0xDEAD_0000, 1, 0))
    queue = ring.open_device()
    with pytest.raises(BrokenQueue, match="0xdead0000"):
        queue.pop(8)
    ring.desc(0, 0, 0)
    assert queue.arm() is True
    queue.rebind(ring.layout, ring.memory.guest)
    with pytest.raises(BrokenQueue, match="0xdead0000"):
        queue.pop(8)


# --- whatever bytes --------------------------------------------------------------------------------------------------

_addresses = st.one_of(
    st.integers(BUF - 2, BUF + 64), st.integers(END - 64, END + 2), st.sampled_from([0, 2**64 - 1, 0x1000, 0x1080])
)
_lengths = st.one_of(st.integers(0, 80), st.sampled_from([16, 32, 128, BUFFERS_SIZE, 2**31, 2**32 - 1]))
_ids = st.one_of(st.integers(0, 9), st.integers(0, 0xFFFF))
_flags = st.one_of(st.builds(int.__or__, st.integers(0, 7), st.sampled_from([0x80, 0x8000])), st.integers(0, 0xFFFF))
_descs = st.tuples(_addresses, _lengths, _ids, _flags)
_near_right = st.lists(_descs, min_size=7, max_size=7).map(
    lambda descs: b"".join(codec(PackedDesc).pack(*d) for d in descs)
)


@FEW
@given(
    ring=st.one_of(_near_right, st.binary(min_size=112, max_size=112)),
    buffers=_near_right,
    driver_event=st.binary(min_size=4, max_size=4),
    features=st.sampled_from(drawn(packed=True)),
    base=st.sampled_from([0x8000_8000, 0x8006_8006, 0x0003_0003, 0x8005_0004, 0x8000]),
)
@example(ring=bytes(14 * 8), buffers=bytes(112), driver_event=bytes(4), features=PACKED_FEATURES, base=0x8000_8000)
def test_no_bytes_whatsoever_raise_anything_but_broken_queue_or_reach_outside(
    ring: bytes, buffers: bytes, driver_event: bytes, features: int, base: int
) -> None:
    built = PackedRingBuilder(7, features, base=base)
    built.layout.descriptor[:] = ring
    built.layout.driver[:] = driver_event
    built.memory.write(BUF, buffers)  # which descriptors may name as an indirect table
    run_device(built)
    assert built.memory.intact
