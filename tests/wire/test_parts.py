"""What a record is made of, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vhostuser.wire import frontend_messages as f
from vhostuser.wire import records as r
from vhostuser.wire.parts import Part, fixed_size, parts
from vhostuser.wire.split import DescFlags, VirtqDesc

if TYPE_CHECKING:
    from vhostuser.wire.schema import Structure


def test_a_list_has_its_number_and_padding_before_it() -> None:
    assert list(parts(f.SetMemTable)) == [
        Part("number of regions", "u32", 4, 0),
        Part(None, "u8[4]", 4, 4),
        Part("regions", "MemoryRegion[n]", None, 8, record=r.MemoryRegion),
        Part("trailing", "u8[…]", None, None),
    ]


def test_a_record_in_a_record_is_one_part() -> None:
    assert list(parts(r.SingleRegion)) == [
        Part(None, "u8[8]", 8, 0),
        Part("region", "MemoryRegion", 32, 8, record=r.MemoryRegion),
    ]


def test_flags_and_codes_bring_their_names() -> None:
    _, _, flags, _ = parts(VirtqDesc)
    assert flags == Part("flags", "le16", 2, 12, values=DescFlags)
    assert [part.values for part in parts(f.SetDeviceStateFd)] == [r.TransferDirection, r.TransferPhase]


def test_types_are_written_as_the_specifications_write_them() -> None:
    assert [part.kind for part in parts(VirtqDesc)] == ["le64", "le32", "le16", "le16"]
    assert [part.kind for part in parts(r.ShmemConfig)] == ["u32", "u8[4]", "u64[256]"]
    assert [part.kind for part in parts(r.CryptoSession)] == ["u64", "u8[1056]", "s64"]
    assert [part.kind for part in parts(f.SendRarp)] == ["u8[6]", "u8[2]"]


@pytest.mark.parametrize(("cls", "size"), [(r.Empty, 0), (r.Opaque, 0), (r.Iotlb, 26), (r.Config, 12), (r.U64, 8)])
def test_the_fixed_size_is_what_every_instance_has_at_least(cls: type[Structure], size: int) -> None:
    assert fixed_size(cls) == size
