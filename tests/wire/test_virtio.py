"""Device records: bytes written by hand from the standard, and every record there and back."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies import records as records_of
from vhostuser.wire import virtio
from vhostuser.wire.schema import FormatError, Structure, codec
from vhostuser.wire.virtio.blk import BlkConfig, BlkHeader, BlkRange, BlkRangeFlags, BlkType
from vhostuser.wire.virtio.console import ConsoleConfig, ConsoleControl, ConsoleEvent, ConsoleResize
from vhostuser.wire.virtio.fs import FsConfig, FuseInHeader, FuseOpcode, FuseOutHeader
from vhostuser.wire.virtio.gpu import GpuConfig, GpuHeader, GpuHeaderFlags, GpuRect, GpuType
from vhostuser.wire.virtio.ids import DeviceStatus, DeviceType
from vhostuser.wire.virtio.input import InputAbsInfo, InputConfig, InputDevIds, InputEvent, InputSelect
from vhostuser.wire.virtio.net import NetConfig, NetCtrlClass, NetCtrlHeader, NetGso, NetHeader, NetHeaderFlags
from vhostuser.wire.virtio.rng import REQUEST_QUEUE
from vhostuser.wire.virtio.scsi import (
    REPORT_LUNS_WLUN,
    ScsiCommandRequest,
    ScsiCommandResponse,
    ScsiConfig,
    ScsiControlType,
    ScsiEvent,
    ScsiEventType,
    ScsiResponse,
    ScsiTaskAttr,
    ScsiTmf,
    ScsiTmfRequest,
)
from vhostuser.wire.virtio.vsock import (
    HOST_CID,
    RESERVED_CIDS,
    VsockConfig,
    VsockEvent,
    VsockEventId,
    VsockHeader,
    VsockOp,
    VsockType,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LUN = bytes([1, 2, 0x40, 3, 0, 0, 0, 0])

TABLE: list[tuple[Structure, str, int]] = [
    (BlkHeader(BlkType.OUT, 0, 0x0102030405060708), "01000000 00000000 0807060504030201", 16),
    (BlkRange(8, 16, BlkRangeFlags.UNMAP), "0800000000000000 10000000 01000000", 16),
    (
        BlkConfig(capacity=0x800, seg_max=126, blk_size=512, num_queues=4, max_discard_sectors=0x8000, model=1),
        "0008000000000000 00000000 7e000000 0000 00 00 00020000 00 00 0000 00000000 00 00 0400 00800000"
        + "00" * (92 - 40)
        + "01 000000",
        96,
    ),
    (
        NetConfig(bytes.fromhex("525400123456"), max_virtqueue_pairs=2, mtu=1500),
        "525400123456 0100 0200 dc05 ffffffff ff 00 0000 00000000 00000000",
        28,
    ),
    (
        NetHeader(NetHeaderFlags.NEEDS_CSUM, NetGso.TCPV4, 54, 1460, 34, 16, 1),
        "01 01 3600 b405 2200 1000 0100",
        12,
    ),
    (NetHeader(), "00 00 0000 0000 0000 0000 0000", 12),
    (NetCtrlHeader(NetCtrlClass.MQ, 0), "04 00", 2),
    (ConsoleConfig(80, 25, 1, 0x41), "5000 1900 01000000 41000000", 12),
    (ConsoleControl(1, ConsoleEvent.PORT_OPEN, 1), "01000000 0600 0100", 8),
    (ConsoleResize(80, 25), "5000 1900", 4),
    (
        ScsiConfig(1, 126, 0xFFFF, 128),
        "01000000 7e000000 ffff0000 80000000 10000000 60000000 20000000 0000 ff00 ff3f0000",
        36,
    ),
    (
        ScsiCommandRequest(LUN, 7, ScsiTaskAttr.ORDERED, 0, 0, b"\x12" + bytes(31)),
        "0102400300000000 0700000000000000 01 00 00 12" + "00" * 31,
        51,
    ),
    (
        ScsiCommandResponse(response=ScsiResponse.BAD_TARGET, residual=36),
        "00000000 24000000 0000 00 03" + "00" * 96,
        108,
    ),
    (
        ScsiTmfRequest(ScsiControlType.TMF, ScsiTmf.LOGICAL_UNIT_RESET, LUN, 7),
        "00000000 05000000 0102400300000000 0700000000000000",
        24,
    ),
    (ScsiEvent(ScsiEventType.TRANSPORT_RESET, LUN, 1), "01000000 0102400300000000 01000000", 16),
    (GpuConfig(1, 0, 1, 0), "01000000 00000000 01000000 00000000", 16),
    (
        GpuHeader(GpuType.RESOURCE_FLUSH, GpuHeaderFlags.FENCE, 9, 1, 2),
        "04010000 01000000 0900000000000000 01000000 02 000000",
        24,
    ),
    (GpuRect(1, 2, 3, 4), "01000000 02000000 03000000 04000000", 16),
    (InputConfig(InputSelect.EV_BITS, 1, 2, b"\xff" * 128), "11 01 02 0000000000" + "ff" * 128, 136),
    (InputAbsInfo(1, 2, 3, 4, 5), "01000000 02000000 03000000 04000000 05000000", 20),
    (InputDevIds(3, 0x1AF4, 1, 2), "0300 f41a 0100 0200", 8),
    (InputEvent(1, 30, 1), "0100 1e00 01000000", 8),
    (VsockConfig(3), "0300000000000000", 8),
    (
        VsockHeader(3, HOST_CID, 1024, 80, 5, VsockType.STREAM, VsockOp.RW, 0, 0x40000, 9),
        "0300000000000000 0200000000000000 00040000 50000000 05000000 0100 0500 00000000 00000400 09000000",
        44,
    ),
    (VsockEvent(VsockEventId.TRANSPORT_RESET), "00000000", 4),
    (FsConfig(b"tag".ljust(36, b"\0"), 2), "746167" + "00" * 33 + "02000000 00000000", 44),
    (
        FuseInHeader(48, FuseOpcode.FORGET, 2, 1, 1000, 1001, 1002),
        "30000000 02000000 0200000000000000 0100000000000000 e8030000 e9030000 ea030000 0000 0000",
        40,
    ),
    (FuseOutHeader(16, -2, 2), "10000000 feffffff 0200000000000000", 16),
]


def device_records() -> Iterator[type[Structure]]:
    for module in pkgutil.iter_modules(virtio.__path__):
        for each in vars(importlib.import_module(f"{virtio.__name__}.{module.name}")).values():
            if isinstance(each, type) and issubclass(each, Structure) and each is not Structure:
                yield each


RECORDS = list(device_records())


@pytest.mark.parametrize(
    ("value", "text", "size"), [pytest.param(*row, id=f"{type(row[0]).__name__}") for row in TABLE]
)
def test_a_record_is_exactly_the_bytes_that_the_standard_gives_it(value: Structure, text: str, size: int) -> None:
    data = bytes.fromhex(text)
    assert value.build().hex() == data.hex()
    assert type(value).parse(data) == value
    assert type(value).wire_size() == len(data) == size


def test_the_table_has_every_record() -> None:
    assert {type(value) for value, _, _ in TABLE} == set(RECORDS)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
@settings(max_examples=15)
@given(data=st.data())
def test_what_is_built_is_parsed_again(cls: type[Structure], data: st.DataObject) -> None:
    value = data.draw(records_of(cls))
    assert cls.parse(value.build()) == value


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_a_byte_less_and_a_byte_more_are_refused(cls: type[Structure]) -> None:
    size = cls.wire_size()
    for wrong in (size - 1, size + 1):
        with pytest.raises(FormatError, match=f"{cls.__name__}: {wrong} bytes"):
            cls.parse(bytes(wrong))


def test_a_request_header_has_a_codec_for_the_fast_path() -> None:
    assert codec(BlkHeader).unpack(BlkHeader(BlkType.FLUSH, 0, 5).build()) == (BlkType.FLUSH, 0, 5)
    assert codec(VsockHeader).size == 44


def test_the_writable_part_of_a_block_devices_configuration_is_byte_32() -> None:
    assert BlkConfig.wire_offset("writeback") == 32
    assert BlkConfig.wire_offset("max_write_zeroes_seg") == 52
    assert BlkConfig.wire_offset("write_zeroes_may_unmap") == 56


def test_no_guest_has_a_reserved_cid() -> None:
    assert {0, 1, HOST_CID, 2**32 - 1, 2**64 - 1} == RESERVED_CIDS


def test_small_facts_of_the_standard() -> None:
    assert REQUEST_QUEUE == 0
    assert REPORT_LUNS_WLUN[:2] == b"\xc1\x01"
    assert (DeviceType.NET, DeviceType.BLOCK, DeviceType.RNG, DeviceType.VSOCK, DeviceType.FS) == (1, 2, 4, 19, 26)


def test_a_device_status_is_a_set_of_bits() -> None:
    status = DeviceStatus(0x0F)
    assert DeviceStatus.FEATURES_OK in status
    assert DeviceStatus.FAILED not in status
    assert DeviceStatus(0x2F).value == 0x2F
