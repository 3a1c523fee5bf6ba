"""Chains as two streams of bytes, whatever the pieces they came in."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.virtqueue.streams import chain_of, reader_of, writer_of
from vhostuser.virtqueue.chain import Reader, ShortChain
from vhostuser.wire.schema import codec
from vhostuser.wire.virtio.blk import BlkHeader, BlkType


def pieces(*sizes: int) -> list[memoryview]:
    return [memoryview(bytearray(size)) for size in sizes]


def reader(*contents: bytes) -> Reader:
    return reader_of([memoryview(bytearray(content)) for content in contents])


def test_reading_joins_pieces() -> None:
    stream = reader(b"ab", b"cdef", b"g")
    assert stream.remaining == 7
    assert stream.read(1) == b"a"
    assert stream.read(3) == b"bcd"
    assert stream.read() == b"efg"
    assert stream.remaining == 0
    assert stream.read() == stream.read(0) == b""


def test_a_record_may_lie_in_several_pieces() -> None:
    header = BlkHeader(BlkType.OUT, 0, 77)
    data = header.build() + b"payload"
    stream = reader(data[:3], data[3:12], data[12:])
    assert stream.read_record(BlkHeader) == header
    assert stream.read() == b"payload"


def test_too_short_a_chain_is_an_error_that_consumes_nothing() -> None:
    stream = reader(b"ab", b"c")
    with pytest.raises(ShortChain, match="4 readable bytes needed, the chain has 3 left"):
        stream.read(4)
    with pytest.raises(ShortChain, match="16 readable bytes needed"):
        stream.read_record(BlkHeader)
    with pytest.raises(ShortChain):
        stream.skip(4)
    with pytest.raises(ShortChain):
        stream.views(4)
    assert stream.read() == b"abc"


def test_a_negative_length_is_a_mistake_of_ours() -> None:
    stream = reader(b"ab")
    with pytest.raises(ValueError, match="-1 bytes"):
        stream.read(-1)
    with pytest.raises(ValueError, match="-2 bytes"):
        stream.views(-2)
    with pytest.raises(ValueError, match="-3 bytes"):
        writer_of(pieces(2)).reserve_last(-3)


def test_views_of_what_is_to_be_read_show_the_bytes_in_place_and_read_only() -> None:
    memory = bytearray(b"abcdef")
    stream = reader_of([memoryview(memory)[:2], memoryview(memory)[2:]])
    stream.skip(1)
    first, second = stream.views(3)
    memory[1:4] = b"BCD"
    assert (bytes(first), bytes(second)) == (b"B", b"CD")
    assert first.readonly
    assert second.readonly
    assert [bytes(view) for view in stream.views()] == [b"B", b"CDef"]
    assert stream.views(0) == []
    assert stream.remaining == 5, "views consume nothing"


def test_writing_fills_pieces_and_counts() -> None:
    memory = pieces(2, 3)
    stream = writer_of(memory)
    stream.write(b"abc")
    assert (stream.written, stream.remaining) == (3, 2)
    with pytest.raises(ShortChain, match="3 writable bytes needed, the chain has 2 left"):
        stream.write(b"xyz")
    stream.write(memoryview(b"de"))
    assert (stream.written, stream.remaining) == (5, 0)
    assert b"".join(memory) == b"abcde"


def test_writing_takes_views_of_other_items_for_their_bytes() -> None:
    memory = pieces(3, 1)
    writer_of(memory).write(memoryview(b"\1\2\3\4").cast("H"))
    assert b"".join(memory) == b"\1\2\3\4"


def test_a_record_is_written_as_its_bytes() -> None:
    header = BlkHeader(BlkType.IN, 0, 1)
    memory = pieces(5, 20)
    stream = writer_of(memory)
    stream.write_record(header)
    assert b"".join(memory)[:16] == header.build()
    assert stream.written == 16


def test_preadv_fills_the_views_and_wrote_counts_them(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"0123456789")
    memory = pieces(3, 4, 8)
    stream = writer_of(memory)
    stream.write(b"x")
    with source.open("rb") as file:
        stream.wrote(os.preadv(file.fileno(), stream.views(), 0))
    assert stream.written == 11
    assert b"".join(memory)[:11] == b"x0123456789"
    assert sum(map(len, stream.views())) == stream.remaining == 4


def test_the_status_goes_to_the_last_byte_whatever_piece_it_is_in() -> None:
    memory = pieces(4, 4)
    stream = writer_of(memory)
    status = stream.reserve_last(1)
    assert (stream.remaining, status.remaining) == (7, 1)
    status.write(b"S")
    stream.write(b"1234567")
    assert b"".join(memory) == b"1234567S"
    with pytest.raises(ShortChain):
        stream.write(b"8")


def test_a_reserved_tail_may_span_pieces_and_be_all_there_is() -> None:
    memory = pieces(1, 1, 1)
    stream = writer_of(memory)
    stream.reserve_last(3).write(b"abc")
    assert b"".join(memory) == b"abc"
    assert stream.written == 3


def test_reserving_twice_goes_backwards() -> None:
    memory = pieces(5)
    stream = writer_of(memory)
    last, before = stream.reserve_last(1), stream.reserve_last(2)
    last.write(b"3")
    before.write(b"12")
    stream.write(b"ab")
    assert b"".join(memory) == b"ab123"
    assert stream.written == 5


def test_reserving_more_than_there_is_is_an_error() -> None:
    with pytest.raises(ShortChain, match="1 writable bytes needed, the chain has 0 left"):
        writer_of([]).reserve_last(1)


class TestUsedLength:
    """virtio 1.3, 2.7.8.2: the device has written at least that many bytes, from the first writable one on."""

    def test_of_a_read_that_succeeds_is_the_data_and_the_status(self) -> None:
        chain = chain_of(0, pieces(16), pieces(512, 1))
        status = chain.writable.reserve_last(1)
        chain.writable.write(bytes(512))
        status.write(b"\0")
        assert chain.writable.written == 513

    def test_of_a_write_or_flush_is_the_status_alone(self) -> None:
        chain = chain_of(0, pieces(16, 512), pieces(1))
        chain.writable.reserve_last(1).write(b"\0")
        assert chain.writable.written == 1

    def test_of_a_read_that_fails_promises_no_byte_that_was_not_written(self) -> None:
        chain = chain_of(0, pieces(16), pieces(512, 1))
        status = chain.writable.reserve_last(1)
        chain.writable.write(bytes(100))
        status.write(b"\1")
        assert chain.writable.written == 100

    def test_is_nothing_when_nothing_was_written(self) -> None:
        chain = chain_of(0, pieces(16), pieces(512, 1))
        assert chain.writable.written == 0
        chain.writable.reserve_last(1)
        assert chain.writable.written == 0


@given(
    sizes=st.lists(st.integers(0, 20), max_size=8),
    tail=st.integers(0, 30),
    steps=st.lists(st.integers(0, 12), max_size=30),
)
def test_any_cut_of_the_memory_gives_the_same_stream(sizes: list[int], tail: int, steps: list[int]) -> None:
    memory = pieces(*sizes)
    stream, total = writer_of(memory), sum(sizes)
    tail = min(tail, total)
    last = stream.reserve_last(tail)
    written = bytearray()
    for step in steps:
        data = bytes(range(len(written), len(written) + step))
        if step <= stream.remaining:
            stream.write(data)
            written += data
    complete = stream.remaining == 0
    last.write(b"T" * tail)
    assert stream.written == len(written) + (tail if complete else 0)
    everything = b"".join(memory)
    assert everything.startswith(bytes(written))
    assert everything.endswith(b"T" * tail)
    assert reader_of(memory).read() == everything


HEADER = codec(BlkHeader)


class TestFrame:
    """A chain that is cut in the usual way: header, data, trailer."""

    @staticmethod
    def request(*sizes: int) -> list[memoryview]:
        header = memoryview(bytearray(BlkHeader(BlkType.OUT, 0, 77).build()))
        return [header, *pieces(*sizes)]

    def test_has_the_header_s_fields_and_the_lengths_of_both_directions(self) -> None:
        assert chain_of(0, self.request(), pieces(512, 100, 1)).frame(HEADER, 1) == ((1, 0, 77), 0, 612)
        assert chain_of(0, self.request(512, 100), pieces(1)).frame(HEADER, 1) == ((1, 0, 77), 612, 0)

    def test_does_not_mind_data_in_the_piece_of_the_header_or_of_the_trailer(self) -> None:
        header = memoryview(bytearray(BlkHeader(BlkType.OUT, 0, 77).build() + b"ab"))
        room = pieces(2, 3)
        chain = chain_of(0, [header, memoryview(bytearray(b"c"))], room)
        assert chain.frame(HEADER, 1) == ((1, 0, 77), 3, 4)
        assert b"".join(chain.dataout()) == b"abc"
        chain.fill(b"WXYZ")
        chain.answer(b"!")
        assert b"".join(room) == b"WXYZ!"

    def test_shows_its_data_in_place_and_what_is_to_be_read_read_only(self) -> None:
        data, room = pieces(4), pieces(3, 1)
        chain = chain_of(0, [*self.request(), *data], room)
        assert chain.frame(HEADER, 1) is not None
        (out,), (into,) = chain.dataout(), chain.datain()
        data[0][:], into[:] = b"abcd", b"xyz"
        assert (bytes(out), bytes(room[0]), out.readonly) == (b"abcd", b"xyz", True)

    def test_has_written_nothing_until_it_is_answered_and_then_everything(self) -> None:
        room = pieces(2, 3, 1)
        chain = chain_of(0, self.request(), room)
        chain.frame(HEADER, 1)
        chain.fill(b"abcde")
        assert chain.written == 0
        chain.answer(b"!")
        assert (chain.written, b"".join(room)) == (6, b"abcde!")

    @pytest.mark.parametrize(("read", "write"), [((), (1,)), ((8, 8), (1,)), ((16,), ()), ((16,), (512, 1, 1))])
    def test_is_none_where_header_or_trailer_come_in_pieces_or_not_at_all(
        self, read: tuple[int, ...], write: tuple[int, ...]
    ) -> None:
        assert chain_of(0, pieces(*read), pieces(*write)).frame(HEADER, 2) is None

    def test_is_none_once_a_stream_was_asked_for(self) -> None:
        chain = chain_of(0, self.request(), pieces(1))
        assert chain.readable.remaining == 16
        assert chain.frame(HEADER, 1) is None
        chain = chain_of(0, self.request(), pieces(1))
        assert chain.writable.remaining == 1
        assert chain.frame(HEADER, 1) is None

    def test_consumes_nothing(self) -> None:
        chain = chain_of(0, self.request(2), pieces(3, 1))
        chain.frame(HEADER, 1)
        assert (chain.readable.read_record(BlkHeader).sector, chain.readable.remaining) == (77, 2)
        chain.writable.write(b"four")
        assert chain.written == 4

    @pytest.mark.parametrize("length", [0, 2, 4])
    def test_is_filled_completely_or_not_at_all(self, length: int) -> None:
        room = pieces(3, 1)
        chain = chain_of(0, self.request(), room)
        chain.frame(HEADER, 1)
        with pytest.raises(ValueError, match=f"{length} bytes, the frame has room for 3"):
            chain.fill(b"x" * length)
        assert b"".join(room) == bytes(4)

    def test_is_answered_with_the_trailer_that_was_spoken_of(self) -> None:
        chain = chain_of(0, self.request(), pieces(3, 1))
        chain.frame(HEADER, 1)
        for trailer in (b"", b"ab"):
            with pytest.raises(ValueError, match=f"a trailer of {len(trailer)} bytes, the frame has 1"):
                chain.answer(trailer)
        assert chain.written == 0

    def test_need_not_have_a_trailer(self) -> None:
        chain = chain_of(0, self.request(), pieces(3))
        assert chain.frame(HEADER, 0) == ((1, 0, 77), 0, 3)
        chain.fill(b"abc")
        chain.answer(b"")
        assert chain.written == 3


def test_a_chain_says_what_is_left_of_it() -> None:
    chain = chain_of(3, pieces(16), pieces(2, 1))
    chain.writable.write(b"a")
    assert repr(chain) == "<Chain 3: 16 to read, 1 written, 2 to write>"
