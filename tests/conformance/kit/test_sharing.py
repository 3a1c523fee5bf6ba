"""What a back-end does to shared memory regions is replayed, and each wrong step is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from frontend.conformance.session import Answer
from frontend.conformance.sharing import Regions, maps_of, messages_of
from vhostuser.conformance import Failure
from vhostuser.fd import NO_FDS
from vhostuser.wire.backend_messages import BackendSharedObjectAdd, BackendShmemMap, BackendShmemUnmap
from vhostuser.wire.records import ShmemFlags

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message

NONE = ShmemFlags(0)
SIZES = (0x1000, 0, 0x4000)


def mapping(shmid: int, offset: int, length: int) -> BackendShmemMap:
    return BackendShmemMap(shmid, 0, offset, length, NONE)


def said(message: Message) -> Answer:
    return Answer(message.spec.request, 1, message.build(), NO_FDS)


def test_only_what_is_asked_for_is_found_among_what_was_said() -> None:
    there = [mapping(0, 0, 1), BackendSharedObjectAdd(bytes(16)), BackendShmemUnmap(0, 0, 0, 1, NONE)]
    heard = [*map(said, there), Answer(99, 1, b"", NO_FDS)]
    assert [message for _, message in maps_of(heard)] == [there[0], there[2]]
    assert [message for _, message in messages_of(heard, BackendSharedObjectAdd)] == [there[1]]


def test_a_malformed_one_fails() -> None:
    with pytest.raises(Failure, match="BACKEND_SHMEM_MAP: "):
        maps_of([Answer(BackendShmemMap.spec.request, 1, bytes(39), NO_FDS)])


@pytest.mark.parametrize(
    ("shmid", "offset", "length"), [(0, 0, 0x1001), (0, 0x1000, 1), (0, 0, 0), (1, 0, 1), (2, 1 << 63, 1 << 63)]
)
def test_a_range_that_is_not_within_its_region_fails(shmid: int, offset: int, length: int) -> None:
    with pytest.raises(Failure, match=f"of region {shmid}, expected a range within its {SIZES[shmid]:#x} bytes"):
        Regions(SIZES).check_range(mapping(shmid, offset, length))


def test_a_range_to_the_last_byte_is_good() -> None:
    Regions(SIZES).check_range(mapping(2, 0x3000, 0x1000))


@pytest.mark.parametrize(("offset", "length"), [(0, 0x1001), (0x1000, 0x1000), (0x1FFF, 1), (0, 0x4000), (0x1800, 8)])
def test_an_overlap_fails(offset: int, length: int) -> None:
    regions = Regions(SIZES)
    regions.map(mapping(2, 0x1000, 0x1000))
    with pytest.raises(Failure, match=r"over 0x1000\+0x1000 of region 2, expected no overlap"):
        regions.map(mapping(2, offset, length))


def test_neighbours_and_other_regions_do_not_overlap() -> None:
    regions = Regions(SIZES)
    for told in (mapping(2, 0x1000, 0x1000), mapping(2, 0, 0x1000), mapping(2, 0x2000, 1), mapping(0, 0x1000, 0x1000)):
        regions.map(told)


@pytest.mark.parametrize(("shmid", "offset", "length"), [(2, 0x1000, 0xFFF), (2, 0, 0x1000), (0, 0x1000, 0x1000)])
def test_only_a_whole_mapping_is_unmapped(shmid: int, offset: int, length: int) -> None:
    regions = Regions(SIZES)
    regions.map(mapping(2, 0x1000, 0x1000))
    with pytest.raises(Failure, match=r"expected one whole mapping of 0x1000\+0x1000 of region 2"):
        regions.unmap(mapping(shmid, offset, length))
    regions.unmap(mapping(2, 0x1000, 0x1000))
    with pytest.raises(Failure, match="expected one whole mapping of nothing"):
        regions.unmap(mapping(2, 0x1000, 0x1000))
