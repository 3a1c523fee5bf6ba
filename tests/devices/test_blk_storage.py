"""Where a disk keeps its bytes: memory, and files that may be cold, short or full of holes."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.devices.driving import BlkRing
from vhostuser.devices.blk import BlkDevice, FileStorage, MemoryStorage, Storage, storage
from vhostuser.devices.blk.storage import IOV_MAX, WouldBlock
from vhostuser.wire.virtio.blk import BlkStatus, BlkType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vhostuser.wire.schema import Buffer

MIB = 1 << 20
CONTENT = os.urandom(MIB)
ATTEMPTS = 10.0
"""Seconds for them; nearly always the first one does."""
NOWAIT = hasattr(os, "RWF_NOWAIT")
needs_nowait = pytest.mark.skipif(not NOWAIT, reason="this system has no RWF_NOWAIT")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def image(path: Path) -> Iterator[FileStorage]:
    storage = FileStorage(path)
    yield storage
    storage.close()


def read(storage: Storage, offset: int, *lengths: int, nowait: bool = False) -> bytes:
    buffers = [bytearray(length) for length in lengths]
    storage.read(offset, [memoryview(each) for each in buffers], nowait=nowait)
    return b"".join(buffers)


def forget_pages(path: Path) -> None:
    """Throw the file out of the page cache: the next read has to wait for the disk.

    The kernel may keep pages that somebody uses just now, so it is asked until none is left.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        os.fsync(file.fileno())
        there = (ctypes.c_ubyte * -(-len(pages) // mmap.PAGESIZE))(1)
        first = ctypes.c_char.from_buffer(pages)
        start = ctypes.c_void_p(ctypes.addressof(first))
        for _ in range(1000):
            if not any(page & 1 for page in there):
                break
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert libc.mincore(start, ctypes.c_size_t(len(pages)), there) == 0
        del first
    assert not any(page & 1 for page in there), "the page cache would not let go of the file"


# --- the same for both -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize("nowait", [False, pytest.param(True, marks=needs_nowait)])
def test_what_is_written_is_read_back_in_pieces_of_any_size(kind: str, nowait: bool, image: FileStorage) -> None:
    storage: Storage = MemoryStorage(MIB) if kind == "memory" else image
    storage.write(100, [b"abc", b"", bytearray(b"defg"), memoryview(b"h")], nowait=False)
    assert read(storage, 100, 1, 4, 3, nowait=nowait) == b"abcdefgh"
    storage.flush()


def test_memory_has_nothing_to_close_or_to_refresh() -> None:
    storage = MemoryStorage(1000)
    assert storage.refresh() == storage.size == 1000
    storage.discard(0, 1000)
    storage.close()


def test_write_zeroes_in_memory_stops_where_it_should() -> None:
    storage = MemoryStorage(300_000)
    storage.write(0, [b"x" * 300_000], nowait=False)
    storage.write_zeroes(1, 200_001, unmap=True)
    assert read(storage, 0, 300_000) == b"x" + bytes(200_001) + b"x" * 99_998


# --- files ---------------------------------------------------------------------------------------------------------


def test_more_pieces_than_one_system_call_takes_are_read_and_written(image: FileStorage, path: Path) -> None:
    pieces = [bytes([number % 256]) * 3 for number in range(2 * IOV_MAX + 5)]
    image.write(7, pieces, nowait=False)
    assert path.read_bytes()[7 : 7 + 3 * len(pieces)] == b"".join(pieces)
    assert read(image, 7, *([1] * (3 * len(pieces)))) == b"".join(pieces)


@needs_nowait
def test_a_page_in_the_cache_is_read_without_waiting(image: FileStorage) -> None:
    assert read(image, 4096, 4096, nowait=True) == CONTENT[4096:8192]


@needs_nowait
def test_a_page_that_is_not_in_the_cache_would_have_to_wait(image: FileStorage, path: Path) -> None:
    assert would_wait(image, lambda: forget_pages(path))
    assert read(image, 0, 4096) == CONTENT[:4096]


@needs_nowait
def test_a_read_of_which_only_the_beginning_is_cached_would_have_to_wait(image: FileStorage, path: Path) -> None:
    def only_the_first_page() -> None:
        forget_pages(path)
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        os.pread(fd, 4096, 0)
        os.close(fd)

    assert would_wait(image, only_the_first_page)


def would_wait(image: FileStorage, forget: Callable[[], object]) -> bool:
    """Whether a read of all said so in one of many attempts: a fast disk may have it before the kernel gives up."""
    end = time.monotonic() + ATTEMPTS
    while time.monotonic() < end:
        forget()
        try:
            assert read(image, 0, MIB, nowait=True) == CONTENT
        except WouldBlock:
            return True
    return False


def test_inline_writes_need_no_promise_of_the_file_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_NOWAIT", 0)
    with closing(FileStorage(path, inline_writes=True)) as inline:
        inline.write(7, [b"at once"], nowait=True)
        with pytest.raises(WouldBlock):
            read(inline, 7, 7, nowait=True)
        assert read(inline, 7, 7) == b"at once"


def test_where_the_system_cannot_say_whether_it_waits_everything_would_have_to(
    image: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_NOWAIT", 0)
    with pytest.raises(WouldBlock, match="cannot say"):
        read(image, 0, 1, nowait=True)
    assert len(read(image, 0, 1)) == 1


def test_reading_past_the_end_says_how_much_is_missing(image: FileStorage) -> None:
    with pytest.raises(OSError, match=f"image has nothing at byte {MIB}, 100 bytes were wanted") as caught:
        read(image, MIB - 50, 100, 50)
    assert caught.value.errno == errno.EIO


def test_an_error_of_the_file_is_passed_on(path: Path) -> None:
    readable = FileStorage(path, read_only=True)
    with pytest.raises(OSError, match="Bad file descriptor"):
        readable.write(0, [b"x"], nowait=False)
    readable.close()


def test_discard_gives_the_space_back_and_keeps_the_size(image: FileStorage, path: Path) -> None:
    before = allocated(path)
    image.discard(0, MIB // 2)
    assert path.stat().st_size == MIB
    assert allocated(path) <= before - MIB // 2 or not punches_holes()


@pytest.mark.parametrize("unmap", [False, True])
def test_write_zeroes_gives_the_space_back_only_when_asked_to(image: FileStorage, path: Path, unmap: bool) -> None:
    before = allocated(path)
    image.write_zeroes(4096, MIB // 2, unmap=unmap)
    content = path.read_bytes()
    assert content[4096 : 4096 + MIB // 2] == bytes(MIB // 2)
    assert any(content[:4096])
    assert any(content[4096 + MIB // 2 :])
    assert (allocated(path) < before) == (unmap and punches_holes())


def test_zeroes_are_written_where_no_hole_can_be_made(
    image: FileStorage, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoFallocate:
        def __init__(self, *_: object, **__: object) -> None: ...

    monkeypatch.setattr(ctypes, "CDLL", NoFallocate)  # a system that has no such call
    image.write_zeroes(0, 100_000, unmap=True)
    image.discard(200_000, 4096)
    assert path.read_bytes()[:100_000] == bytes(100_000)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def punches_holes() -> bool:
    return hasattr(ctypes.CDLL(None), "fallocate")


def test_refresh_sees_that_the_file_has_grown(image: FileStorage, path: Path) -> None:
    os.truncate(path, 2 * MIB)
    assert image.size == MIB
    assert image.refresh() == image.size == 2 * MIB


def test_a_file_that_cannot_be_opened_says_which(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FileStorage(tmp_path / "nowhere")


# --- under a device: inline or on a thread ---------------------------------------------------------------------------


class Watched(FileStorage):
    """A real image file that knows which thread used it, and whether it was asked not to wait."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls: list[tuple[str, bool, bool]] = []

    def read(self, offset: int, views: Sequence[memoryview], *, nowait: bool) -> None:
        self._note("read", nowait)
        super().read(offset, views, nowait=nowait)

    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        self._note("write", nowait)
        super().write(offset, views, nowait=nowait)

    def flush(self) -> None:
        self._note("flush", False)
        super().flush()

    def _note(self, what: str, nowait: bool) -> None:
        self.calls.append((what, nowait, threading.current_thread() is threading.main_thread()))


@needs_nowait
async def test_reads_from_the_page_cache_stay_on_trios_thread(path: Path) -> None:
    watched = Watched(path)
    assert (await BlkRing(BlkDevice(watched)).ask(BlkType.IN, 8, wanted=4096)).data == CONTENT[4096:8192]
    watched.close()
    assert watched.calls == [("read", True, True)]


@needs_nowait
async def test_reads_from_a_cold_file_are_repeated_on_one_thread_together(path: Path) -> None:
    watched = Watched(path)
    ring = BlkRing(BlkDevice(watched))
    placed = [ring.place(BlkType.IN, sector, wanted=4096) for sector in (0, 1000)]
    forget_pages(path)
    await ring.run()
    watched.close()
    assert [ring.bytes(each.status) for each in placed] == [b"\0", b"\0"]
    assert [ring.bytes(each.data) for each in placed] == [CONTENT[:4096], CONTENT[512_000:516_096]]
    asked, repeated = watched.calls[:2], watched.calls[2:]
    assert asked == [("read", True, True)] * 2
    # A fast disk has a page there before the kernel gives up: that one need not be repeated.
    assert len(repeated) <= 2
    assert set(repeated) <= {("read", False, False)}


async def test_a_flush_is_never_made_on_trios_thread(path: Path) -> None:
    watched = Watched(path)
    ring = BlkRing(BlkDevice(watched))
    assert (await ring.ask(BlkType.FLUSH)).status == BlkStatus.OK
    ring.device.negotiated(0)
    assert (await ring.ask(BlkType.OUT, 0, out=bytes(512))).status == BlkStatus.OK
    watched.close()
    assert watched.calls == [("flush", False, False), ("write", False, False), ("flush", False, False)]
