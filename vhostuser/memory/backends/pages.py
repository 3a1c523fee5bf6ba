"""How large the pages are that memory is made of."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vhostuser.memory.backends import libc
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from vhostuser.fd import Fd

HUGE_PAGES: Final = Path("/sys/kernel/mm/hugepages")


def page_size_of(fd: Fd) -> int:
    """Bytes in a page of this file: the size, the offset and the alignment of a mapping are multiples of it."""
    return os.fstatvfs(fd.fileno()).f_bsize if libc.on_hugetlbfs(fd) else mmap.PAGESIZE


def round_up(size: int, page_size: int) -> int:
    """``size`` in whole pages."""
    return -(-size // page_size) * page_size


def huge_page_sizes() -> list[int]:
    """What this host has, smallest first; nothing where there are no huge pages at all."""
    found = (re.fullmatch(r"hugepages-(\d+)kB", each.name) for each in HUGE_PAGES.glob("hugepages-*"))
    return sorted(int(each[1]) << 10 for each in found if each)


def say_huge_page_sizes() -> str:
    """The same, for people."""
    return " and ".join(map(format_size, huge_page_sizes())) or "none"


def say_free_huge_pages(page_size: int) -> str:
    """How many huge pages of this size nobody uses, and where to ask the system for more."""
    folder = HUGE_PAGES / f"hugepages-{page_size >> 10}kB"
    try:
        free = int((folder / "free_hugepages").read_text())
    except (OSError, ValueError):
        return f"the host does not say how many free huge pages of {format_size(page_size)} it has"
    return f"{free} huge pages of {format_size(page_size)} are free: write more to {folder}/nr_hugepages"
