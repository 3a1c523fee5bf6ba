"""The block device, request by request (virtio 1.3, 5.2.6), through rings in which every byte is ours."""

from __future__ import annotations

import contextlib
import logging
import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.devices.driving import NO_STATUS, OK, BlkRing, ranges
from vhostuser.devices.blk import BlkDevice, FileStorage, MemoryStorage
from vhostuser.devices.blk.device import MAX_RANGE_SECTORS, MAX_RANGES
from vhostuser.memory.map import GuestAddr
from vhostuser.virtqueue.queue import Segment
from vhostuser.wire.virtio.blk import BlkFeature, BlkRangeFlags, BlkStatus, BlkType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vhostuser.wire.schema import Buffer

SECTOR = 512
SECTORS = 64
DATA = bytes(range(256)) * 8  # 4 sectors


@pytest.fixture(autouse=True, params=["frames", "streams"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device looks at chains in two ways, and gives the same answers both ways."""
    monkeypatch.setattr(BlkRing, "cut_headers", request.param == "streams")


def disk(*, read_only: bool = False, serial: str = "a disk", content: bytes = b"") -> BlkRing:
    storage = MemoryStorage(SECTORS * SECTOR)
    storage.write(0, [content], nowait=False)
    return BlkRing(BlkDevice(storage, serial=serial, read_only=read_only))


def content(ring: BlkRing, sector: int, sectors: int) -> bytes:
    assert isinstance(ring.device, BlkDevice)
    found = bytearray(sectors * SECTOR)
    ring.device.storage.read(sector * SECTOR, [memoryview(found)], nowait=False)
    return bytes(found)


def cut(segment: Segment, *where: int) -> list[Segment]:
    """The pieces of a buffer."""
    places = pairwise((0, *where, segment.length))
    return [Segment(GuestAddr(segment.addr + begin), end - begin) for begin, end in places]


# --- what works --------------------------------------------------------------------------------------------------


async def test_in_fills_the_data_and_counts_it_and_the_status() -> None:
    answer = await disk(content=bytes(SECTOR) + DATA).ask(BlkType.IN, 1, wanted=len(DATA))
    assert answer == (BlkStatus.OK, DATA, len(DATA) + 1)


async def test_out_stores_the_data_and_counts_the_status_alone() -> None:
    ring = disk()
    assert (await ring.ask(BlkType.OUT, 3, out=DATA))[::2] == (BlkStatus.OK, 1)
    assert content(ring, 2, 6) == bytes(SECTOR) + DATA + bytes(SECTOR)


async def test_flush_has_a_status_and_nothing_else() -> None:
    assert await disk().ask(BlkType.FLUSH) == OK


@pytest.mark.parametrize("kind", [BlkType.IN, BlkType.OUT])
async def test_the_last_sector_can_be_reached(kind: BlkType) -> None:
    out, wanted = (b"", SECTOR) if kind == BlkType.IN else (bytes(SECTOR), 0)
    assert (await disk().ask(kind, SECTORS - 1, out=out, wanted=wanted)).status == BlkStatus.OK


@pytest.mark.parametrize("kind", [BlkType.IN, BlkType.OUT])
async def test_a_request_for_no_sectors_at_all_is_done(kind: BlkType) -> None:
    assert await disk().ask(kind, 5) == OK


@pytest.mark.parametrize(
    ("serial", "expected"),
    [
        ("a disk", b"a disk" + bytes(14)),
        ("exactly twenty chars", b"exactly twenty chars"),
        ("rather more than twenty characters", b"rather more than twe"),
        ("größe", b"gr??e" + bytes(15)),
        ("", bytes(20)),
    ],
)
async def test_get_id_answers_20_bytes_with_no_nul_behind_a_full_name(serial: str, expected: bytes) -> None:
    assert await disk(serial=serial).ask(BlkType.GET_ID, wanted=20) == (BlkStatus.OK, expected, 21)


@pytest.mark.parametrize("room", [1, 19])
async def test_get_id_fills_a_buffer_that_is_too_small_as_far_as_it_goes(room: int) -> None:
    answer = await disk(serial="exactly twenty chars").ask(BlkType.GET_ID, wanted=room)
    assert answer == (BlkStatus.OK, b"exactly twenty chars"[:room], room + 1)


async def test_get_id_leaves_what_is_behind_its_20_bytes_and_does_not_count_it() -> None:
    answer = await disk(serial="x").ask(BlkType.GET_ID, wanted=32)
    assert (answer.status, answer.used_length) == (BlkStatus.OK, 20)


async def test_process_serves_one_chain_as_run_queue_does() -> None:
    ring = disk(content=DATA)
    placed = ring.place(BlkType.IN, 0, wanted=SECTOR)
    (chain,) = ring.queue.pop(1)
    await ring.device.process(0, chain)
    assert ring.bytes(placed.status) == b"\0"
    assert ring.bytes(placed.data) == DATA[:SECTOR]
    ring.place(BlkType.FLUSH)  # on a thread
    (chain,) = ring.queue.pop(1)
    await ring.device.process(0, chain)
    assert chain.writable.written == 1


# --- how the driver cuts its buffers means nothing (2.6.4) ---------------------------------------------------------


async def test_a_header_may_be_spread_over_descriptors() -> None:
    ring = disk(content=DATA)
    header, data, status = ring.header(BlkType.IN, 1), ring.ring.buffer(SECTOR), ring.status()
    pieces = cut(header, 3, 4)
    length = await ring.used_length(*((piece, False) for piece in pieces), (data, True), (status, True))
    assert (length, ring.bytes(status)) == (SECTOR + 1, b"\0")
    assert ring.bytes(data) == DATA[SECTOR : 2 * SECTOR]


async def test_a_header_may_share_its_descriptor_with_the_data() -> None:
    ring = disk()
    both = ring.ring.buffer(16 + SECTOR, ring.bytes(ring.header(BlkType.OUT, 2)) + DATA[:SECTOR])
    status = ring.status()
    assert await ring.used_length((both, False), (status, True)) == 1
    assert ring.bytes(status) == b"\0"
    assert content(ring, 2, 1) == DATA[:SECTOR]


async def test_a_status_byte_may_share_its_descriptor_with_the_data() -> None:
    ring = disk(content=DATA)
    both = ring.ring.buffer(2 * SECTOR + 1, bytes([NO_STATUS]) * (2 * SECTOR + 1))
    assert await ring.used_length((ring.header(BlkType.IN), False), (both, True)) == 2 * SECTOR + 1
    assert ring.bytes(both) == DATA[: 2 * SECTOR] + b"\0"


async def test_data_may_come_in_pieces_that_are_no_sectors() -> None:
    ring = disk()
    data, status = ring.ring.buffer(len(DATA), DATA), ring.status()
    pieces = ((piece, False) for piece in cut(data, 1, 511, 1511))
    await ring.used_length((ring.header(BlkType.OUT), False), *pieces, (status, True))
    assert ring.bytes(status) == b"\0"
    assert content(ring, 0, 4) == DATA


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [2, 3, 5, 10, 14, 15, 16, 24, 99, 0xFFFFFFFF])
async def test_a_request_type_that_was_not_offered_is_unsupported(kind: int) -> None:
    ring = disk()
    answer = await ring.ask(kind, out=DATA)
    assert (answer.status, answer.used_length) == (BlkStatus.UNSUPP, 1)
    assert content(ring, 0, 4) == bytes(len(DATA))


@pytest.mark.parametrize("length", [1, 511, 513, 1023])
async def test_lengths_that_are_no_multiple_of_a_sector_are_errors(length: int) -> None:
    ring = disk(content=DATA)
    read = await ring.ask(BlkType.IN, wanted=length)
    assert read == (BlkStatus.IOERR, bytes(length), 0)
    written = await ring.ask(BlkType.OUT, out=b"x" * length)
    assert (written.status, written.used_length) == (BlkStatus.IOERR, 1)
    assert content(ring, 0, 4) == DATA


@pytest.mark.parametrize("sector", [SECTORS - 1, SECTORS, SECTORS + 1, 1 << 40, (1 << 64) - 1])
async def test_requests_beyond_the_end_are_errors_each_by_itself(sector: int) -> None:
    ring = disk(content=DATA)
    good = ring.place(BlkType.IN, 0, wanted=2 * SECTOR)
    bad_read = ring.place(BlkType.IN, sector, wanted=2 * SECTOR)
    bad_write = ring.place(BlkType.OUT, sector, out=DATA[: 2 * SECTOR])
    also_good = ring.place(BlkType.IN, 1, wanted=SECTOR)
    await ring.run()
    found = [ring.bytes(each.status)[0] for each in (good, bad_read, bad_write, also_good)]
    assert found == [BlkStatus.OK, BlkStatus.IOERR, BlkStatus.IOERR, BlkStatus.OK]
    assert [length for _, length in ring.ring.used()] == [2 * SECTOR + 1, 0, 1, SECTOR + 1]
    assert ring.bytes(bad_read.data) == bytes(2 * SECTOR)  # nothing of the disk, nothing of ours


@pytest.mark.parametrize(
    ("kind", "out"),
    [
        (BlkType.OUT, DATA),
        (BlkType.DISCARD, ranges((0, 1, 0))),
        (BlkType.WRITE_ZEROES, ranges((0, 1, 0))),
    ],
)
async def test_a_read_only_disk_refuses_whatever_would_change_it(kind: BlkType, out: bytes) -> None:
    ring = disk(read_only=True, content=DATA)
    assert (await ring.ask(kind, out=out)).status == BlkStatus.IOERR
    assert content(ring, 0, 4) == DATA
    assert (await ring.ask(BlkType.IN, wanted=SECTOR)).data == DATA[:SECTOR]
    assert (await ring.ask(BlkType.FLUSH)).status == BlkStatus.OK


def test_a_read_only_disk_says_so_and_offers_no_way_to_write() -> None:
    assert BlkDevice(MemoryStorage(SECTOR), read_only=True).features & BlkFeature.RO
    writing = BlkFeature.DISCARD | BlkFeature.WRITE_ZEROES
    assert not BlkDevice(MemoryStorage(SECTOR), read_only=True).features & writing
    assert BlkDevice(MemoryStorage(SECTOR)).features & (writing | BlkFeature.RO) == writing


async def test_a_chain_with_too_short_a_header_comes_back_and_the_next_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ring = disk(content=DATA)
    header, status = ring.header(BlkType.IN), ring.status()
    assert await ring.used_length((Segment(header.addr, 15), False), (status, True)) == 0
    assert "16 readable bytes needed, the chain has 15 left" in caplog.text
    assert (await ring.ask(BlkType.IN, wanted=SECTOR)).data == DATA[:SECTOR]


async def test_a_chain_without_a_status_byte_comes_back_and_nothing_is_done(caplog: pytest.LogCaptureFixture) -> None:
    ring = disk(content=DATA)
    assert await ring.used_length((ring.header(BlkType.OUT), False), (ring.ring.buffer(SECTOR), False)) == 0
    assert "1 writable bytes needed, the chain has 0 left" in caplog.text
    assert content(ring, 0, 4) == DATA


async def test_a_chain_with_nothing_to_read_comes_back() -> None:
    ring = disk()
    assert await ring.used_length((ring.status(), True)) == 0


async def test_what_is_refused_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vhostuser.devices.blk"):
        await disk().ask(BlkType.OUT, SECTORS - 1, out=DATA)
        await disk().ask(77)
    assert "OUT at sector 63 refused: sectors 63+4 end behind the disk's 64" in caplog.text
    assert "request 77 at sector 0 refused: not a request this disk knows" in caplog.text


# --- DISCARD and WRITE_ZEROES: ranges ------------------------------------------------------------------------------


async def test_discard_is_done() -> None:
    assert (await disk(content=DATA).ask(BlkType.DISCARD, out=ranges((0, 1, 0), (2, 2, 0))))[::2] == (0, 1)


@pytest.mark.parametrize("flags", [0, BlkRangeFlags.UNMAP])
async def test_write_zeroes_makes_its_ranges_zero_and_leaves_the_rest(flags: int) -> None:
    ring = disk(content=DATA)
    assert (await ring.ask(BlkType.WRITE_ZEROES, out=ranges((0, 1, flags), (3, 1, flags)))).status == BlkStatus.OK
    assert content(ring, 0, 4) == bytes(SECTOR) + DATA[SECTOR : 3 * SECTOR] + bytes(SECTOR)


async def test_the_sector_in_the_header_of_a_range_request_means_nothing() -> None:
    ring = disk(content=DATA)
    assert (await ring.ask(BlkType.WRITE_ZEROES, 1 << 50, out=ranges((0, 4, 0)))).status == BlkStatus.OK
    assert content(ring, 0, 4) == bytes(len(DATA))


BOTH = [BlkType.DISCARD, BlkType.WRITE_ZEROES]
BEYOND = ranges((SECTORS - 1, 2, 0))


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("out", "status"),
    [
        pytest.param(b"", BlkStatus.IOERR, id="no range"),
        pytest.param(bytes(15), BlkStatus.IOERR, id="part of a range"),
        pytest.param(ranges((0, 1, 0)) + b"x", BlkStatus.IOERR, id="a range and a byte"),
        pytest.param(ranges(*[(0, 1, 0)] * (MAX_RANGES + 1)), BlkStatus.IOERR, id="too many ranges"),
        pytest.param(ranges((0, MAX_RANGE_SECTORS + 1, 0)), BlkStatus.IOERR, id="too many sectors"),
        pytest.param(ranges((0, 0xFFFFFFFF, 0)), BlkStatus.IOERR, id="far too many sectors"),
        pytest.param(BEYOND, BlkStatus.IOERR, id="beyond the end"),
        pytest.param(ranges(((1 << 64) - 1, 1, 0)), BlkStatus.IOERR, id="wrapping"),
        pytest.param(ranges((0, 1, 2)), BlkStatus.UNSUPP, id="a reserved flag"),
        pytest.param(ranges((0, 1, 1 << 31)), BlkStatus.UNSUPP, id="the highest reserved flag"),
        pytest.param(ranges((0, 1, 0), (0, 1, 6)), BlkStatus.UNSUPP, id="reserved flags in the second range"),
        pytest.param(ranges((0, 0xFFFFFFFF, 2)), BlkStatus.UNSUPP, id="flags are looked at first"),
    ],
)
async def test_ranges_that_cannot_be_are_refused_whole(kind: BlkType, out: bytes, status: BlkStatus) -> None:
    ring = disk(content=DATA)
    answer = await ring.ask(kind, out=out)
    assert (answer.status, answer.used_length) == (status, 1)
    assert content(ring, 0, 4) == DATA


@pytest.mark.parametrize("kind", BOTH)
async def test_one_bad_range_keeps_the_good_ones_from_being_done(kind: BlkType) -> None:
    ring = disk(content=DATA)
    assert (await ring.ask(kind, out=ranges((0, 4, 0)) + BEYOND)).status == BlkStatus.IOERR
    assert content(ring, 0, 4) == DATA


async def test_discard_knows_no_unmap() -> None:
    assert (await disk().ask(BlkType.DISCARD, out=ranges((0, 1, 1)))).status == BlkStatus.UNSUPP


@pytest.mark.parametrize("kind", BOTH)
async def test_as_many_ranges_and_sectors_as_the_configuration_says_are_done(kind: BlkType) -> None:
    ring = BlkRing(BlkDevice(MemoryStorage(MAX_RANGE_SECTORS * SECTOR)))
    assert (await ring.ask(kind, out=ranges((0, MAX_RANGE_SECTORS, 0)))).status == BlkStatus.OK
    assert (await ring.ask(kind, out=ranges(*[(0, 1, 0)] * MAX_RANGES))).status == BlkStatus.OK


# --- errors of the storage -----------------------------------------------------------------------------------------


async def test_a_file_that_became_shorter_is_an_io_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "image"
    path.write_bytes(DATA)
    with storage_of(path) as storage:
        ring = BlkRing(BlkDevice(storage))
        os.truncate(path, SECTOR)
        answer = await ring.ask(BlkType.IN, 0, wanted=len(DATA))
        assert (answer.status, answer.used_length) == (BlkStatus.IOERR, 0)
        assert "IN at sector 0 failed: [Errno 5] image has nothing at byte 512, 1536 bytes were wanted" in caplog.text
        assert (await ring.ask(BlkType.IN, 0, wanted=SECTOR)).data == DATA[:SECTOR]


# --- durability (5.2.6.2) ------------------------------------------------------------------------------------------


class Diary(FileStorage):
    """A real image file that writes down what is done to it, and what the driver could see at that moment."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.entries: list[str] = []
        self.status: Callable[[], int] = lambda: NO_STATUS

    def write(self, offset: int, views: Sequence[Buffer], *, nowait: bool) -> None:
        super().write(offset, views, nowait=nowait)
        self._note("write")

    def flush(self) -> None:
        super().flush()
        self._note("flush")

    def discard(self, offset: int, length: int) -> None:
        super().discard(offset, length)
        self._note("discard")

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        FileStorage.discard(self, offset, length)
        self._note("zeroes")

    def _note(self, what: str) -> None:
        self.entries.append(what if self.status() == NO_STATUS else f"{what} after the status")


@contextlib.contextmanager
def storage_of(path: Path) -> Iterator[FileStorage]:
    storage = FileStorage(path)
    yield storage
    storage.close()


@pytest.mark.parametrize(
    ("kind", "out", "expected"),
    [
        (BlkType.OUT, DATA, ["write", "flush"]),
        (BlkType.DISCARD, ranges((0, 1, 0), (1, 1, 0)), ["discard", "discard", "flush"]),
        (BlkType.WRITE_ZEROES, ranges((0, 1, 1)), ["zeroes", "flush"]),
        (BlkType.IN, b"", []),
    ],
)
@pytest.mark.parametrize("flush_negotiated", [True, False])
async def test_without_flush_each_write_is_durable_before_its_status(
    tmp_path: Path, kind: BlkType, out: bytes, expected: list[str], flush_negotiated: bool
) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(len(DATA)))
    diary = Diary(path)
    ring = BlkRing(BlkDevice(diary))
    ring.device.negotiated(int(BlkFeature.FLUSH) if flush_negotiated else 0)
    placed = ring.place(kind, out=out)
    diary.status = lambda: ring.bytes(placed.status)[0]
    await ring.run()
    diary.close()
    assert ring.bytes(placed.status) == b"\0"
    assert diary.entries == [entry for entry in expected if not (flush_negotiated and entry == "flush")]


async def test_a_flush_reaches_the_file_before_its_status(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(SECTOR))
    diary = Diary(path)
    ring = BlkRing(BlkDevice(diary))
    ring.device.negotiated(int(BlkFeature.FLUSH))
    placed = ring.place(BlkType.FLUSH)
    diary.status = lambda: ring.bytes(placed.status)[0]
    await ring.run()
    diary.close()
    assert diary.entries == ["flush"]


# --- batches -------------------------------------------------------------------------------------------------------


async def test_requests_that_need_not_wait_overtake_those_that_must(tmp_path: Path) -> None:
    """2.7.8: the driver may see its buffers again in any order."""
    ring = disk(content=DATA)
    flush, read = ring.place(BlkType.FLUSH), ring.place(BlkType.IN, wanted=SECTOR)
    source = await ring.run()
    assert source.given_back == [read.head, flush.head]
    assert ring.bytes(flush.status) == ring.bytes(read.status) == b"\0"


async def test_many_requests_are_served_in_batches_of_any_size() -> None:
    for batch in (1, 3, 128):
        ring = disk(content=DATA)
        placed = [ring.place(BlkType.IN, sector, wanted=SECTOR) for sector in range(4)]
        await ring.run(batch=batch)
        assert b"".join(ring.bytes(each.data) for each in placed) == DATA
