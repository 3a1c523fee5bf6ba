"""16-bit words in shared memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhostuser.memory.words import NATIVE_IS_LITTLE, le16, swap16, to_le16, unchanged, words


def test_words_are_the_memory_itself() -> None:
    memory = memoryview(bytearray(6))
    view = words(memory)
    view[1] = to_le16(0x1234)
    assert bytes(memory) == b"\0\0\x34\x12\0\0"
    assert le16(view[1]) == 0x1234
    assert view.nbytes == 6


def test_no_bytes_are_no_words() -> None:
    assert len(words(memoryview(bytearray()))) == 0


def test_an_odd_number_of_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="found 5 bytes, expected an even number"):
        words(memoryview(bytearray(5)))


def test_words_at_an_odd_address_are_refused() -> None:
    with pytest.raises(ValueError, match="found 16-bit words at an odd address"):
        words(memoryview(bytearray(5))[1:])


@given(st.integers(0, 0xFFFF))
def test_the_exchange_is_its_own_reverse(value: int) -> None:
    assert swap16(value) == int.from_bytes(value.to_bytes(2, "little"), "big")
    assert swap16(swap16(value)) == value
    assert unchanged(value) == value
    assert le16(value) == (value if NATIVE_IS_LITTLE else swap16(value))
