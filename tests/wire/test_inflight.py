"""Inflight areas: headers, entries, how far regions are apart."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from vhostuser.wire import inflight
from vhostuser.wire.inflight import DescStatePacked, DescStateSplit, QueueRegionPacked, QueueRegionSplit

if TYPE_CHECKING:
    from vhostuser.wire.schema import Structure

pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="machine order: the bytes below are little-endian")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            QueueRegionSplit(version=1, desc_num=128, last_batch_head=5, used_idx=0xFFFF),
            "0000000000000000 0100 8000 0500 ffff",
        ),
        (DescStateSplit(inflight=1, next=3, counter=9), "01 0000000000 0300 0900000000000000"),
        (
            QueueRegionPacked(0, 1, 128, 2, 3, 4, 5, 1, 0),
            "0000000000000000 0100 8000 0200 0300 0400 0500 01 00 00000000000000000000",
        ),
        (
            DescStatePacked(inflight=1, next=2, last=3, num=4, counter=5, id=6, flags=7, len=8, addr=9),
            "01 00 0200 0300 0400 0500000000000000 0600 0700 08000000 0900000000000000",
        ),
    ],
)
def test_a_record_is_exactly_the_bytes_that_the_document_gives_it(value: Structure, text: str) -> None:
    assert value.build().hex() == bytes.fromhex(text).hex()
    assert type(value).parse(bytes.fromhex(text)) == value


@pytest.mark.parametrize("header", [QueueRegionSplit, QueueRegionPacked])
def test_memory_that_nobody_wrote_to_is_a_region_not_yet_initialised(header: type[Structure]) -> None:
    assert header.parse(bytes(header.wire_size())) == header()
    assert inflight.VERSION != 0


@pytest.mark.parametrize(
    ("queue_size", "split", "packed"),
    [(1, 64, 64), (3, 64, 128), (128, 2112, 4160), (256, 4160, 8256)],
)
def test_regions_are_rounded_up_to_64_bytes(queue_size: int, split: int, packed: int) -> None:
    assert inflight.split_region_size(queue_size) == split
    assert inflight.packed_region_size(queue_size) == packed
