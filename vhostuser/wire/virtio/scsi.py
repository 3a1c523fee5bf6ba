"""SCSI host device (virtio 1.3, section 5.6): queue 0 control, 1 events, from 2 on requests."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from construct import Bytes

from vhostuser.wire.schema import Structure, code, le16, le32, le64, structure, u8, wire

CONTROL_QUEUE = 0
EVENT_QUEUE = 1
FIRST_REQUEST_QUEUE = 2

SENSE_SIZE = 96
CDB_SIZE = 32
MAX_TARGET = 255
MAX_LUN = 16383
REPORT_LUNS_WLUN = bytes([0xC1, 0x01, 0, 0, 0, 0, 0, 0])


class ScsiFeature(IntFlag):
    """5.6.3 Feature bits."""

    INOUT = 1 << 0
    HOTPLUG = 1 << 1
    CHANGE = 1 << 2
    T10_PI = 1 << 3


@structure
class ScsiConfig(Structure):
    """5.6.4 Device configuration layout.  The driver may write ``sense_size`` and ``cdb_size``."""

    num_queues: int = wire(le32)
    seg_max: int = wire(le32)
    max_sectors: int = wire(le32)
    cmd_per_lun: int = wire(le32)
    event_info_size: int = wire(le32, default=16)
    sense_size: int = wire(le32, default=SENSE_SIZE)
    cdb_size: int = wire(le32, default=CDB_SIZE)
    max_channel: int = wire(le16, default=0)
    max_target: int = wire(le16, default=MAX_TARGET)
    max_lun: int = wire(le32, default=MAX_LUN)


class ScsiTaskAttr(IntEnum):
    """5.6.6.1: how a command stands to others in the queue."""

    SIMPLE = 0
    ORDERED = 1
    HEAD = 2
    ACA = 3


@structure
class ScsiCommandRequest(Structure):
    """``virtio_scsi_req_cmd``, the part that the device reads, with a command block of the default size."""

    lun: bytes = wire(Bytes(8))
    id: int = wire(le64)
    task_attr: ScsiTaskAttr | int = wire(code(u8, ScsiTaskAttr))
    prio: int = wire(u8)
    crn: int = wire(u8)
    cdb: bytes = wire(Bytes(CDB_SIZE))


class ScsiResponse(IntEnum):
    """5.6.6.1: ``response``; from 10 on, of the control queue only."""

    OK = 0
    OVERRUN = 1
    ABORTED = 2
    BAD_TARGET = 3
    RESET = 4
    BUSY = 5
    TRANSPORT_FAILURE = 6
    TARGET_FAILURE = 7
    NEXUS_FAILURE = 8
    FAILURE = 9
    FUNCTION_SUCCEEDED = 10
    FUNCTION_REJECTED = 11
    INCORRECT_LUN = 12


@structure
class ScsiCommandResponse(Structure):
    """``virtio_scsi_req_cmd``, the part that the device writes, with sense data of the default size."""

    sense_len: int = wire(le32, default=0)
    residual: int = wire(le32, default=0)
    status_qualifier: int = wire(le16, default=0)
    status: int = wire(u8, default=0)
    response: ScsiResponse | int = wire(code(u8, ScsiResponse), default=ScsiResponse.OK)
    sense: bytes = wire(Bytes(SENSE_SIZE), default=bytes(SENSE_SIZE))


class ScsiControlType(IntEnum):
    """5.6.6.2 Device operation: controlq."""

    TMF = 0
    AN_QUERY = 1
    AN_SUBSCRIBE = 2


class ScsiTmf(IntEnum):
    """Task management functions: ``subtype``."""

    ABORT_TASK = 0
    ABORT_TASK_SET = 1
    CLEAR_ACA = 2
    CLEAR_TASK_SET = 3
    I_T_NEXUS_RESET = 4
    LOGICAL_UNIT_RESET = 5
    QUERY_TASK = 6
    QUERY_TASK_SET = 7


@structure
class ScsiTmfRequest(Structure):
    """``virtio_scsi_ctrl_tmf``; the device answers with one byte, a `ScsiResponse`."""

    type: ScsiControlType | int = wire(code(le32, ScsiControlType))
    subtype: ScsiTmf | int = wire(code(le32, ScsiTmf))
    lun: bytes = wire(Bytes(8))
    id: int = wire(le64)


class ScsiEventType(IntEnum):
    """5.6.6.3 Device operation: eventq."""

    NO_EVENT = 0
    TRANSPORT_RESET = 1
    ASYNC_NOTIFY = 2
    PARAM_CHANGE = 3


EVENTS_MISSED = 1 << 31
"""Added to ``event`` when the device had no buffer for an earlier one."""


@structure
class ScsiEvent(Structure):
    """``virtio_scsi_event``."""

    event: ScsiEventType | int = wire(code(le32, ScsiEventType))
    lun: bytes = wire(Bytes(8))
    reason: int = wire(le32)
