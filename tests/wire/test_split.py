"""Split rings: sizes, offsets and the bytes of an entry."""

from __future__ import annotations

import pytest

from vhostuser.wire import split
from vhostuser.wire.schema import codec
from vhostuser.wire.split import DescFlags, VirtqDesc, VirtqUsedElem


def test_a_ring_of_256_has_the_sizes_of_the_standard() -> None:
    assert split.desc_table_size(256) == 4096
    assert split.avail_ring_size(256) == 518
    assert split.used_ring_size(256) == 2054
    assert split.used_event_offset(256) == 516
    assert split.avail_event_offset(256) == 2052


@pytest.mark.parametrize("size", [1, 2, 1024, split.MAX_QUEUE_SIZE])
def test_sizes_follow_the_formulas(size: int) -> None:
    assert split.desc_table_size(size) == 16 * size
    assert split.avail_ring_size(size) == 6 + 2 * size
    assert split.used_ring_size(size) == 6 + 8 * size


def test_rings_begin_with_flags_and_idx() -> None:
    assert (split.FLAGS_OFFSET, split.IDX_OFFSET, split.RING_OFFSET) == (0, 2, 4)
    assert (split.DESC_TABLE_ALIGN, split.AVAIL_RING_ALIGN, split.USED_RING_ALIGN) == (16, 2, 4)


def test_a_descriptor_is_these_16_bytes() -> None:
    desc = VirtqDesc(addr=0x1122334455667788, len=0x1000, flags=DescFlags.NEXT | DescFlags.WRITE, next=0x0102)
    assert desc.build().hex(" ", 4) == "88776655 44332211 00100000 03000201"
    assert codec(VirtqDesc).pack(0x1122334455667788, 0x1000, 3, 0x0102) == desc.build()


def test_a_used_element_is_these_8_bytes() -> None:
    assert VirtqUsedElem(id=7, len=513).build().hex() == "0700000001020000"


def test_flags_are_those_of_the_standard() -> None:
    assert (DescFlags.NEXT, DescFlags.WRITE, DescFlags.INDIRECT) == (1, 2, 4)
    assert (split.AvailFlags.NO_INTERRUPT, split.UsedFlags.NO_NOTIFY) == (1, 1)
