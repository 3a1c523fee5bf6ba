"""Dirty logs of our own making, and what is found out from them."""

from __future__ import annotations

import os
import re

import pytest

from frontend.conformance.dirty import BEHIND, LOG_PAGE, DirtyLog, log_size
from frontend.conformance.logged import POISON, Dirtied, hexadecimal, unmarked
from frontend.conformance.memory import PAGE, SharedMemory, Span
from frontend.conformance.model import Request
from vhostuser.conformance import Failure

BASE = 0x10_0000


def memory(pages: int = 16) -> SharedMemory:
    return SharedMemory(Span(BASE, pages * PAGE))


@pytest.mark.parametrize(("end", "size"), [(1, 8), (64 * LOG_PAGE, 8), (64 * LOG_PAGE + 1, 16), (1 << 32, 1 << 17)])
def test_a_log_covers_all_of_the_memory_in_words_of_eight_bytes(end: int, size: int) -> None:
    first = max(0, end - PAGE) // PAGE * PAGE
    with SharedMemory(Span(first, end - first)) as guest:
        assert log_size(guest) == size


def test_a_mark_is_a_bit_of_a_byte_behind_the_offset() -> None:
    with memory() as guest, DirtyLog(guest, offset=4096) as log:
        log.view[4096 + 0x101 // 8] = 1 << 0x101 % 8
        assert log.pages() == {0x101}
        assert log.marked(BASE + LOG_PAGE)
        assert not log.marked(BASE)
        log.check()
        log.clear()
        assert log.pages() == set()


@pytest.mark.parametrize(("at", "where"), [(0, "before"), (4095, "before"), (4096 + 40, "behind")])
def test_a_byte_beside_the_log_is_found_out(at: int, where: str) -> None:
    with memory() as guest, DirtyLog(guest, offset=4096) as log:
        assert log.size == 40
        log.view[at] = 1
        with pytest.raises(Failure, match=f"bytes of the file {where} the log"):
            log.check()


@pytest.mark.parametrize(("wanted", "found"), [(None, PAGE + BEHIND), (3 * PAGE, 3 * PAGE)])
def test_the_file_is_longer_than_the_log_or_as_long_as_it_is_told(wanted: int | None, found: int) -> None:
    with memory() as guest, DirtyLog(guest, file_size=wanted) as log, log.fds() as fds:
        assert os.fstat(fds[0].fileno()).st_size == found


def test_pages_count_as_written_when_a_byte_has_changed() -> None:
    with memory() as guest:
        inside, across = guest.buffer(32), guest.at(BASE + 9 * PAGE - 8, 16)
        dirtied = Dirtied(guest, [Request([guest.buffer(8)], [inside, across], lambda used: None)])
        assert bytes(inside.view) == bytes([POISON]) * 32
        assert dirtied.allowed() == {0x100, 0x108, 0x109}
        assert dirtied.pages() == set()
        across.view[7] ^= 1
        assert dirtied.pages() == {0x108}
        across.view[8] ^= 1
        inside.view[31] ^= 1
        assert dirtied.pages() == {0x100, 0x108, 0x109}


def test_pages_that_are_not_marked_are_named_and_those_that_are_too() -> None:
    with memory() as guest, DirtyLog(guest) as log:
        log.view[0x108 // 8] = 1
        unmarked(log, {0x108})
        expected = "pages 0x100, 0x109 were written to, and are not marked; marked are 0x108"
        with pytest.raises(Failure, match=re.escape(expected)):
            unmarked(log, {0x100, 0x108, 0x109})


@pytest.mark.parametrize(
    ("pages", "words"),
    [((), "none"), ((16, 1), "0x1, 0x10"), (range(10), "0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7 and 2 more")],
)
def test_page_numbers_for_people_are_few(pages: tuple[int, ...], words: str) -> None:
    assert hexadecimal(pages) == words
