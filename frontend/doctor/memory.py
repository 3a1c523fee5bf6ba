"""Which kinds of memory can be made here and shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.doctor.finding import Finding, Level
from vhostuser.memory.backends import MemoryBackend, MemoryBackendError, MemoryBackendMemfd, MemoryBackendShm
from vhostuser.memory.backends.memfd import NoMemfdError
from vhostuser.memory.backends.pages import HUGE_PAGES, huge_page_sizes
from vhostuser.memory.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

TOPIC = "memory"
TRIED = 1 << 20
"""Bytes that are allocated to see whether it works."""


def look_at_memory() -> Iterator[Finding]:
    """One finding for each kind."""
    yield tried("shm", MemoryBackendShm(id="doctor", size=TRIED), "mount a tmpfs at /dev/shm")
    yield memfd()
    yield huge_pages(free_huge_pages())


def memfd() -> Finding:
    """Sealed anonymous memory."""
    advice = "on Linux a sandbox may forbid memfd_create; --memory shm needs none"
    return tried("memfd, sealed", MemoryBackendMemfd(id="doctor", size=TRIED), advice)


def huge_pages(free: Mapping[int, int]) -> Finding:
    """How many huge pages are ``free``, by their size."""
    if not free:
        return Finding(TOPIC, "huge pages", Level.HINT, "none of any size", "nothing but speed depends on them")
    found = ", ".join(f"{count} free of {format_size(size)}" for size, count in free.items())
    if any(free.values()):
        return Finding(TOPIC, "huge pages", Level.OK, found)
    advice = f"to have 64: echo 64 > {_folder(min(free))}/nr_hugepages (as root); nothing but speed depends on them"
    return Finding(TOPIC, "huge pages", Level.HINT, found, advice)


def free_huge_pages() -> dict[int, int]:
    """How many of each size nobody uses."""
    return {size: int((_folder(size) / "free_hugepages").read_text()) for size in huge_page_sizes()}


def tried(name: str, backend: MemoryBackend, advice: str) -> Finding:
    """Whether this memory can be made and written to; ``advice`` is for where it cannot."""
    try:
        with backend.allocate() as block:
            block.view[:1] = b"\1"
    except NoMemfdError as error:
        return Finding(TOPIC, name, Level.HINT, str(error), advice)
    except MemoryBackendError as error:
        return Finding(TOPIC, name, Level.BROKEN, str(error), advice)
    return Finding(TOPIC, name, Level.OK, "works")


def _folder(size: int) -> Path:
    return HUGE_PAGES / f"hugepages-{size >> 10}kB"
