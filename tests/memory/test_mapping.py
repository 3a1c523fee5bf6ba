"""Mapping files that came from elsewhere: what is mapped, for how long, and what is refused."""

from __future__ import annotations

import os
import random
import sys
from typing import TYPE_CHECKING

import pytest

from tests.memory.files import (
    PAGE,
    file_bytes,
    inode_of,
    mapped_ranges,
    open_fds,
    reads_proc,
    region,
    shared_file,
)
from vhostuser.fd import ClosedFd, Fd, Fds
from vhostuser.memory import GuestAddr, GuestMemory, MappingError, UserAddr

if TYPE_CHECKING:
    from vhostuser.wire.records import MemoryRegion

TOP = 1 << 64
FDS_PER_MAPPING = 0 if sys.version_info >= (3, 13) else 1  # older mmap objects keep a duplicate


def test_bytes_written_through_the_map_are_in_the_file() -> None:
    with shared_file(2 * PAGE) as fd:
        memory = GuestMemory.map([region(0x4000, 2 * PAGE)], Fds.of(fd.duplicate()))
        memory.view(GuestAddr(0x4000 + PAGE), 5)[:] = b"hello"
        again = GuestMemory.map([region(0, PAGE, mmap_offset=PAGE)], Fds.of(fd.duplicate()))
        assert bytes(again.view(GuestAddr(0), 6)) == b"hello\0"


@pytest.mark.parametrize("offset", [0, PAGE, 2 * PAGE, 1, 0x200, PAGE + 8], ids=hex)
def test_a_region_begins_at_its_mmap_offset_whatever_that_is(offset: int) -> None:
    """Offsets that mmap does not take are mapped from the start of the file."""
    with shared_file(4 * PAGE) as fd:
        whole = GuestMemory.map([region(0, 4 * PAGE)], Fds.of(fd.duplicate()))
        memory = GuestMemory.map([region(0, PAGE, mmap_offset=offset)], Fds.of(fd.duplicate()))
        assert len(memory.mapped[0].view) == PAGE
        memory.view(GuestAddr(0), 5)[:] = b"hello"
        assert bytes(whole.view(GuestAddr(offset), 5)) == b"hello"


def test_two_regions_may_be_parts_of_one_file() -> None:
    with shared_file(3 * PAGE) as fd:
        table = [region(0x10_0000, PAGE, mmap_offset=2 * PAGE), region(0, 2 * PAGE)]
        memory = GuestMemory.map(table, Fds.of(fd.duplicate(), fd.duplicate()))
        memory.view(GuestAddr(0x10_0000), 4)[:] = b"last"
        assert file_bytes(fd, 4, 2 * PAGE) == b"last"


def test_the_fds_are_closed_once_mapped() -> None:
    with shared_file(PAGE) as fd:
        fds = Fds.of(fd.duplicate(), fd.duplicate())
        memory = GuestMemory.map([region(0, PAGE), region(PAGE, PAGE)], fds)
        assert all(one.closed for one in fds)
        assert len(memory.regions) == 2


@reads_proc
def test_a_mapping_goes_with_its_last_view() -> None:
    with shared_file(PAGE) as fd:
        inode, before = inode_of(fd), open_fds()
        memory = GuestMemory.map([region(0, PAGE)], Fds.of(fd.duplicate()))
        assert mapped_ranges(inode) == [PAGE]
        assert open_fds() == before + FDS_PER_MAPPING
        chain = memory.views(GuestAddr(16), 8)
        del memory
        assert mapped_ranges(inode) == [PAGE]
        chain[0][:] = b"still ok"
        del chain
        assert mapped_ranges(inode) == []
        assert open_fds() == before


@reads_proc
def test_a_region_more_and_less_maps_and_unmaps_only_that_region() -> None:
    with shared_file(3 * PAGE) as fd:
        inode = inode_of(fd)
        low, high = region(0, PAGE), region(0x10_0000, 2 * PAGE)
        memory = GuestMemory.EMPTY.with_region(low, fd.duplicate())
        before = memory
        memory = memory.with_region(high, fd.duplicate())
        assert (before.regions, memory.regions) == ((low,), (low, high))
        assert sorted(mapped_ranges(inode)) == [PAGE, 2 * PAGE]
        memory = memory.without_region(low)
        assert sorted(mapped_ranges(inode)) == [PAGE, 2 * PAGE]
        before = memory
        assert mapped_ranges(inode) == [2 * PAGE]
        assert before.user_view(UserAddr(high.user_addr), 2 * PAGE).nbytes == 2 * PAGE


@reads_proc
def test_when_one_region_fails_the_others_are_unmapped_and_all_fds_closed() -> None:
    with shared_file(PAGE) as fd, shared_file(PAGE) as short:
        fds = Fds.of(fd.duplicate(), fd.duplicate(), short.duplicate())
        table = [region(0, PAGE), region(PAGE, PAGE), region(2 * PAGE, 2 * PAGE)]
        with pytest.raises(MappingError) as caught:
            GuestMemory.map(table, fds)
        # The exception, and with it every frame of the traceback, is alive here.
        assert mapped_ranges(inode_of(fd)) == []
        assert all(one.closed for one in fds)
        assert str(caught.value) == (
            f"memory region at guest address {2 * PAGE:#x}, size {2 * PAGE:#x}: with mmap offset 0x0 "
            f"it needs a file of {2 * PAGE:#x} bytes, its fd has {PAGE:#x}"
        )


BAD_REGIONS = [
    pytest.param(region(0, 0), "size 0x0: a region has at least one byte", id="empty"),
    pytest.param(region(TOP - PAGE, PAGE + 1, user_addr=0), "guest addr .* plus size wraps past 2.64", id="guest wrap"),
    pytest.param(region(0, PAGE, user_addr=TOP - PAGE + 1), "user addr .* plus size wraps past 2.64", id="user wrap"),
    pytest.param(region(0, PAGE, mmap_offset=TOP - 1), "mmap offset .* plus size wraps past 2.64", id="offset wrap"),
    pytest.param(region(0, PAGE + 1), f"needs a file of {PAGE + 1:#x} bytes, its fd has {PAGE:#x}", id="too large"),
    pytest.param(region(0, PAGE, mmap_offset=1), f"{PAGE + 1:#x} bytes, its fd has {PAGE:#x}", id="offset too large"),
    pytest.param(region(0, 1 << 41), r"takes 0x2000000.000 bytes, the limit is 0x10000000000", id="over 1 TiB"),
]


@pytest.mark.parametrize(("bad", "why"), BAD_REGIONS)
def test_a_table_with_a_bad_region_is_refused_and_its_fd_closed(bad: MemoryRegion, why: str) -> None:
    fds = Fds.of(shared_file(PAGE))
    with pytest.raises(MappingError, match=why):
        GuestMemory.map([bad], fds)
    assert fds[0].closed


@pytest.mark.parametrize(("bad", "why"), BAD_REGIONS)
def test_adding_a_bad_region_is_refused_and_changes_nothing(bad: MemoryRegion, why: str) -> None:
    good = region(0x10_0000_0000_0000, PAGE)
    memory = GuestMemory.map([good], Fds.of(shared_file(PAGE)))
    fd = shared_file(PAGE)
    with pytest.raises(MappingError, match=why):
        memory.with_region(bad, fd)
    assert fd.closed
    assert memory.regions == (good,)


@pytest.mark.parametrize(
    ("guest", "user", "why"),
    [
        (2 * PAGE - 1, 0, "overlap in guest addresses"),
        (4 * PAGE - 1, 0, "overlap in guest addresses"),
        (4 * PAGE, 0, "overlap in guest addresses"),
        (0, 12 * PAGE + 1, "overlap in user addresses"),
        (0, 13 * PAGE - 1, "overlap in user addresses"),
        (8 * PAGE, 9 * PAGE + 1, "overlap in user addresses"),
    ],
)
def test_adding_a_region_over_another_one_is_refused(guest: int, user: int, why: str) -> None:
    """Two regions, the first for the guest is the last for the front-end; each neighbour may be the one in the way."""
    low, high = region(PAGE, PAGE, user_addr=13 * PAGE), region(4 * PAGE, PAGE, user_addr=10 * PAGE)
    memory = GuestMemory.map([low, high], Fds.of(shared_file(PAGE), shared_file(PAGE)))
    with pytest.raises(MappingError, match=why):
        memory.with_region(region(guest, PAGE, user_addr=user), shared_file(PAGE))


def test_regions_that_come_and_go_one_by_one_are_as_a_table_of_those_that_stayed() -> None:
    chance = random.Random(1)
    places = chance.sample(range(60), 60), chance.sample(range(60), 60)
    regions = [region(2 * a * PAGE, PAGE, user_addr=2 * b * PAGE) for a, b in zip(*places, strict=True)]
    memory = GuestMemory.EMPTY
    with shared_file(PAGE) as fd:
        for count, each in enumerate(regions):
            memory = memory.with_region(each, fd.duplicate())
            if count % 3 == 2:
                memory = memory.without_region(regions[count - 1])
        stayed = [each for count, each in enumerate(regions) if count % 3 != 1]
        table = GuestMemory.map(stayed, Fds.of(*(fd.duplicate() for _ in stayed)))
    assert memory.regions == table.regions
    for each in regions:
        if each in stayed:
            assert memory.guest_addr(UserAddr(each.user_addr + 5)) == each.guest_addr + 5
            assert len(memory.view(GuestAddr(each.guest_addr), PAGE)) == PAGE
        else:
            with pytest.raises(MappingError, match="not mapped"):
                memory.without_region(each)


def test_the_limit_counts_all_regions_and_what_an_odd_offset_maps_in_addition() -> None:
    with shared_file(3 * PAGE) as fd:
        memory = GuestMemory.map([region(0, PAGE)], Fds.of(fd.duplicate()), max_total=PAGE)
        with pytest.raises(MappingError, match=f"takes {2 * PAGE:#x} bytes, the limit is {2 * PAGE - 1:#x}"):
            memory.with_region(region(PAGE, PAGE), fd.duplicate(), max_total=2 * PAGE - 1)
        with pytest.raises(MappingError, match=f"takes {2 * PAGE + 1:#x} bytes"):
            GuestMemory.map([region(0, PAGE, mmap_offset=PAGE + 1)], Fds.of(fd.duplicate()), max_total=2 * PAGE)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_each_region_needs_its_own_fd(count: int) -> None:
    with shared_file(PAGE) as fd:
        fds = Fds([fd.duplicate() for _ in range(count)])
        with pytest.raises(MappingError, match=f"2 memory regions came with {count} fds, expected one each"):
            GuestMemory.map([region(0, PAGE), region(PAGE, PAGE)], fds)
        assert all(one.closed for one in fds)


def test_what_cannot_be_mapped_is_refused_with_the_systems_reason() -> None:
    """A descriptor without the right to write: a shared writable mapping of it is EACCES."""
    with shared_file(PAGE) as fd:
        read_only = Fd(os.open(f"/proc/self/fd/{fd.fileno()}", os.O_RDONLY | os.O_CLOEXEC))
        with pytest.raises(MappingError, match=r"cannot map it: \[Errno 13\]"):
            GuestMemory.map([region(0, PAGE)], Fds.of(read_only))


def test_a_pipe_is_no_memory() -> None:
    read_end, write_end = os.pipe()
    with Fd(write_end), pytest.raises(MappingError, match="its fd has 0x0"):
        GuestMemory.map([region(0, PAGE)], Fds.of(Fd(read_end)))


def test_a_holder_that_is_empty_already_is_our_own_mistake() -> None:
    fd = shared_file(PAGE)
    fd.close()
    with pytest.raises(ClosedFd):
        GuestMemory.map([region(0, PAGE)], Fds.of(fd))
