"""Guest memory that watches over itself: canaries around buffers, patterns around regions, and copies of all of it."""

from __future__ import annotations

import os

import pytest

from frontend.conformance.memory import CANARY, PAGE, PATTERN, USER_BASE, SharedMemory, Span
from frontend.conformance.watch import Footprint
from tests.kinds import needs_memfd
from vhostuser.conformance import Failure
from vhostuser.memory.map import GuestMemory

BASE = 0x10_0000


def two_regions() -> SharedMemory:
    """No fixture: pytest would hold it, and its mappings, beyond the leak check."""
    return SharedMemory(Span(BASE, 16 * PAGE, offset=PAGE, behind=PAGE), Span(BASE * 2, 2 * PAGE))


def test_a_buffer_holds_what_it_was_given_and_is_untouched_at_first() -> None:
    with two_regions() as memory:
        buffer = memory.buffer(b"hello", align=64)
        assert bytes(buffer.view) == b"hello"
        assert buffer.addr % 64 == 0
        assert buffer.user_addr == USER_BASE + buffer.addr
        memory.check()


@pytest.mark.parametrize(("at", "where"), [(-1, "before"), (-CANARY, "before"), (8, "behind"), (7 + CANARY, "behind")])
def test_a_byte_beside_a_buffer_is_found_out(at: int, where: str) -> None:
    with two_regions() as memory:
        buffer = memory.buffer(8)
        memory.view(buffer.addr + at, 1)[0] ^= 1
        with pytest.raises(Failure, match=f"bytes {where} the buffer {buffer.addr:#x}"):
            memory.check()


@pytest.mark.parametrize(("at", "where"), [(0, "before"), (PAGE - 1, "before"), (17 * PAGE, "behind")])
def test_a_byte_of_the_file_beside_the_region_is_found_out(at: int, where: str) -> None:
    with two_regions() as memory:
        with memory.fd() as fd:
            os.pwrite(fd.fileno(), bytes([PATTERN ^ 1]), at)
        with pytest.raises(Failure, match=f"bytes of the file {where} the region at {BASE:#x}"):
            memory.check()


def test_buffers_do_not_touch_each_other() -> None:
    with two_regions() as memory:
        first, second = memory.buffer(100), memory.buffer(0)
        third = memory.buffer(100)
        assert first.addr + 100 + CANARY <= second.addr
        first.view[:] = third.view[:] = b"\xff" * 100
        memory.check()


def test_a_region_that_is_full_says_so() -> None:
    with two_regions() as memory:
        memory.buffer(PAGE, region=1)
        with pytest.raises(MemoryError, match="region 1 is full"):
            memory.buffer(PAGE, region=1)


def test_buffers_begin_where_they_are_told_to() -> None:
    with two_regions() as memory:
        memory.skip_to(BASE + 4 * PAGE)
        assert memory.buffer(1).addr >= BASE + 4 * PAGE
        memory.home = 1
        assert memory.buffer(1).addr > BASE * 2


def test_a_buffer_of_the_callers_choice_has_no_canaries() -> None:
    with two_regions() as memory:
        buffer = memory.at(BASE, PAGE)
        buffer.view[:] = bytes(PAGE)
        memory.check()
        assert buffer.user_addr == memory.user_addr(BASE)


@needs_memfd
def test_others_see_what_is_written_through_the_descriptors() -> None:
    with SharedMemory(Span(BASE, PAGE, user_addr=5 * PAGE), shm=False) as memory, memory.fds() as fds:
        assert memory.regions[0].user_addr == 5 * PAGE
        there = GuestMemory.of((memory.regions[0], memory.view(BASE, PAGE)))
        memory.buffer(b"seen")
        assert b"seen" in bytes(there.view(memory.regions[0].guest_addr, PAGE))  # type: ignore[arg-type]
        assert b"seen" in os.pread(fds[0].fileno(), PAGE, 0)


# --- copies ---


def test_what_has_changed_has_to_be_allowed() -> None:
    with two_regions() as memory:
        first, second = memory.buffer(16), memory.buffer(16)
        before = Footprint(memory)
        before.check()
        first.view[3:6] = b"new"
        before.check([(first.addr, 16)])
        before.check([(BASE - PAGE, 3 * PAGE), (0, 1)])
        with pytest.raises(
            Failure, match=rf"guest memory at {first.addr + 3:#x} was written to \(found 0x6e, it was 0x00"
        ):
            before.check([(second.addr, 16)])
        with pytest.raises(Failure, match=f"{first.addr + 5:#x}"):
            before.check([(first.addr, 5)])
        memory.view(BASE * 2 + PAGE, 1)[0] = 1
        with pytest.raises(Failure, match=f"{BASE * 2 + PAGE:#x}"):
            before.check([(first.addr, 16)])
