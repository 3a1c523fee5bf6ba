"""What may stand in the memory table ("Memory regions description"): numbers only, nothing is mapped here.

Regions never overlap, neither in guest addresses nor in user addresses: an address would have two meanings.  A table
is a tuple in the order in which its regions came, and is replaced whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from vhostuser.protocol.rules import expect
from vhostuser.wire.records import MAX_REGIONS, MemoryRegion, XenMemoryRegion

if TYPE_CHECKING:
    from collections.abc import Sequence

Region: TypeAlias = MemoryRegion | XenMemoryRegion
Table: TypeAlias = tuple[Region, ...]

_END = 1 << 64


def replaced(regions: Sequence[Region], *, gpa: bool) -> Table:
    """The table that SET_MEM_TABLE makes.

    Args:
        regions: what it carries.
        gpa: GPA_ADDRESSES is negotiated.

    Raises:
        LocalProtocolError: such a table cannot be.
    """
    expect(len(regions) <= MAX_REGIONS, f"{len(regions)} regions", f"at most {MAX_REGIONS}")
    table: Table = ()
    for region in regions:
        table = _with(table, region, gpa=gpa)
    return table


def added(table: Table, region: Region, limit: int | None, *, gpa: bool) -> Table:
    """The table after ADD_MEM_REG; ``limit`` is what GET_MAX_MEM_SLOTS said, None if nobody asked.

    Raises:
        LocalProtocolError: the region cannot be added to it.
    """
    full = limit is not None and len(table) >= limit
    expect(not full, f"{len(table)} regions there already", f"at most {limit}")
    return _with(table, region, gpa=gpa)


def removed(table: Table, region: Region) -> Table:
    """The table after REM_MEM_REG.  Guest address, user address and size have to match, the mmap offset has not.

    Raises:
        LocalProtocolError: no such region is there.
    """
    rest = tuple(other for other in table if _identity(other) != _identity(region))
    expect(len(rest) < len(table), _place(region), "one of the regions added before")
    return rest


def _with(table: Table, region: Region, *, gpa: bool) -> Table:
    _check(region, gpa=gpa)
    for other in table:
        _check_apart(region, other)
    return (*table, region)


def _check(region: Region, *, gpa: bool) -> None:
    where = _place(region)
    expect(region.size > 0, where, "at least one byte")
    expect(region.guest_addr + region.size <= _END, where, "guest addresses that end within 64 bits")
    expect(region.user_addr + region.size <= _END, where, "user addresses that end within 64 bits")
    inside = region.mmap_offset + region.size <= _END
    expect(inside, f"{where} at mmap offset {region.mmap_offset:#x}", "an end within 64 bits")
    same = region.user_addr == region.guest_addr
    expect(same or not gpa, where, "the guest address repeated as user address (GPA_ADDRESSES)")


def _check_apart(region: Region, other: Region) -> None:
    found = f"{_place(region)} over {_place(other)}"
    guest = _apart(region.guest_addr, region.size, other.guest_addr, other.size)
    expect(guest, found, "regions that do not overlap in guest addresses")
    user = _apart(region.user_addr, region.size, other.user_addr, other.size)
    expect(user, found, "regions that do not overlap in user addresses")


def _apart(start: int, size: int, other_start: int, other_size: int) -> bool:
    return start + size <= other_start or other_start + other_size <= start


def _identity(region: Region) -> tuple[int, int, int]:
    return region.guest_addr, region.user_addr, region.size


def _place(region: Region) -> str:
    return f"region (guest {region.guest_addr:#x}, user {region.user_addr:#x}, {region.size:#x} bytes)"
