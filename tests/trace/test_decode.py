"""Frames in words."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING

import pytest

from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.trace.decode import Decoder, Kind, in_words
from vhostuser.trace.log import log_messages
from vhostuser.transport.channel import Direction
from vhostuser.wire.backend_messages import BackendConfigChangeMsg
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    GetConfig,
    GetFeatures,
    GetProtocolFeatures,
    GetQueueNum,
    GetStatus,
    GetVringBase,
    IotlbMsg,
    SendRarp,
    SetConfig,
    SetDeviceStateFd,
    SetFeatures,
    SetLogBase,
    SetMemTable,
    SetOwner,
    SetProtocolFeatures,
    SetStatus,
    SetVringAddr,
    SetVringBase,
    SetVringEnable,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.messages import CATALOG
from vhostuser.wire.records import (
    U64,
    Config,
    ConfigFlags,
    IotlbPermission,
    IotlbType,
    MemoryRegion,
    MemoryTable,
    TransferDirection,
    TransferPhase,
    VringAddrFlags,
    VringState,
)
from vhostuser.wire.requests import FrontendRequest, Header, HeaderFlags, Role
from vhostuser.wire.virtio.blk import BlkFeature

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

REGION = MemoryRegion(0x100000, 64 << 20, 0x7F0000000000, 0x1000)
REGION_IN_WORDS = "guest 0x100000 +64M user 0x7f0000000000 offset 0x1000"


def request(message: Message, *, need_reply: bool = False, fds: Fds = NO_FDS) -> Frame:
    flags = HeaderFlags.VERSION_1 | (HeaderFlags.NEED_REPLY if need_reply else HeaderFlags(0))
    payload = message.build()
    return Frame(Header(message.spec.request, flags, len(payload)), payload, fds)


def answer(to: type[Message], reply: Structure) -> Frame:
    payload = reply.build()
    return Frame(Header(to.spec.request, HeaderFlags.VERSION_1 | HeaderFlags.REPLY, len(payload)), payload)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (SetOwner(), "SET_OWNER"),
        (SetFeatures(VirtioFeature.VERSION_1 | 1 << 9), "SET_FEATURES  0x100000200 FLUSH VERSION_1"),
        (SetFeatures(1 << 55), "SET_FEATURES  0x80000000000000 bit 55"),
        (SetProtocolFeatures(ProtocolFeature.MQ), "SET_PROTOCOL_FEATURES  0x1 MQ"),
        (SetMemTable((REGION,)), f"SET_MEM_TABLE  1 region: {REGION_IN_WORDS}"),
        (SetMemTable((REGION, REGION)), f"SET_MEM_TABLE  2 regions: {REGION_IN_WORDS}; {REGION_IN_WORDS}"),
        (SetMemTable(()), "SET_MEM_TABLE  0 regions: "),
        (AddMemReg(MemoryRegion(1, 0, 2, 3)), "ADD_MEM_REG  guest 0x1 +0 user 0x2 offset 0x3"),
        (SetVringNum(1, 128), "SET_VRING_NUM  ring 1 size 128"),
        (SetVringBase(1, 3), "SET_VRING_BASE  ring 1 base 3"),
        (GetVringBase(1), "GET_VRING_BASE  ring 1"),
        (SetVringEnable(0, 1), "SET_VRING_ENABLE  ring 0 on"),
        (SetVringEnable(0, 7), "SET_VRING_ENABLE  ring 0 7"),
        (SetVringKick(2), "SET_VRING_KICK  ring 2"),
        (SetVringKick(0x102), "SET_VRING_KICK  ring 2, no descriptor: poll"),
        (
            SetVringAddr(0, VringAddrFlags(0), 0x1000, 0x3000, 0x2000, 0),
            "SET_VRING_ADDR  ring 0 desc 0x1000 avail 0x2000 used 0x3000",
        ),
        (SetVringAddr(0, VringAddrFlags.LOG, 1, 3, 2, 4), "SET_VRING_ADDR  ring 0 desc 0x1 avail 0x2 used 0x3 log 0x4"),
        (GetConfig(0, 57, data=bytes(57)), "GET_CONFIG  bytes 0 to 57"),
        (SetConfig(4, 2, ConfigFlags(0), b"\1\2"), "SET_CONFIG  bytes 4 to 6: 01 02"),
        (SetStatus(0xF), "SET_STATUS  0xf ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK"),
        (SendRarp(b"\x52\x54\0\0\0\1"), "SEND_RARP  mac 52 54 00 00 00 01"),
        (SetLogBase(0x1000, 0x20000), "SET_LOG_BASE  size 4096 offset 0x20000"),
        (
            SetDeviceStateFd(TransferDirection.LOAD, TransferPhase.STOPPED),
            "SET_DEVICE_STATE_FD  direction LOAD phase STOPPED",
        ),
        (
            IotlbMsg(1, 2, 3, IotlbPermission.READ, IotlbType.UPDATE),
            "IOTLB_MSG  iova 1 size 2 user_addr 3 permission 0x1 READ type UPDATE",
        ),
    ],
)
def test_a_request_is_its_name_and_its_payload_in_words(message: Message, words: str) -> None:
    decoded = Decoder(device_features=BlkFeature).decode(Role.FRONTEND, request(message))
    assert (str(decoded).rstrip(), decoded.kind) == (words.rstrip(), Kind.REQUEST)


@pytest.mark.parametrize(
    ("to", "reply", "words"),
    [
        (GetFeatures, U64(VirtioFeature.EVENT_IDX), "reply to GET_FEATURES  0x20000000 EVENT_IDX"),
        (GetProtocolFeatures, U64(0x8), "reply to GET_PROTOCOL_FEATURES  0x8 REPLY_ACK"),
        (GetQueueNum, U64(4), "reply to GET_QUEUE_NUM  4"),
        (GetStatus, U64(3), "reply to GET_STATUS  0x3 ACKNOWLEDGE DRIVER"),
        (GetVringBase, VringState(0, 9), "reply to GET_VRING_BASE  ring 0 base 9"),
        (GetConfig, Config(0, 20, ConfigFlags(0), bytes(range(20))), None),
        (SetOwner, U64(0), "ack to SET_OWNER  ok"),
        (SetOwner, U64(22), "ack to SET_OWNER  refused: 0x16"),
        (SetMemTable, U64(0), "ack to SET_MEM_TABLE  ok"),
        (SetMemTable, MemoryTable((REGION,)), f"reply to SET_MEM_TABLE  1 region: {REGION_IN_WORDS}"),
    ],
)
def test_an_answer_names_what_it_answers(to: type[Message], reply: Structure, words: str | None) -> None:
    expected = words or (
        "reply to GET_CONFIG  bytes 0 to 20: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f ... 20 bytes"
    )
    assert str(Decoder().decode(Role.BACKEND, answer(to, reply))) == expected


def test_an_acknowledgement_has_its_value_and_a_request_says_that_it_wants_one() -> None:
    decoder = Decoder()
    assert decoder.decode(Role.FRONTEND, request(SetOwner(), need_reply=True)).need_reply
    assert decoder.decode(Role.BACKEND, answer(SetOwner, U64(5))).value == 5


def test_an_empty_reply_where_config_was_due_is_a_refusal() -> None:
    header = Header(FrontendRequest.GET_CONFIG, HeaderFlags.VERSION_1 | HeaderFlags.REPLY, 0)
    assert str(Decoder().decode(Role.BACKEND, Frame(header))) == "reply to GET_CONFIG  refused"


def test_what_was_negotiated_decides_how_a_payload_is_read() -> None:
    decoder = Decoder()
    log_base = Frame(Header(FrontendRequest.SET_LOG_BASE, HeaderFlags.VERSION_1 | HeaderFlags.REPLY, 8), bytes(8))
    assert decoder.decode(Role.BACKEND, log_base).kind is Kind.ACK
    decoder.decode(Role.FRONTEND, request(SetProtocolFeatures(ProtocolFeature.LOG_SHMFD)))
    assert decoder.decode(Role.BACKEND, log_base).kind is Kind.REPLY


def test_the_back_ends_own_requests_are_read_on_its_channel() -> None:
    decoder = Decoder(requester=Role.BACKEND)
    assert str(decoder.decode(Role.BACKEND, request(BackendConfigChangeMsg()))) == "BACKEND_CONFIG_CHANGE_MSG"
    assert str(decoder.decode(Role.FRONTEND, answer(BackendConfigChangeMsg, U64(0)))).startswith("ack to BACKEND_")


@pytest.mark.parametrize(
    ("sender", "request_number", "payload", "words"),
    [
        (Role.FRONTEND, 999, b"\1\2", "request 999  01 02"),
        (Role.BACKEND, 999, b"", "reply to request 999"),
        (Role.FRONTEND, FrontendRequest.SET_VRING_NUM, b"\1", "SET_VRING_NUM  unreadable: "),
        (Role.BACKEND, FrontendRequest.GET_FEATURES, b"\1", "reply to GET_FEATURES  unreadable: "),
    ],
)
def test_what_cannot_be_read_is_shown_as_bytes(sender: Role, request_number: int, payload: bytes, words: str) -> None:
    header = Header(request_number, HeaderFlags.VERSION_1, len(payload))
    shown = str(Decoder().decode(sender, Frame(header, payload)))
    assert shown.startswith(words)
    assert not payload or payload.hex(" ") in shown


def test_descriptors_are_shown_with_their_kind_and_stay_owned_by_the_frame() -> None:
    read_end, write_end = os.pipe()
    os.close(write_end)
    with Fds.of(Fd(read_end)) as fds:
        decoded = Decoder().decode(Role.FRONTEND, request(SetVringKick(0), fds=fds))
        assert re.fullmatch(rf"SET_VRING_KICK  ring 0  fd {read_end} \(pipe, [0-9a-f:]+ \d+\)", str(decoded))
        assert not fds[0].closed


@pytest.mark.parametrize("spec", CATALOG.values(), ids=lambda spec: spec.name)
def test_no_message_at_all_is_refused(spec: object) -> None:
    """Every request, with a payload of zeroes of every size up to 64, is words of some kind."""
    for (sender, number), each in CATALOG.items():
        if each is spec:
            for size in range(65):
                header = Header(number, HeaderFlags.VERSION_1, size)
                decoder = Decoder(requester=sender)
                for who in Role:
                    assert each.name in str(decoder.decode(who, Frame(header, bytes(size))))


def test_records_inside_records_are_shown_too() -> None:
    assert "guest" in in_words(MemoryTable((REGION,)))


def test_the_log_says_which_way_a_message_went(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("tests.messages")
    with caplog.at_level(logging.DEBUG, log.name):
        observe = log_messages(log, role=Role.BACKEND, level=logging.DEBUG)
        observe(Direction.RECEIVED, request(SetOwner()))
        observe(Direction.SENT, answer(SetOwner, U64(0)))
    assert caplog.messages == ["received SET_OWNER", "sent ack to SET_OWNER  ok"]
