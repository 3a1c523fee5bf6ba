"""Drivers that lie: each ends its queue with `BrokenQueue`, and nothing outside guest memory is ever touched."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.virtqueue.formats import FEW, SplitRings, drawn, kinds
from tests.virtqueue.serving import run_device
from vhostuser.memory.map import GuestAddr
from vhostuser.testing.rings import BUFFERS_ADDR, BUFFERS_SIZE, RingBuilder
from vhostuser.virtqueue.queue import BrokenQueue, Segment
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.schema import codec
from vhostuser.wire.split import DescFlags, VirtqDesc

NEXT, WRITE, INDIRECT = DescFlags.NEXT, DescFlags.WRITE, DescFlags.INDIRECT
BUF = BUFFERS_ADDR
END = BUFFERS_ADDR + BUFFERS_SIZE

Lie = Callable[[RingBuilder], object]


def indirect(*entries: tuple[int, int, int, int], flags: int = 0, length: int | None = None) -> Lie:
    """A ring whose chain 0 is an indirect table; ``length`` is what its descriptor says of it."""

    def write(ring: RingBuilder) -> None:
        table = ring.table(*entries)
        ring.desc(0, table.addr, table.length if length is None else length, INDIRECT | flags, 1)

    return write


def direct(*descs: tuple[int, int, int, int]) -> Lie:
    """A ring whose table begins with these descriptors."""

    def write(ring: RingBuilder) -> None:
        for index, desc in enumerate(descs):
            ring.desc(index, *desc)

    return write


def readable_after_writable_in_a_table(ring: RingBuilder) -> None:
    ring.desc(0, BUF, 1, WRITE | NEXT, 1)
    ring.desc(1, *ring.table((BUF, 1, 0, 0)), INDIRECT)


def direct_then_indirect(direct_count: int, entries: int, *, loop: bool = False) -> Lie:
    """``direct_count`` descriptors and then a table, whose last entry may go back to its first."""

    def write(ring: RingBuilder) -> None:
        for index in range(direct_count):
            ring.desc(index, BUF, 1, NEXT, index + 1)
        linked = [(BUF, 1, int(NEXT), number + 1) for number in range(entries - 1)]
        table = ring.table(*linked, (BUF, 1, NEXT if loop else 0, 0))
        ring.desc(direct_count, *table, INDIRECT)

    return write


LIES: dict[str, tuple[Lie, str]] = {
    "a loop of one": (direct((BUF, 1, NEXT, 0)), "longer than the 8 entries"),
    "a loop of two": (direct((BUF, 1, NEXT, 1), (BUF, 1, NEXT, 0)), "longer than the 8 entries"),
    "a loop in an indirect table": (
        indirect((BUF, 1, NEXT, 1), (BUF, 1, NEXT, 0)),
        "longer than the 8 entries",
    ),
    "next outside the table": (direct((BUF, 1, NEXT, 8)), "goes to descriptor 8 of a table of 8"),
    "next far outside the table": (direct((BUF, 1, NEXT, 65535)), "goes to descriptor 65535 of a table of 8"),
    "next outside an indirect table": (indirect((BUF, 1, NEXT, 1)), "goes to descriptor 1 of a table of 1"),
    "readable after writable": (
        direct((BUF, 1, WRITE | NEXT, 1), (BUF, 1, 0, 0)),
        "device-readable element after a device-writable one",
    ),
    "readable in a table after writable outside it": (
        readable_after_writable_in_a_table,
        "device-readable element after a device-writable one",
    ),
    "an address that is not mapped": (direct((0xDEAD_0000, 1, 0, 0)), "0xdead0000"),
    "an address that wraps": (direct((2**64 - 1, 2, 0, 0)), "0xffffffffffffffff"),
    "a buffer that ends outside": (direct((END - 1, 2, WRITE, 0)), hex(END - 1)),
    "a buffer that begins before its region": (direct((BUF - 1, 2, WRITE, 0)), hex(BUF - 1)),
    "a buffer of 4 GiB": (direct((BUF, 2**32 - 1, WRITE, 0)), "0xffffffff bytes"),
    "an indirect table inside one": (
        indirect((BUF, 16, INDIRECT, 0)),
        "an indirect descriptor inside an indirect table",
    ),
    "indirect and next": (indirect((BUF, 1, 0, 0), flags=NEXT), "both INDIRECT and NEXT"),
    "an indirect table of no bytes": (indirect((BUF, 1, 0, 0), length=0), "table of 0 bytes"),
    "an indirect table of 15 bytes": (indirect((BUF, 1, 0, 0), length=15), "table of 15 bytes"),
    "an indirect table of 17 bytes": (indirect((BUF, 1, 0, 0), length=17), "table of 17 bytes"),
    "an indirect table longer than the queue": (indirect(*[(BUF, 1, 0, 0)] * 9), "table of 144 bytes, expected 1 to 8"),
    "an indirect table of 4 GiB": (indirect((BUF, 1, 0, 0), length=2**32 - 16), "table of 4294967280 bytes"),
    "an indirect table that is not mapped": (direct((0xDEAD_0000, 16, INDIRECT, 0)), "0xdead0000"),
    "a chain too long because of its table": (direct_then_indirect(1, 8), "table of 128 bytes, expected 1 to 7"),
    "a loop in a table after a chain": (direct_then_indirect(7, 1, loop=True), "longer than the 8 entries"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_broken_chain_breaks_the_queue(split: SplitRings, name: str) -> None:
    lie, text = LIES[name]
    ring = split(8)
    queue = ring.open_device(queue_index=4)
    lie(ring)
    ring.offer(0)
    with pytest.raises(BrokenQueue, match=text) as error:
        queue.pop(8)
    assert str(error.value).startswith("split ring 4: chain 0")
    assert (queue.base, queue.in_flight, ring.used_idx) == (0, 0, 0)


@pytest.mark.parametrize("head", [8, 255, 65535])
def test_a_head_outside_the_table_breaks_the_queue(split: SplitRings, head: int) -> None:
    ring = split(8)
    ring.offer(head)
    with pytest.raises(BrokenQueue, match=f"goes to descriptor {head} of a table of 8"):
        ring.open_device().pop(8)


@pytest.mark.parametrize(("base", "avail_idx"), [(0, 9), (0, 65535), (65530, 3), (5, 4)])
def test_an_index_that_jumps_breaks_the_queue(split: SplitRings, base: int, avail_idx: int) -> None:
    ring = split(8, base=base)
    ring.set_avail_idx(avail_idx)
    queue = ring.open_device()
    with pytest.raises(BrokenQueue, match=f"avail.idx jumped from {base} to {avail_idx}"):
        queue.pop(8)
    assert queue.base == base


def test_a_head_that_is_in_flight_breaks_the_queue(split: SplitRings) -> None:
    ring = split()
    ring.chain(0, (ring.buffer(1), True))
    ring.offer(0, 0)
    queue = ring.open_device()
    (chain,) = queue.pop(8)
    with pytest.raises(BrokenQueue, match="chain 0 made available again while it is in flight"):
        queue.pop(8)
    queue.complete([chain])
    assert ring.used() == [(0, 0)]


@kinds("split", indirect=False)
def test_an_indirect_descriptor_that_was_not_negotiated_breaks_the_queue(split: SplitRings) -> None:
    ring = split()
    indirect((BUF, 1, 0, 0))(ring)
    ring.offer(0)
    with pytest.raises(BrokenQueue, match="not negotiated"):
        ring.open_device().pop(8)


def test_more_than_2_to_the_32_bytes_break_the_queue(split: SplitRings) -> None:
    size = 1 << 27
    ring = split(64, regions=[(1 << 32, size)])
    whole = Segment(GuestAddr(1 << 32), size)
    ring.chain(0, (ring.buffer(1), True), *[(whole, True)] * 32)
    ring.offer(1, 0)
    queue = ring.open_device()
    (chain,) = queue.pop(1)
    assert chain.writable.remaining == 1 << 32, "without its first element, chain 0 is just short enough"
    with pytest.raises(BrokenQueue, match="chain 0 has more than 4294967296 bytes"):
        queue.pop(1)


def test_good_chains_in_front_of_a_lie_are_served(split: SplitRings) -> None:
    ring = split(8)
    for head in (0, 1):
        ring.chain(head, (ring.buffer(4, b"good"), False))
    ring.desc(2, BUF, 1, NEXT, 2)
    ring.chain(3, (ring.buffer(4), False))
    ring.offer(0, 1, 2, 3)
    queue = ring.open_device()
    chains = queue.pop(8)
    assert [chain.readable.read() for chain in chains] == [b"good", b"good"]
    assert queue.arm() is True, "there is an error to hear of: do not sleep"
    with pytest.raises(BrokenQueue):
        queue.pop(8)
    queue.complete(chains)
    assert ring.used() == [(0, 0), (1, 0)]
    assert queue.base == 2, "the last position that made sense"


def test_a_broken_queue_stays_broken_when_the_driver_repairs_the_ring(split: SplitRings) -> None:
    ring = split(8)
    ring.set_avail_idx(100)
    queue = ring.open_device()
    with pytest.raises(BrokenQueue, match="jumped"):
        queue.pop(8)
    ring.set_avail_idx(0)
    assert queue.arm() is True
    queue.rebind(ring.layout, ring.memory.guest)
    with pytest.raises(BrokenQueue, match="jumped from 0 to 100"):
        queue.pop(8)


def test_a_driver_that_never_stops_gets_no_more_than_the_limit_at_a_time(split: SplitRings) -> None:
    ring = split(8)
    ring.chain(0, (ring.buffer(1), False))
    ring.chain(1, (ring.buffer(1), False))
    queue = ring.open_device()
    ring.offer(0)
    for number in range(1, 50):
        ring.offer(number % 2)
        chains = queue.pop(1)
        assert len(chains) == 1
        queue.complete(chains)


# --- whatever bytes --------------------------------------------------------------------------------------------------

_features = st.sampled_from(drawn(packed=False))
_addresses = st.one_of(
    st.integers(BUF - 2, BUF + 64), st.integers(END - 64, END + 2), st.sampled_from([0, 2**64 - 1, 0x1000, 0x1080])
)
_lengths = st.one_of(st.integers(0, 80), st.sampled_from([16, 32, 128, BUFFERS_SIZE, 2**31, 2**32 - 1]))
_flags = st.one_of(st.integers(0, 7), st.integers(0, 0xFFFF))
_nexts = st.one_of(st.integers(0, 9), st.integers(0, 0xFFFF))
_descs = st.tuples(_addresses, _lengths, _flags, _nexts)
_near_right = st.lists(_descs, min_size=8, max_size=8).map(
    lambda descs: b"".join(codec(VirtqDesc).pack(*d) for d in descs)
)
_heads = st.lists(st.integers(0, 9), min_size=8, max_size=8)


@FEW
@given(
    table=st.one_of(_near_right, st.binary(min_size=128, max_size=128)),
    buffers=_near_right,
    heads=_heads,
    available=st.one_of(st.integers(0, 9), st.integers(0, 0xFFFF)),
    features=_features,
    base=st.sampled_from([0, 1, 65530, 65535]),
)
@example(
    table=bytes(128), buffers=bytes(128), heads=[0] * 8, available=8, features=int(VirtioFeature.VERSION_1), base=0
)
def test_no_descriptors_whatsoever_raise_anything_but_broken_queue_or_reach_outside(
    table: bytes, buffers: bytes, heads: list[int], available: int, features: int, base: int
) -> None:
    ring = RingBuilder(8, features, base=base)
    ring.layout.descriptor[:] = table
    ring.memory.write(BUF, buffers)  # which descriptors may name as an indirect table
    ring.offer(*heads)
    ring.set_avail_idx((base + available) % 65536)
    run_device(ring)
    assert ring.memory.intact


@given(parts=st.tuples(*(st.binary(min_size=size, max_size=size) for size in (64, 14, 38))), features=_features)
def test_no_bytes_whatsoever_raise_anything_but_broken_queue_or_reach_outside(
    parts: tuple[bytes, bytes, bytes], features: int
) -> None:
    ring = RingBuilder(4, features)
    layout = ring.layout
    for view, content in zip((layout.descriptor, layout.driver, layout.device), parts, strict=True):
        view[:] = content
    run_device(ring)
    assert ring.memory.intact
