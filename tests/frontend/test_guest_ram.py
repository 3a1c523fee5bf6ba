"""The allocator of guest memory: nothing is given out twice, nothing is lost."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.guest import Buffer, GuestRam, OutOfGuestMemory
from vhostuser.memory.backends import MemoryBackendShm

SIZE = 1 << 16

steps = st.lists(
    st.one_of(
        st.tuples(st.integers(1, SIZE // 2), st.sampled_from([1, 2, 16, 64, 4096])),
        st.integers(0, 1 << 16),
    ),
    max_size=60,
)


def check(ram: GuestRam, held: list[Buffer]) -> None:
    """No two buffers share a byte, and what is free is what is not held, in as few gaps as can be."""
    used = [(int(buffer.addr), len(buffer)) for buffer in held]
    everything = sorted(used + ram._free)
    assert all(one + length <= other for (one, length), (other, _) in pairwise(everything))
    assert sum(length for _, length in everything) == sum(region.size for region in ram.regions)
    starts = {region.guest_addr for region in ram.regions}
    assert not any(one + length == other and other not in starts for (one, length), (other, _) in pairwise(ram._free))


@given(steps)
def test_whatever_is_taken_and_given_back_nothing_overlaps_and_all_comes_back(
    sequence: list[int | tuple[int, int]],
) -> None:
    with GuestRam(MemoryBackendShm(size=SIZE), MemoryBackendShm(size=SIZE)) as ram:
        before, held = list(ram._free), list[Buffer]()
        for step in sequence:
            if isinstance(step, int):
                if held:
                    ram.release(held.pop(step % len(held)))
            else:
                size, align = step
                try:
                    buffer = ram.buffer(size, align=align)
                except OutOfGuestMemory:
                    assert all(not fits(gap, size, align) for gap in ram._free)
                    continue
                assert buffer.addr % align == 0
                assert len(buffer) == len(buffer.view) == size
                held.append(buffer)
            check(ram, held)
        for buffer in held:
            ram.release(buffer)
        assert ram._free == before


def fits(gap: tuple[int, int], size: int, align: int) -> bool:
    addr, length = gap
    return -(-addr // align) * align + size <= addr + length


def test_a_buffers_three_names_are_of_the_same_bytes() -> None:
    with GuestRam(MemoryBackendShm(size=SIZE), MemoryBackendShm(size=SIZE)) as ram:
        ram.buffer(SIZE - 100, align=1)
        buffer = ram.buffer(1000)
        buffer.view[:3] = b"abc"
        assert bytes(ram.memory.view(buffer.addr, 3)) == b"abc"
        region = ram.regions[1]
        assert buffer.user_addr - region.user_addr == buffer.addr - region.guest_addr


def test_what_does_not_fit_is_named() -> None:
    with (
        GuestRam(MemoryBackendShm(size=4096)) as ram,
        pytest.raises(OutOfGuestMemory, match="4097 bytes asked for, guest memory has 4096 left"),
    ):
        ram.buffer(4097)
