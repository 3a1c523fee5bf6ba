"""Huge pages: asked for by size, and what is said by a host that has none of them, or none left.

Nothing here touches a huge page, so the tests run on hosts that have reserved none.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from tests.memory.files import PAGE, needs_memfd
from vhostuser.memory import MemoryBackendError, MemoryBackendMemfd, guard
from vhostuser.memory.backends import memfd, pages
from vhostuser.memory.backends.pages import HUGE_PAGES, huge_page_sizes, say_free_huge_pages
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = needs_memfd
needs_huge_pages = pytest.mark.skipif(not huge_page_sizes(), reason="this kernel has no huge pages")


def free_pages(size: int) -> int:
    """How many the host could give, with those it would make on demand."""
    folder = HUGE_PAGES / f"hugepages-{size >> 10}kB"
    return sum(int((folder / name).read_text()) for name in ("free_hugepages", "nr_overcommit_hugepages"))


@needs_huge_pages
@pytest.mark.parametrize("size", huge_page_sizes())
def test_memory_is_made_of_huge_pages_of_the_size_asked_for(size: int) -> None:
    """reserve=off: promised, and none taken."""
    described = MemoryBackendMemfd(size=2 * size, hugetlb=True, hugetlbsize=size, reserve=False)
    before = os.listdir("/dev/fd")
    with described.allocate() as block:
        assert (block.mapping.page_size, block.mapping.huge) == (size, True)
        assert block.mapping.address % size == 0
        assert len(block.view) == 2 * size
        assert guard.seals_forbid_shrink(block.fd)
    del block
    assert os.listdir("/dev/fd") == before


@needs_huge_pages
def test_a_part_of_a_huge_page_is_refused() -> None:
    size = huge_page_sizes()[0]
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendMemfd(size=size + PAGE, hugetlb=True, hugetlbsize=size).allocate()
    assert str(caught.value) == (
        f"backend 'memory-backend-memfd' memory size must be multiple of {size:#x}, found {size + PAGE:#x}"
    )


@needs_huge_pages
def test_more_than_the_host_has_left_is_an_error_that_says_where_to_get_more() -> None:
    size = huge_page_sizes()[0]
    before = os.listdir("/dev/fd")
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendMemfd(size=size * (free_pages(size) + 1), hugetlb=True, hugetlbsize=size).allocate()
    said = str(caught.value)
    assert said.startswith("unable to map ")
    assert said.endswith(f" huge pages of {format_size(size)} are free: write more to "
                         f"{HUGE_PAGES}/hugepages-{size >> 10}kB/nr_hugepages")  # fmt: skip
    assert os.listdir("/dev/fd") == before


@needs_huge_pages
def test_huge_pages_that_cannot_be_had_later_are_an_error_as_well() -> None:
    size = huge_page_sizes()[-1]
    if free_pages(size):
        pytest.skip("this host has huge pages of its largest size to spare")
    described = MemoryBackendMemfd(size=size, hugetlb=True, hugetlbsize=size, reserve=False)
    with described.allocate() as block, pytest.raises(MemoryBackendError) as caught:
        block.preallocate()
    said = str(caught.value)
    assert said.startswith(f"memory-backend-memfd mem0: cannot preallocate {format_size(size)}: ")
    assert f"0 huge pages of {format_size(size)} are free: write more to {HUGE_PAGES}/" in said


@pytest.mark.parametrize("size", [8 << 10, 1 << 40])
def test_a_size_that_the_host_lacks_is_an_error_that_lists_what_it_has(size: int) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendMemfd(size=size, hugetlb=True, hugetlbsize=size).allocate()
    said = str(caught.value)
    assert said.startswith("failed to create memfd with flags 0x")
    assert f"this host has no huge pages of {format_size(size)} (property 'hugetlbsize'); it has " in said
    assert all(format_size(each) in said for each in huge_page_sizes())


def test_a_host_without_any_huge_pages_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "HUGE_PAGES", tmp_path)
    assert memfd._no_such_pages(None) == "this host has no huge pages of its default size; it has none"
    assert say_free_huge_pages(1 << 21) == "the host does not say how many free huge pages of 2M it has"


@pytest.mark.parametrize("size", [0, -1])
def test_pages_of_no_size_are_refused(size: int) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendMemfd(size=PAGE, hugetlb=True, hugetlbsize=size)
    assert str(caught.value) == f"property 'hugetlbsize' of memory-backend-memfd doesn't take value '{size}'"


@pytest.mark.parametrize("hugetlb", [True, False])
def test_a_size_that_is_no_power_of_two_is_refused(hugetlb: bool) -> None:
    with pytest.raises(MemoryBackendError) as caught:
        MemoryBackendMemfd(size=PAGE, hugetlb=hugetlb, hugetlbsize=3 << 20)
    assert str(caught.value).startswith(
        "memory-backend-memfd mem0: hugepage size must be a power of 2, found property 'hugetlbsize' = 3145728; "
    )


def test_without_hugetlb_the_size_of_huge_pages_does_not_matter() -> None:
    with MemoryBackendMemfd(size=PAGE, hugetlbsize=1 << 40).allocate() as block:
        assert block.mapping.page_size == mmap.PAGESIZE
