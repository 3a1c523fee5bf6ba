"""Pages that are missing, and tables that come back; faults need two processes: see the example back-ends."""

from __future__ import annotations

import mmap
import os

import pytest

from frontend.conformance.memory import PAGE, SharedMemory
from frontend.conformance.postcopy import Hole, check_same, punch
from vhostuser.conformance import Failure
from vhostuser.wire.records import MemoryRegion

TOLD = MemoryRegion(0x10_0000, 0x2000, 0x7F00_0000_0000, 0x1000)


def test_a_hole_keeps_what_was_there_and_gives_it_page_by_page() -> None:
    hole = Hole(0x1000, b"a" * PAGE + b"b" * PAGE)
    assert [hole.page(0x1000)[:1], hole.page(0x2000)[-1:]] == [b"a", b"b"]
    assert hole.page(0x3000) == hole.page(0) == bytes(PAGE)
    assert Hole(0x1000, b"short").page(0x1000) == b"short".ljust(PAGE, b"\0")


@pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="this system makes no holes in mappings")
def test_memory_is_taken_out_of_its_file_in_whole_pages() -> None:
    with SharedMemory() as memory:
        start = memory.regions[0].guest_addr + 0x8000
        memory.view(start, 3 * PAGE)[:] = b"x" * 3 * PAGE
        with memory.fd() as fd:
            before = os.fstat(fd.fileno()).st_blocks
            hole = punch(memory, start + PAGE + 1, start + PAGE + 2)
            assert before - os.fstat(fd.fileno()).st_blocks == PAGE // 512
        assert (hole.guest_addr, hole.content) == (start + PAGE, b"x" * PAGE)
        assert bytes(memory.view(start, 3 * PAGE)) == b"x" * PAGE + bytes(PAGE) + b"x" * PAGE


def test_only_user_addresses_may_be_others() -> None:
    check_same([MemoryRegion(TOLD.guest_addr, TOLD.size, 42, 0)], [TOLD])
    for wrong in (MemoryRegion(0x20_0000, TOLD.size, 42, 0), MemoryRegion(TOLD.guest_addr, 0x1000, 42, 0)):
        with pytest.raises(Failure, match=r"expected 0x100000\+0x2000 as in the request"):
            check_same([wrong], [TOLD])
