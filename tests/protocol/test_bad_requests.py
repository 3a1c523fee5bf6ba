"""Requests that are well-formed and still not allowed: memory, rings, configuration, features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.protocol.helpers import (
    ALL,
    CONFIGURED,
    FEATURES,
    NEGOTIATED,
    OTHER_REGION,
    REGION,
    RUNNING,
    backend,
    request,
    ring_addr,
)
from tests.protocol.refusals import assert_refused, refused
from tests.protocol.samples import FRONTEND_SAMPLES, Sample, name_of
from vhostuser.errors import Hint
from vhostuser.protocol import BackendProtocol
from vhostuser.protocol.rings import Notify
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import (
    ConfigFlags,
    IotlbPermission,
    IotlbType,
    MemoryRegion,
    TransferDirection,
    TransferPhase,
    VringAddrFlags,
)

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message

TRANSLATED = FEATURES | V.ACCESS_PLATFORM

# --- memory ------------------------------------------------------------------------------------------------------

_HUGE = (1 << 64) - 0x1000


@pytest.mark.parametrize(
    "bad",
    [
        MemoryRegion(_HUGE, 0x2000, 0, 0),
        MemoryRegion(0, 0x2000, _HUGE, 0),
        MemoryRegion(0, 0x2000, 0, _HUGE),
        MemoryRegion(0, 0, 0, 0),
        REGION,
        MemoryRegion(REGION.guest_addr + 0x1000, 0x1000, 0, 0),
        MemoryRegion(0x400000, 0x1000, REGION.user_addr + 0x1000, 0),
    ],
    ids=["guest wraps", "user wraps", "offset wraps", "empty", "twice", "guest overlaps", "user overlaps"],
)
def test_a_region_that_wraps_or_overlaps_is_refused(bad: MemoryRegion) -> None:
    assert_refused(backend(*NEGOTIATED), f.SetMemTable((REGION, bad)), "region ")
    assert_refused(backend(*CONFIGURED), f.AddMemReg(bad), "region ")


def test_too_many_regions_are_refused() -> None:
    regions = tuple(MemoryRegion(at << 12, 0x1000, at << 12, 0) for at in range(9))
    assert_refused(backend(*NEGOTIATED), f.SetMemTable(regions), "9 regions")
    added = [f.AddMemReg(region) for region in regions[:4]]
    assert_refused(backend(*NEGOTIATED, *added), f.AddMemReg(regions[4]), "4 regions there already")


def test_a_region_that_is_not_there_cannot_be_removed() -> None:
    assert_refused(backend(*CONFIGURED), f.RemMemReg(OTHER_REGION), "region ")


@pytest.mark.parametrize("unused", [0, 1, 7], ids=["QEMU", "user-mode Linux", "libvhost-user"])
def test_a_memory_table_may_have_places_that_are_not_used(unused: int) -> None:
    assert backend(*NEGOTIATED, f.SetMemTable((REGION,), bytes(32 * unused))).state.regions == (REGION,)


@pytest.mark.parametrize("size", [1, 31, 33, 8 * 32])
def test_a_memory_table_has_no_other_tail(size: int) -> None:
    assert_refused(backend(*NEGOTIATED), f.SetMemTable((REGION,), bytes(size)), f"{size} bytes behind the regions")


# --- rings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [2, 3, 255, 256, 0x10000, 0xFFFFFFFF])
@pytest.mark.parametrize("kind", [f.SetVringNum, f.SetVringBase, f.SetVringEnable, f.SetVringEndian, f.VringKick])
def test_a_ring_that_is_not_there_is_refused_by_all_32_bits_of_its_index(
    kind: type[f.SetVringNum | f.SetVringBase | f.SetVringEnable | f.SetVringEndian | f.VringKick], index: int
) -> None:
    assert_refused(backend(*CONFIGURED), kind(index, 1), f"ring index {index}, expected less than 2")


@pytest.mark.parametrize("index", [2, 0x100, 0xFFFFFFFF])
def test_addresses_and_base_of_a_ring_that_is_not_there_are_refused(index: int) -> None:
    assert_refused(backend(*CONFIGURED), ring_addr(index), f"ring index {index}, expected less than 2")
    assert_refused(backend(*CONFIGURED), f.GetVringBase(index), f"ring index {index}, expected less than 2")


@pytest.mark.parametrize("kind", [f.SetVringKick, f.SetVringCall, f.SetVringErr])
@pytest.mark.parametrize("index", [2, 255])
def test_notifiers_of_a_ring_that_is_not_there_are_refused_and_closed(kind: type[f.VringFd], index: int) -> None:
    assert_refused(backend(*CONFIGURED), kind(index), f"ring index {index}, expected less than 2")


@pytest.mark.parametrize("value", [0x200, 0x10000, 1 << 32, 1 << 63])
def test_a_notifier_with_bits_above_bit_8_is_not_taken_for_a_lower_ring(value: int) -> None:
    assert_refused(backend(*CONFIGURED), f.SetVringCall(value), f"{value:#x}")


def test_the_last_of_256_rings_can_be_polled() -> None:
    protocol = backend(f.SetVringCall.of(255, no_fd=True), num_queues=256)
    assert protocol.state.rings[255].call is Notify.POLL


@pytest.mark.parametrize("size", [0, 3, 300, 2048, 32768, 65536, 0xFFFFFFFF])
def test_a_ring_size_that_is_none_is_refused(size: int) -> None:
    assert_refused(backend(*CONFIGURED), f.SetVringNum(0, size), f"ring 0 with {size} entries")


def test_a_back_end_takes_rings_of_32768_entries_unless_it_says_otherwise() -> None:
    protocol = BackendProtocol(features=0, protocol_features=P(0), num_queues=1)
    protocol.receive(request(f.SetVringNum(0, 32768)))
    assert protocol.state.rings[0].size == 32768


@pytest.mark.parametrize(
    "addr", [ring_addr(desc=8), ring_addr(avail=1), ring_addr(used=2)], ids=["descriptors", "available", "used"]
)
def test_ring_addresses_out_of_alignment_are_refused(addr: f.SetVringAddr) -> None:
    assert_refused(backend(*CONFIGURED), addr, "ring 0: ")


@pytest.mark.parametrize(
    "addr",
    [
        f.SetVringAddr(0, VringAddrFlags(0), 0, 0x20000, 0x10000, 0),
        ring_addr(desc=REGION.size),
        ring_addr(avail=REGION.size - 2),
        ring_addr(used=REGION.size - 4),
        f.SetVringAddr(0, VringAddrFlags(0), _HUGE, _HUGE, _HUGE, 0),
    ],
)
def test_a_ring_outside_memory_does_not_start(addr: f.SetVringAddr) -> None:
    assert_refused(backend(*CONFIGURED, addr), f.SetVringKick.of(0), "ring 0: ")
    assert_refused(backend(*CONFIGURED, addr), f.VringKick(0), "ring 0: ")


@pytest.mark.parametrize(
    ("missing", "found"),
    [
        ("SET_VRING_NUM", "ring 0 without a size"),
        ("SET_VRING_ADDR", "ring 0 without addresses"),
        ("SET_MEM_TABLE", "ring 0 without memory"),
    ],
)
def test_a_kick_before_the_ring_is_configured_is_refused(missing: str, found: str) -> None:
    messages = [message for message in CONFIGURED if message.spec.name != missing]
    assert_refused(backend(*messages), f.SetVringKick.of(0), found)
    assert_refused(backend(*messages), f.SetVringKick.of(0, no_fd=True), found)
    assert_refused(backend(*messages), f.VringKick(0), found)


@pytest.mark.parametrize("message", [f.SetVringNum(0, 64), f.SetVringBase(0, 1)], ids=lambda each: each.spec.name)
def test_a_running_ring_cannot_be_resized_or_moved(message: Message) -> None:
    assert_refused(backend(*RUNNING), message, "ring 0 running")


@pytest.mark.parametrize("num", [2, 0xFFFFFFFF])
def test_a_ring_is_enabled_or_disabled_and_nothing_else(num: int) -> None:
    assert_refused(backend(*CONFIGURED), f.SetVringEnable(0, num), f"ring 0: value {num}")
    assert_refused(backend(*CONFIGURED), f.SetVringEndian(0, num), f"ring 0: value {num}")


# --- the rest ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size", "data", "found"),
    [
        (0, 8, b"", "0 bytes of data"),
        (0, 8, bytes(9), "9 bytes of data"),
        (0, 0, b"", "a size of 0 bytes"),
        (0, 257, bytes(257), "a size of 257 bytes"),
        (250, 8, bytes(8), "bytes 250 to 258"),
        (0xFFFFFFFF, 1, b"x", "bytes 4294967295 to 4294967296"),
        (0, 0xFFFFFFFF, b"x", "a size of 4294967295 bytes"),
    ],
)
def test_configuration_space_has_256_bytes(offset: int, size: int, data: bytes, found: str) -> None:
    protocol = backend(*CONFIGURED)
    assert_refused(protocol, f.GetConfig(offset, size, ConfigFlags(0), data), found)
    assert_refused(protocol, f.SetConfig(offset, size, ConfigFlags(0), data), found)


def test_a_status_has_8_bits() -> None:
    assert_refused(backend(*CONFIGURED), f.SetStatus(0x100), "device status 0x100")
    assert backend(*CONFIGURED, f.SetStatus(0xFF)).state.status == 0xFF


@pytest.mark.parametrize("kind", [IotlbType.MISS, IotlbType.ACCESS_FAIL, 0, 9])
def test_a_front_end_only_updates_and_invalidates_the_iotlb(kind: int) -> None:
    protocol = backend(*CONFIGURED, f.SetFeatures(TRANSLATED), features=TRANSLATED)
    assert_refused(protocol, f.IotlbMsg(0, 1, 0, IotlbPermission.READ, kind), f"type {kind}")


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (f.SetDeviceStateFd(2, TransferPhase.STOPPED), "direction 2"),
        (f.SetDeviceStateFd(TransferDirection.LOAD, 1), "phase 1"),
    ],
)
def test_device_state_moves_in_known_directions_and_phases(message: Message, found: str) -> None:
    assert_refused(backend(*CONFIGURED), message, found)


def test_features_that_were_not_offered_are_refused() -> None:
    assert_refused(backend(*NEGOTIATED), f.SetFeatures(FEATURES | V.RING_PACKED), "RING_PACKED, never offered")


@pytest.mark.parametrize(
    "features", [ALL | P.XEN_MMAP, P(1 << 40), P.INBAND_NOTIFICATIONS, P.GET_VRING_BASE_INFLIGHT | P.REPLY_ACK]
)
@pytest.mark.parametrize("ack", [False, True])
def test_a_set_of_protocol_features_that_cannot_be_ends_the_connection(features: P, ack: bool) -> None:
    protocol = backend(*NEGOTIATED)
    error = refused(protocol, request(f.SetProtocolFeatures(features), ack=ack))
    assert error.hint is Hint.CLOSE
    assert error.section == "VHOST_USER_SET_PROTOCOL_FEATURES"
    assert protocol.nack() is None


GATED = [sample for sample in FRONTEND_SAMPLES if sample.message.spec.needs or sample.message.spec.needs_virtio]


@pytest.mark.parametrize("sample", GATED, ids=name_of)
def test_a_message_whose_feature_is_not_negotiated_is_refused_by_the_features_name(sample: Sample) -> None:
    spec = sample.message.spec
    messages = (f.GetFeatures(), f.SetFeatures(V.VERSION_1))
    protocol = backend(*messages, features=V.VERSION_1, protocol_features=P(0))
    lacking = [each.name for each in V if each & spec.needs_virtio] + [each.name for each in P if each & spec.needs]
    assert_refused(protocol, sample.message, f"{', '.join(map(str, lacking))} not {spec.gate.value}", sample.fd_count)
