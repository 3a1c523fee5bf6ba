"""GPU device (virtio 1.3, section 5.7): queue 0 control, 1 cursor.  The 2D half."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from vhostuser.wire.schema import Structure, code, flags, le32, le64, pad, structure, u8, wire

CONTROL_QUEUE = 0
CURSOR_QUEUE = 1


class GpuFeature(IntFlag):
    """5.7.3 Feature bits."""

    VIRGL = 1 << 0
    EDID = 1 << 1
    RESOURCE_UUID = 1 << 2
    RESOURCE_BLOB = 1 << 3
    CONTEXT_INIT = 1 << 4
    BLOB_ALIGNMENT = 1 << 5


@structure
class GpuConfig(Structure):
    """5.7.4 Device configuration layout.  (BLOB_ALIGNMENT, virtio 1.4, adds one more le32.)"""

    events_read: int = wire(le32, default=0)
    events_clear: int = wire(le32, default=0)
    num_scanouts: int = wire(le32, default=1)
    num_capsets: int = wire(le32, default=0)


class GpuType(IntEnum):
    """5.7.6.7 Device operation: what a request asks for, and what a response says."""

    GET_DISPLAY_INFO = 0x0100
    RESOURCE_CREATE_2D = 0x0101
    RESOURCE_UNREF = 0x0102
    SET_SCANOUT = 0x0103
    RESOURCE_FLUSH = 0x0104
    TRANSFER_TO_HOST_2D = 0x0105
    RESOURCE_ATTACH_BACKING = 0x0106
    RESOURCE_DETACH_BACKING = 0x0107
    GET_CAPSET_INFO = 0x0108
    GET_CAPSET = 0x0109
    GET_EDID = 0x010A
    RESOURCE_ASSIGN_UUID = 0x010B
    RESOURCE_CREATE_BLOB = 0x010C
    SET_SCANOUT_BLOB = 0x010D
    UPDATE_CURSOR = 0x0300
    MOVE_CURSOR = 0x0301
    OK_NODATA = 0x1100
    OK_DISPLAY_INFO = 0x1101
    OK_CAPSET_INFO = 0x1102
    OK_CAPSET = 0x1103
    OK_EDID = 0x1104
    OK_RESOURCE_UUID = 0x1105
    OK_MAP_INFO = 0x1106
    ERR_UNSPEC = 0x1200
    ERR_OUT_OF_MEMORY = 0x1201
    ERR_INVALID_SCANOUT_ID = 0x1202
    ERR_INVALID_RESOURCE_ID = 0x1203
    ERR_INVALID_CONTEXT_ID = 0x1204
    ERR_INVALID_PARAMETER = 0x1205


class GpuHeaderFlags(IntFlag):
    """Flags of a control header."""

    FENCE = 1
    INFO_RING_IDX = 2


@structure
class GpuHeader(Structure):
    """``virtio_gpu_ctrl_hdr``: 24 bytes at the beginning of every request and every response."""

    type: GpuType | int = wire(code(le32, GpuType))
    flags: GpuHeaderFlags = wire(flags(le32, GpuHeaderFlags), default=GpuHeaderFlags(0))
    fence_id: int = wire(le64, default=0)
    ctx_id: int = wire(le32, default=0)
    ring_idx: int = wire(u8, default=0)
    _: None = pad(3)


@structure
class GpuRect(Structure):
    """``virtio_gpu_rect``, in pixels."""

    x: int = wire(le32)
    y: int = wire(le32)
    width: int = wire(le32)
    height: int = wire(le32)
