"""Rings of every size, standing anywhere: the edges of both formats."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.virtqueue.formats import FEW, PackedRings, SplitRings, drawn, kinds
from vhostuser.testing.packed_rings import build_ring
from vhostuser.testing.rings import BuiltRing, RingBuilder
from vhostuser.virtqueue.queue import DeviceQueue, UnsupportedRing
from vhostuser.wire.packed import PackedBase


def echo(queue: DeviceQueue) -> None:
    chains = queue.pop(8)
    for chain in chains:
        chain.writable.write(chain.readable.read())
    queue.complete(chains)


def round_trips(ring: BuiltRing, count: int) -> None:
    """Every request comes back, whatever its length, and leaves nothing behind."""
    most = min(ring.queue_size, 3)
    driver, device = ring.open_driver(indirect=most if ring.queue_size < 1000 else 0), ring.open_device()
    question, answer = ring.buffer(1, b"a"), ring.buffer(2)
    for number in range(count):
        driver.add([question] * (number % most), [answer], number)
        driver.publish()
        echo(device)
        assert driver.reap(8) == [(number, number % most)]
    assert (driver.free, driver.outstanding, device.in_flight) == (ring.queue_size, 0, 0)
    assert ring.memory.intact


def fill_and_drain(ring: BuiltRing) -> None:
    """As many chains as there are entries, taken and given back in two unequal halves."""
    driver, device = ring.open_driver(), ring.open_device()
    buffer = ring.buffer(1)
    for _ in range(ring.queue_size):
        driver.add([], [buffer], None)
    driver.publish()
    for chains in (device.pop(ring.queue_size // 2 + 1), device.pop(ring.queue_size)):
        device.complete(chains)
    assert len(driver.reap(ring.queue_size + 1)) == ring.queue_size
    assert driver.free == ring.queue_size
    assert ring.memory.intact


@pytest.mark.parametrize("queue_size", [1, 2, 4, 128])
def test_small_split_rings(split: SplitRings, queue_size: int) -> None:
    round_trips(split(queue_size), min(4 * queue_size, 20))
    fill_and_drain(split(queue_size))


@pytest.mark.parametrize("queue_size", [1, 2, 3, 5, 100])
def test_small_packed_rings(packed: PackedRings, queue_size: int) -> None:
    """Of any size, power of two or not."""
    round_trips(packed(queue_size), min(4 * queue_size, 20))
    fill_and_drain(packed(queue_size))


@kinds("split", event_idx=False, in_order=False)
def test_the_largest_split_ring(split: SplitRings) -> None:
    round_trips(split(32768), 5)
    fill_and_drain(split(32768))


@kinds("packed", event_idx=False, in_order=False)
@pytest.mark.parametrize("queue_size", [32767, 32768])
def test_the_largest_packed_rings(packed: PackedRings, queue_size: int) -> None:
    round_trips(packed(queue_size), 5)
    fill_and_drain(packed(queue_size))


@given(base=st.integers(0, 2**32 - 1), features=st.sampled_from(drawn(packed=False)))
@example(base=0x7FFF, features=drawn(packed=False)[0])
@example(base=0xFFFF, features=drawn(packed=False)[0])
@example(base=0xFFFF_FFFF, features=drawn(packed=False)[0])
def test_a_split_ring_stands_anywhere_in_16_bits(base: int, features: int) -> None:
    """The upper half of SET_VRING_BASE means nothing there."""
    ring = RingBuilder(4, features, base=base & 0xFFFF)
    ring.base = base
    assert ring.open_device().base == base & 0xFFFF
    round_trips(ring, 9)


_places = st.builds(lambda offset, lap: offset | lap, st.integers(0, 9), st.sampled_from([0, 0x8000]))
_bases = st.builds(lambda available, used: available | used << 16, _places, _places)


@FEW
@given(
    base=st.one_of(_bases, st.integers(0, 2**32 - 1)),
    features=st.sampled_from(drawn(packed=True)),
    queue_size=st.integers(1, 8),
)
@example(base=0xFFFF_FFFF, features=drawn(packed=True)[0], queue_size=32768)
@example(base=0x7FFF_7FFF, features=drawn(packed=True)[0], queue_size=32768)
@example(base=0x8000_0000, features=drawn(packed=True)[0], queue_size=1)
@example(base=0, features=drawn(packed=True)[0], queue_size=1)
def test_a_packed_ring_stands_where_its_base_says_or_nowhere(base: int, features: int, queue_size: int) -> None:
    ring = build_ring(queue_size, features)
    ring.base = base
    avail, used = PackedBase.of(base).next_avail, PackedBase.of(base).next_used
    used = used if int(used) else avail
    if avail.wrap_counter is used.wrap_counter:
        good = used.offset <= avail.offset < queue_size
    else:
        good = avail.offset <= used.offset < queue_size  # available is a lap ahead, but for less than that
    if not good:
        with pytest.raises(UnsupportedRing, match=f"base {base:#x}"):
            ring.open_device()
        return
    assert ring.open_device().base == int(PackedBase(avail, used))


@pytest.mark.parametrize("offset", range(3))
@pytest.mark.parametrize("lap", [0, 0x8000])
def test_a_packed_ring_begins_at_every_entry_of_both_laps(packed: PackedRings, offset: int, lap: int) -> None:
    place = lap | offset
    round_trips(packed(3, base=place << 16 | place), 13)
