"""Rules about a payload that need to know nothing but the payload."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.protocol.rules import expect
from vhostuser.wire.backend_messages import BackendIotlbMsg, BackendVringHostNotifierMsg
from vhostuser.wire.frontend_messages import (
    GetConfig,
    IotlbMsg,
    SetConfig,
    SetDeviceStateFd,
    SetMemTable,
    SetStatus,
    SetVringEnable,
    SetVringEndian,
    VringFd,
    XenSetMemTable,
)
from vhostuser.wire.records import (
    MAX_CONFIG_SIZE,
    MAX_REGIONS,
    IotlbType,
    MemoryRegion,
    TransferDirection,
    TransferPhase,
    XenMemoryRegion,
)

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message

_FRONTEND_IOTLB = (IotlbType.UPDATE, IotlbType.INVALIDATE)
_BACKEND_IOTLB = (IotlbType.MISS, IotlbType.ACCESS_FAIL)
_IOTLB_PADDING = 6


def check_payload(message: Message) -> None:
    """Check what can be checked without knowing what went before.

    Raises:
        LocalProtocolError: no sender may ever send this.
    """
    match message:
        case VringFd(value) | BackendVringHostNotifierMsg(index_and_flags=value):
            _check_vring_fd(value)
        case SetVringEnable(index, num) | SetVringEndian(index, num):
            expect(num in (0, 1), f"ring {index}: value {num}", "0 or 1")
        case SetStatus(status):
            expect(status <= 0xFF, f"device status {status:#x}", "8 bits")
        case GetConfig(offset, size, _, data) | SetConfig(offset, size, _, data):
            _check_config(offset, size, data)
        case IotlbMsg(type=kind, trailing=trailing):
            _check_iotlb(kind, trailing, _FRONTEND_IOTLB)
        case BackendIotlbMsg(type=kind, trailing=trailing):
            _check_iotlb(kind, trailing, _BACKEND_IOTLB)
        case SetMemTable(regions, trailing):
            _check_unused_places(trailing, MAX_REGIONS - len(regions), MemoryRegion.wire_size())
        case XenSetMemTable(regions, trailing):
            _check_unused_places(trailing, MAX_REGIONS - len(regions), XenMemoryRegion.wire_size())
        case SetDeviceStateFd(direction, phase):
            expect(isinstance(direction, TransferDirection), f"direction {direction}", "0 (save) or 1 (load)")
            expect(isinstance(phase, TransferPhase), f"phase {phase}", "0 (stopped)")


def _check_vring_fd(value: int) -> None:
    # Without this, ring 0x10000 would quietly become ring 0.
    known = VringFd.INDEX | VringFd.NO_FD
    expect(value <= known, f"{value:#x}", "a ring index in bits 0-7, bit 8, and nothing above")


def _check_config(offset: int, size: int, data: bytes) -> None:
    expect(0 < size <= MAX_CONFIG_SIZE, f"a size of {size} bytes", f"1 to {MAX_CONFIG_SIZE}")
    end = offset + size
    expect(end <= MAX_CONFIG_SIZE, f"bytes {offset} to {end}", f"an end of at most {MAX_CONFIG_SIZE}")
    expect(len(data) == size, f"{len(data)} bytes of data", f"as many as its size says, {size}")


def _check_iotlb(kind: int, trailing: bytes, expected: tuple[IotlbType, IotlbType]) -> None:
    one, other = expected
    expect(kind in expected, f"type {kind}", f"{one} ({one.name.lower()}) or {other} ({other.name.lower()})")
    _check_trailing(trailing, _IOTLB_PADDING)


def _check_trailing(trailing: bytes, padding: int) -> None:
    """Peers send a structure with or without the space that a C compiler or a fixed array puts behind it."""
    fits = len(trailing) in (0, padding)
    expect(fits, f"{len(trailing)} bytes behind the structure", f"0 or {padding}")


def _check_unused_places(trailing: bytes, most: int, size: int) -> None:
    """The document draws eight places for regions; QEMU sends those in use, libvhost-user all, user-mode Linux two."""
    places, odd_bytes = divmod(len(trailing), size)
    expect(
        not odd_bytes and places <= max(most, 0),
        f"{len(trailing)} bytes behind the regions",
        f"unused places of {size} bytes, at most {most}",
    )
