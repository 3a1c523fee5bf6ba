"""Which regions a memory table may have."""

from __future__ import annotations

import pytest

from tests.protocol.helpers import OTHER_REGION, REGION
from vhostuser.errors import LocalProtocolError
from vhostuser.protocol import memory_table
from vhostuser.wire.records import MemoryRegion

PAGE = 0x1000
END = 1 << 64


def region(guest: int, user: int, size: int = PAGE, offset: int = 0) -> MemoryRegion:
    return MemoryRegion(guest, size, user, offset)


def test_eight_regions_fit_and_nine_do_not() -> None:
    regions = [region(i * PAGE, i * PAGE) for i in range(9)]
    assert memory_table.replaced(regions[:8], gpa=False) == tuple(regions[:8])
    with pytest.raises(LocalProtocolError, match="9 regions, expected at most 8"):
        memory_table.replaced(regions, gpa=False)


def test_a_table_may_be_empty() -> None:
    assert memory_table.replaced([], gpa=False) == ()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (region(0, 0, size=0), "at least one byte"),
        (region(END - PAGE + 1, 0), "guest addresses that end within 64 bits"),
        (region(0, END - PAGE + 1), "user addresses that end within 64 bits"),
        (region(0, 0, offset=END - PAGE + 1), "mmap offset .* an end within 64 bits"),
        (region(0, 0, size=END - 1, offset=2), "mmap offset"),
    ],
)
def test_a_region_that_is_empty_or_wraps_is_refused(bad: MemoryRegion, reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        memory_table.replaced([bad], gpa=False)


@pytest.mark.parametrize("last", [region(END - PAGE, 0), region(0, END - PAGE), region(0, 0, offset=END - PAGE)])
def test_a_region_may_end_where_64_bits_end(last: MemoryRegion) -> None:
    assert memory_table.replaced([last], gpa=False) == (last,)


@pytest.mark.parametrize(
    ("guest", "user", "kind"),
    [
        (0x10000, 0x50000, "guest"),
        (0x10FFF, 0x50000, "guest"),
        (0x0F001, 0x50000, "guest"),
        (0x50000, 0x20000, "user"),
        (0x50000, 0x20FFF, "user"),
        (0x50000, 0x1F001, "user"),
    ],
)
def test_regions_that_overlap_are_refused(guest: int, user: int, kind: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"do not overlap in {kind} addresses"):
        memory_table.replaced([region(0x10000, 0x20000), region(guest, user)], gpa=False)


def test_regions_may_touch() -> None:
    table = (region(0x10000, 0x20000), region(0x11000, 0x21000), region(0xF000, 0x1F000))
    assert memory_table.replaced(table, gpa=False) == table


def test_a_region_is_added_behind_the_others_unless_it_overlaps_or_there_are_too_many() -> None:
    assert memory_table.added((REGION,), OTHER_REGION, None, gpa=False) == (REGION, OTHER_REGION)
    with pytest.raises(LocalProtocolError, match="do not overlap"):
        memory_table.added((REGION,), REGION, 8, gpa=False)
    with pytest.raises(LocalProtocolError, match="1 regions there already, expected at most 1"):
        memory_table.added((REGION,), OTHER_REGION, 1, gpa=False)


def test_a_region_is_found_by_everything_but_its_mmap_offset() -> None:
    moved = region(OTHER_REGION.guest_addr, OTHER_REGION.user_addr, OTHER_REGION.size, offset=0x5000)
    assert memory_table.removed((REGION, OTHER_REGION), moved) == (REGION,)


@pytest.mark.parametrize(
    "wrong",
    [
        region(OTHER_REGION.guest_addr + PAGE, OTHER_REGION.user_addr),
        region(OTHER_REGION.guest_addr, OTHER_REGION.user_addr + PAGE),
        region(OTHER_REGION.guest_addr, OTHER_REGION.user_addr, 2 * PAGE),
    ],
)
def test_a_region_that_is_not_there_cannot_be_removed(wrong: MemoryRegion) -> None:
    with pytest.raises(LocalProtocolError, match="expected one of the regions added before"):
        memory_table.removed((REGION, OTHER_REGION), wrong)


def test_with_gpa_addresses_a_region_repeats_its_guest_address() -> None:
    same = region(0x1000, 0x1000)
    assert memory_table.replaced([same], gpa=True) == (same,)
    with pytest.raises(LocalProtocolError, match="GPA_ADDRESSES"):
        memory_table.replaced([REGION], gpa=True)
