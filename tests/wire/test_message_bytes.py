"""Every message and every reply against bytes written by hand, out of the document and not out of our code.

The bytes are those of a little-endian machine; spaces stand between fields.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from vhostuser.wire import backend_messages as b
from vhostuser.wire import frontend_messages as f
from vhostuser.wire import records as r
from vhostuser.wire.catalog import CATALOG, Message
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.wire.schema import Structure

pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="machine order: the bytes below are little-endian")

UUID = bytes.fromhex("00112233445566778899aabbccddeeff")
LOW = r.MemoryRegion(guest_addr=0, size=0xA0000, user_addr=0x7F0000000000, mmap_offset=0)
HIGH = r.MemoryRegion(guest_addr=0x100000000, size=0x40000000, user_addr=0x7F0080000000, mmap_offset=0xC0000000)
XEN = r.XenMemoryRegion(0x1000, 0x2000, 0x3000, 0x4000, r.XenMmapFlags.FOREIGN | r.XenMmapFlags.NO_ADVANCE_MAP, 7)
LOW_BYTES = "0000000000000000 00000a0000000000 0000000000 7f0000 0000000000000000"
HIGH_BYTES = "0000000001000000 0000004000000000 00000080 007f0000 000000c000000000"
XEN_BYTES = "0010000000000000 0020000000000000 0030000000000000 0040000000000000 01010000 07000000"

FRONTEND: list[tuple[Message, str]] = [
    (f.GetFeatures(), ""),
    (f.SetFeatures(0x1_7000_0000), "0000007001000000"),
    (f.GetProtocolFeatures(), ""),
    (f.SetProtocolFeatures(ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.SHMEM), "0900400000000000"),
    (f.SetOwner(), ""),
    (f.ResetOwner(), ""),
    (f.SetMemTable((LOW, HIGH)), f"02000000 00000000 {LOW_BYTES} {HIGH_BYTES}"),
    (f.SetLogBase(size=0x8000, offset=0x1000), "0080000000000000 0010000000000000"),
    (f.SetLogFd(), ""),
    (f.SetVringNum(1, 256), "01000000 00010000"),
    (
        f.SetVringAddr(2, r.VringAddrFlags.LOG, 0x10000, 0x30000, 0x20000, 0xFEED),
        "02000000 01000000 0000010000000000 0000030000000000 0000020000000000 edfe000000000000",
    ),
    (f.SetVringBase(1, 0xFFFE), "01000000 feff0000"),
    (f.GetVringBase(3), "03000000 00000000"),
    (f.SetVringKick.of(0), "0000000000000000"),
    (f.SetVringCall.of(255), "ff00000000000000"),
    (f.SetVringErr.of(1, no_fd=True), "0101000000000000"),
    (f.GetQueueNum(), ""),
    (f.SetVringEnable(4, 1), "04000000 01000000"),
    (f.SendRarp(bytes.fromhex("525400123456")), "525400123456 0000"),
    (f.NetSetMtu(1500), "dc05000000000000"),
    (f.SetBackendReqFd(), ""),
    (
        f.IotlbMsg(
            0x1000, 0x2000, 0x7F0000000000, r.IotlbPermission.READ | r.IotlbPermission.WRITE, r.IotlbType.UPDATE
        ),
        "0010000000000000 0020000000000000 00000000007f0000 03 02 000000000000",
    ),
    (f.SetVringEndian(0, 1), "00000000 01000000"),
    (f.GetConfig(0, 3, data=bytes(3)), "00000000 03000000 00000000 000000"),
    (f.SetConfig(32, 1, r.ConfigFlags(0), b"\1"), "20000000 01000000 00000000 01"),
    (f.CreateCryptoSession(b"\x01\x02"), "0102"),
    (f.CloseCryptoSession(0x11), "1100000000000000"),
    (f.PostcopyAdvise(), ""),
    (f.PostcopyListen(), ""),
    (f.PostcopyEnd(), ""),
    (f.GetInflightFd(0, 0, 2, 128), "0000000000000000 0000000000000000 0200 8000 00000000"),
    (f.SetInflightFd(0x1000, 0x200, 2, 128), "0010000000000000 0002000000000000 0200 8000 00000000"),
    (f.GpuSetSocket(), ""),
    (f.ResetDevice(), ""),
    (f.VringKick(5), "05000000 00000000"),
    (f.GetMaxMemSlots(), ""),
    (f.AddMemReg(HIGH), f"0000000000000000 {HIGH_BYTES}"),
    (f.RemMemReg(LOW), f"0000000000000000 {LOW_BYTES}"),
    (f.SetStatus(0x0F), "0f00000000000000"),
    (f.GetStatus(), ""),
    (f.GetSharedObject(UUID), "00112233445566778899aabbccddeeff"),
    (f.SetDeviceStateFd(r.TransferDirection.LOAD, r.TransferPhase.STOPPED), "01000000 00000000"),
    (f.CheckDeviceState(), ""),
    (f.GetShmemConfig(), ""),
]

BACKEND: list[tuple[Message, str]] = [
    (
        b.BackendIotlbMsg(0x1000, 0, 0, r.IotlbPermission.WRITE, r.IotlbType.MISS),
        "0010000000000000 0000000000000000 0000000000000000 02 01 000000000000",
    ),
    (b.BackendConfigChangeMsg(), ""),
    (b.BackendVringHostNotifierMsg(0x103, 0x1000, 0x2000), "0301000000000000 0010000000000000 0020000000000000"),
    (b.BackendVringCall(1), "01000000 00000000"),
    (b.BackendVringErr(2), "02000000 00000000"),
    (b.BackendSharedObjectAdd(UUID), "00112233445566778899aabbccddeeff"),
    (b.BackendSharedObjectRemove(UUID), "00112233445566778899aabbccddeeff"),
    (b.BackendSharedObjectLookup(UUID), "00112233445566778899aabbccddeeff"),
    (
        b.BackendShmemMap(2, 0x1000, 0x2000, 0x3000, r.ShmemFlags.WRITE),
        "02 00000000000000 0010000000000000 0020000000000000 0030000000000000 0100000000000000",
    ),
    (
        b.BackendShmemUnmap(2, 0, 0x2000, 0x3000, r.ShmemFlags(0)),
        "02 00000000000000 0000000000000000 0020000000000000 0030000000000000 0000000000000000",
    ),
]

VARIANTS: list[tuple[Message, str]] = [
    (f.XenSetMemTable((XEN,)), f"01000000 00000000 {XEN_BYTES}"),
    (f.XenAddMemReg(XEN), f"0000000000000000 {XEN_BYTES}"),
    (f.XenRemMemReg(XEN), f"0000000000000000 {XEN_BYTES}"),
]

REPLIES: list[tuple[Structure, str]] = [
    (Header(5, HeaderFlags.VERSION_1 | HeaderFlags.NEED_REPLY, 40), "05000000 09000000 28000000"),
    (Header(11, HeaderFlags.VERSION_1 | HeaderFlags.REPLY, 8), "0b000000 05000000 08000000"),
    (r.U64(0x1_4000_0000), "0000004001000000"),
    (r.Empty(), ""),
    (r.VringState(0, 0x80008000), "00000000 00800080"),
    (r.MemoryTable((LOW,)), f"01000000 00000000 {LOW_BYTES}"),
    (r.SingleRegion(LOW), f"0000000000000000 {LOW_BYTES}"),
    (r.Log(0x8000, 0), "0080000000000000 0000000000000000"),
    (r.Config(0, 4, r.ConfigFlags.LIVE_MIGRATION, b"abcd"), "00000000 04000000 01000000 61626364"),
    (r.Inflight(0x1000, 0, 1, 64), "0010000000000000 0000000000000000 0100 4000 00000000"),
    (r.VringArea(1, 0x1000, 0), "0100000000000000 0010000000000000 0000000000000000"),
    (
        r.ShmemConfig(2, (0x1000, *[0] * 254, 0x2000)),
        f"02000000 00000000 0010000000000000 {'00' * 254 * 8} 0020000000000000",
    ),
    (r.CryptoSession(0x101, bytes(1056), -1), f"0101000000000000 {'00' * 1056} ffffffffffffffff"),
]


@pytest.mark.parametrize(
    ("value", "text"),
    [pytest.param(*row, id=type(row[0]).__name__) for row in (*FRONTEND, *BACKEND, *VARIANTS, *REPLIES)],
)
def test_a_record_is_exactly_the_bytes_that_the_document_gives_it(value: Structure, text: str) -> None:
    data = bytes.fromhex(text)
    assert value.build().hex() == data.hex()
    assert type(value).parse(data) == value


def test_the_tables_have_every_message_in_the_order_of_the_catalogue() -> None:
    assert [type(value) for value, _ in FRONTEND + BACKEND] == [spec.message for spec in CATALOG.values()]


# --- what real peers send beyond the document --------------------------------------------------------------------


def test_a_memory_table_of_all_eight_places_survives_byte_for_byte() -> None:
    data = bytes.fromhex(f"02000000 00000000 {LOW_BYTES} {HIGH_BYTES}") + bytes(range(192))
    assert len(data) == 264
    table = f.SetMemTable.parse(data)
    assert table.regions == (LOW, HIGH)
    assert len(table.trailing) == 6 * 32
    assert table.build() == data


def test_a_memory_table_with_one_region_and_room_for_two_survives() -> None:
    data = bytes.fromhex(f"01000000 00000000 {LOW_BYTES}") + bytes(32)
    assert f.SetMemTable.parse(data).regions == (LOW,)
    assert f.SetMemTable.parse(data).build() == data


def test_a_memory_table_that_lacks_a_region_it_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="SetMemTable: 40 bytes are too few"):
        f.SetMemTable.parse(bytes.fromhex(f"02000000 00000000 {LOW_BYTES}"))


@pytest.mark.parametrize("cls", [f.IotlbMsg, b.BackendIotlbMsg, r.Iotlb])
@pytest.mark.parametrize("padding", ["", "000000000000", "deadbeef0001"])
def test_an_iotlb_message_survives_with_and_without_its_padding(cls: type[Structure], padding: str) -> None:
    data = bytes.fromhex(f"0010000000000000 0020000000000000 00000000007f0000 01 03 {padding}")
    assert len(data) in (26, 32)
    assert cls.parse(data).build() == data


@pytest.mark.parametrize("size", [0, 8, 16])
def test_a_reply_to_set_log_base_survives_whatever_its_size(size: int) -> None:
    reply = f.SetLogBase.spec.reply
    assert reply is not None
    data = bytes(range(size))
    assert reply.parse(data).build() == data


@pytest.mark.parametrize("data", [b"", UUID])
def test_a_reply_to_get_shared_object_may_be_empty_or_echo_the_uuid(data: bytes) -> None:
    reply = f.GetSharedObject.spec.reply
    assert reply is not None
    assert reply.parse(data).build() == data


def test_config_messages_keep_the_bytes_they_carry_even_if_their_size_field_is_wrong() -> None:
    data = bytes.fromhex("00000000 04000000 00000000 0102")
    assert f.SetConfig.parse(data).data == b"\1\2"
    assert f.SetConfig.parse(data).build() == data


# --- small numbers inside numbers --------------------------------------------------------------------------------


def test_a_ring_descriptor_message_holds_index_and_no_fd() -> None:
    assert (f.SetVringKick(0x1FF).index, f.SetVringKick(0x1FF).no_fd) == (255, True)
    assert (f.SetVringKick(0x7).index, f.SetVringKick(0x7).no_fd) == (7, False)
    assert (b.BackendVringHostNotifierMsg(0x102, 0, 0).index, b.BackendVringHostNotifierMsg(0x102, 0, 0).no_fd) == (
        2,
        True,
    )


@pytest.mark.parametrize("index", [-1, 256])
def test_a_ring_index_that_eight_bits_cannot_hold_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"ring index {index} does not fit the 8 bits of SetVringCall"):
        f.SetVringCall.of(index)


def test_a_header_tells_version_reply_and_need_reply() -> None:
    header = Header.parse(bytes.fromhex("0b000000 0d000000 08000000"))
    assert (header.version, header.is_reply, header.needs_reply) == (1, True, True)
    assert (Header(1, HeaderFlags(0x2), 0).version, Header(1, HeaderFlags(0x2), 0).is_reply) == (2, False)


def test_header_flags_that_nobody_assigned_are_kept() -> None:
    data = bytes.fromhex("01000000 010000f0 00000000")
    assert Header.parse(data).flags == 0xF0000001
    assert Header.parse(data).build() == data
