"""Sizes as QEMU's users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhostuser.memory import SizeError, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("4096B", 4096),
        ("64M", 64 << 20),
        ("64m", 64 << 20),
        (" 1G ", 1 << 30),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        ("2T", 2 << 40),
        ("1P", 1 << 50),
        ("15E", 15 << 60),
    ],
)
def test_a_size_is_read_with_binary_suffixes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "64MB", "64 M", "-1", "0x1000", "1e3", "64Mi", ".5G", "1.G", "٣M"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SizeError) as caught:
        parse_size(text)
    expected = "expected a number and a suffix out of B K M G T P E, like 64M"
    assert str(caught.value) == f"found size {text!r}, {expected}"


def test_part_of_a_byte_is_refused() -> None:
    with pytest.raises(SizeError, match=r"size '0.3K' is not a whole number of bytes"):
        parse_size("0.3K")


def test_more_than_64_bits_are_refused() -> None:
    assert parse_size(str((1 << 64) - 1)) == (1 << 64) - 1
    with pytest.raises(SizeError, match="size '16E' needs more than 64 bits"):
        parse_size("16E")


@pytest.mark.parametrize(("size", "text"), [(0, "0"), (1, "1"), (1023, "1023"), (1024, "1K"), (3 << 29, "1536M")])
def test_a_size_is_written_with_the_largest_suffix_that_fits(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, (1 << 64) - 1))
def test_what_is_written_is_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size
