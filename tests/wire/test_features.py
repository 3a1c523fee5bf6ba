"""Feature bits: masks, their positions, their names, and what they need."""

from __future__ import annotations

from enum import IntFlag

import pytest

from vhostuser.wire.features import (
    PREREQUISITES,
    PROTOCOL_MEANINGS,
    VIRTIO_MEANINGS,
    ProtocolFeature,
    VirtioFeature,
    names,
)
from vhostuser.wire.virtio.features import DEVICE_FEATURES, describe
from vhostuser.wire.virtio.ids import DeviceType

PROTOCOL = [
    "MQ",
    "LOG_SHMFD",
    "RARP",
    "REPLY_ACK",
    "MTU",
    "BACKEND_REQ",
    "CROSS_ENDIAN",
    "CRYPTO_SESSION",
    "PAGEFAULT",
    "CONFIG",
    "BACKEND_SEND_FD",
    "HOST_NOTIFIER",
    "INFLIGHT_SHMFD",
    "RESET_DEVICE",
    "INBAND_NOTIFICATIONS",
    "CONFIGURE_MEM_SLOTS",
    "STATUS",
    "XEN_MMAP",
    "SHARED_OBJECT",
    "DEVICE_STATE",
    "GET_VRING_BASE_INFLIGHT",
    "GPA_ADDRESSES",
    "SHMEM",
]

VIRTIO = {
    "NOTIFY_ON_EMPTY": 24,
    "LOG_ALL": 26,
    "ANY_LAYOUT": 27,
    "INDIRECT_DESC": 28,
    "EVENT_IDX": 29,
    "PROTOCOL_FEATURES": 30,
    "VERSION_1": 32,
    "ACCESS_PLATFORM": 33,
    "RING_PACKED": 34,
    "IN_ORDER": 35,
    "ORDER_PLATFORM": 36,
    "SR_IOV": 37,
    "NOTIFICATION_DATA": 38,
    "NOTIF_CONFIG_DATA": 39,
    "RING_RESET": 40,
    "ADMIN_VQ": 41,
    "SUSPEND": 43,
}


def test_the_23_protocol_features_are_bits_0_to_22_in_order() -> None:
    assert [(each.name, each.value) for each in ProtocolFeature] == [
        (name, 1 << bit) for bit, name in enumerate(PROTOCOL)
    ]
    assert len(PROTOCOL) == 23


def test_the_virtio_features_are_masks_of_their_bits() -> None:
    assert {each.name: each.value for each in VirtioFeature} == {name: 1 << bit for name, bit in VIRTIO.items()}


def test_every_feature_has_a_sentence() -> None:
    assert list(PROTOCOL_MEANINGS) == list(ProtocolFeature)
    assert list(VIRTIO_MEANINGS) == list(VirtioFeature)


def test_some_features_need_others() -> None:
    assert PREREQUISITES == {
        ProtocolFeature.INBAND_NOTIFICATIONS: ProtocolFeature.BACKEND_REQ | ProtocolFeature.REPLY_ACK,
        ProtocolFeature.GET_VRING_BASE_INFLIGHT: ProtocolFeature.INFLIGHT_SHMFD,
    }


def test_unknown_bits_are_kept_in_a_set_of_features() -> None:
    assert ProtocolFeature(1 << 63 | 1).value == 1 << 63 | 1


def test_names_go_from_the_lowest_bit_and_unknown_bits_have_numbers() -> None:
    assert names(0b1001 | 1 << 23 | 1 << 63, ProtocolFeature) == ["MQ", "REPLY_ACK", "bit 23", "bit 63"]
    assert names(0, ProtocolFeature) == []


def test_the_first_table_that_knows_a_bit_names_it() -> None:
    class First(IntFlag):
        OURS = 1 << 24

    assert names(1 << 24 | 1 << 28, First, VirtioFeature) == ["OURS", "INDIRECT_DESC"]


@pytest.mark.parametrize(
    ("device_type", "first"),
    [
        (DeviceType.NET, ["CTRL_GUEST_OFFLOADS", "MAC"]),
        (DeviceType.BLOCK, ["SEG_MAX", "RO"]),
        (DeviceType.CONSOLE, ["EMERG_WRITE", "bit 5"]),
        (DeviceType.RNG, ["bit 2", "bit 5"]),
        (1234, ["bit 2", "bit 5"]),
        (None, ["bit 2", "bit 5"]),
    ],
)
def test_device_bits_are_named_by_type(device_type: int | None, first: list[str]) -> None:
    assert describe(1 << 2 | 1 << 5 | 1 << 29 | 1 << 32, device_type) == [*first, "EVENT_IDX", "VERSION_1"]


@pytest.mark.parametrize("table", DEVICE_FEATURES.values(), ids=lambda table: table.__name__)
def test_device_bits_stay_out_of_those_of_rings_and_transport(table: type[IntFlag]) -> None:
    bits = {each.value.bit_length() - 1 for each in table}
    assert bits <= {*range(24), *range(50, 64)}
