"""Socket device (virtio 1.3, section 5.10): queue 0 to the driver, 1 from it, 2 events."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from vhostuser.wire.schema import Structure, code, le16, le32, le64, structure, wire

RECEIVE_QUEUE = 0
TRANSMIT_QUEUE = 1
EVENT_QUEUE = 2

HOST_CID = 2
RESERVED_CIDS = frozenset({0, 1, HOST_CID, 0xFFFFFFFF, (1 << 64) - 1})
"""5.10.4: no guest has one of these."""


class VsockFeature(IntFlag):
    """5.10.3 Feature bits."""

    STREAM = 1 << 0
    SEQPACKET = 1 << 1
    NO_IMPLIED_STREAM = 1 << 2


@structure
class VsockConfig(Structure):
    """5.10.4 Device configuration layout; the upper 32 bits are zero."""

    guest_cid: int = wire(le64)


class VsockType(IntEnum):
    """5.10.6.2: the socket's type."""

    STREAM = 1
    SEQPACKET = 2


class VsockOp(IntEnum):
    """5.10.6: what a packet is for."""

    INVALID = 0
    REQUEST = 1
    RESPONSE = 2
    RST = 3
    SHUTDOWN = 4
    RW = 5
    CREDIT_UPDATE = 6
    CREDIT_REQUEST = 7


class VsockShutdown(IntFlag):
    """Flags of `VsockOp.SHUTDOWN`; once set, a flag stays."""

    RECEIVE = 1
    SEND = 2


class VsockSeqpacket(IntFlag):
    """Flags of `VsockOp.RW` in a SEQPACKET socket."""

    EOM = 1
    EOR = 2


@structure
class VsockHeader(Structure):
    """``virtio_vsock_hdr``: 44 bytes before each packet's payload.  Credit is counted modulo 2^32."""

    src_cid: int = wire(le64)
    dst_cid: int = wire(le64)
    src_port: int = wire(le32)
    dst_port: int = wire(le32)
    len: int = wire(le32)
    type: VsockType | int = wire(code(le16, VsockType))
    op: VsockOp | int = wire(code(le16, VsockOp))
    flags: int = wire(le32)
    buf_alloc: int = wire(le32)
    fwd_cnt: int = wire(le32)


class VsockEventId(IntEnum):
    """5.10.6.7 Device events."""

    TRANSPORT_RESET = 0


@structure
class VsockEvent(Structure):
    """``virtio_vsock_event``."""

    id: VsockEventId | int = wire(code(le32, VsockEventId))
