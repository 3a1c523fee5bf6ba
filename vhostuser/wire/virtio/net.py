"""Network device (virtio 1.3, section 5.1).

Queues come in pairs: receiveq 2k, transmitq 2k + 1; the control queue, if there is one, is behind the last pair.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from construct import Bytes

from vhostuser.wire.schema import Structure, code, flags, le16, le32, structure, u8, wire


class NetFeature(IntFlag):
    """5.1.3 Feature bits.  Those from 64 on (virtio 1.4) do not fit the 64 bits of GET_FEATURES."""

    CSUM = 1 << 0
    GUEST_CSUM = 1 << 1
    CTRL_GUEST_OFFLOADS = 1 << 2
    MTU = 1 << 3
    MAC = 1 << 5
    GSO = 1 << 6
    GUEST_TSO4 = 1 << 7
    GUEST_TSO6 = 1 << 8
    GUEST_ECN = 1 << 9
    GUEST_UFO = 1 << 10
    HOST_TSO4 = 1 << 11
    HOST_TSO6 = 1 << 12
    HOST_ECN = 1 << 13
    HOST_UFO = 1 << 14
    MRG_RXBUF = 1 << 15
    STATUS = 1 << 16
    CTRL_VQ = 1 << 17
    CTRL_RX = 1 << 18
    CTRL_VLAN = 1 << 19
    CTRL_RX_EXTRA = 1 << 20
    GUEST_ANNOUNCE = 1 << 21
    MQ = 1 << 22
    CTRL_MAC_ADDR = 1 << 23
    DEVICE_STATS = 1 << 50
    HASH_TUNNEL = 1 << 51
    VQ_NOTF_COAL = 1 << 52
    NOTF_COAL = 1 << 53
    GUEST_USO4 = 1 << 54
    GUEST_USO6 = 1 << 55
    HOST_USO = 1 << 56
    HASH_REPORT = 1 << 57
    GUEST_HDRLEN = 1 << 59
    RSS = 1 << 60
    RSC_EXT = 1 << 61
    STANDBY = 1 << 62
    SPEED_DUPLEX = 1 << 63


class NetStatus(IntFlag):
    """``status`` in the configuration space."""

    LINK_UP = 1
    ANNOUNCE = 2


SPEED_UNKNOWN = 0xFFFFFFFF
DUPLEX_HALF = 0
DUPLEX_FULL = 1
DUPLEX_UNKNOWN = 0xFF


@structure
class NetConfig(Structure):
    """5.1.4 Device configuration layout.  Speed in Mbit/s, MTU in bytes."""

    mac: bytes = wire(Bytes(6))
    status: NetStatus = wire(flags(le16, NetStatus), default=NetStatus.LINK_UP)
    max_virtqueue_pairs: int = wire(le16, default=1)
    mtu: int = wire(le16, default=0)
    speed: int = wire(le32, default=SPEED_UNKNOWN)
    duplex: int = wire(u8, default=DUPLEX_UNKNOWN)
    rss_max_key_size: int = wire(u8, default=0)
    rss_max_indirection_table_length: int = wire(le16, default=0)
    supported_hash_types: int = wire(le32, default=0)
    supported_tunnel_types: int = wire(le32, default=0)


class NetHeaderFlags(IntFlag):
    """5.1.6 ``flags`` of a packet's header."""

    NEEDS_CSUM = 1
    DATA_VALID = 2
    RSC_INFO = 4


class NetGso(IntEnum):
    """5.1.6 ``gso_type`` of a packet's header; `GSO_ECN` may be added."""

    NONE = 0
    TCPV4 = 1
    UDP = 3
    TCPV6 = 4
    UDP_L4 = 5


GSO_ECN = 0x80


@structure
class NetHeader(Structure):
    """``virtio_net_hdr``: 12 bytes before each packet, both ways, with or without mergeable buffers (VERSION_1)."""

    flags: NetHeaderFlags = wire(flags(u8, NetHeaderFlags), default=NetHeaderFlags(0))
    gso_type: NetGso | int = wire(code(u8, NetGso), default=NetGso.NONE)
    hdr_len: int = wire(le16, default=0)
    gso_size: int = wire(le16, default=0)
    csum_start: int = wire(le16, default=0)
    csum_offset: int = wire(le16, default=0)
    num_buffers: int = wire(le16, default=0)


class NetCtrlClass(IntEnum):
    """5.1.6.5 Control virtqueue: first byte of a command."""

    RX = 0
    MAC = 1
    VLAN = 2
    ANNOUNCE = 3
    MQ = 4
    GUEST_OFFLOADS = 5
    NOTF_COAL = 6
    HASH_TUNNEL = 7
    STATS = 8


class NetCtrlRx(IntEnum):
    """Commands of `NetCtrlClass.RX`."""

    PROMISC = 0
    ALLMULTI = 1
    ALLUNI = 2
    NOMULTI = 3
    NOUNI = 4
    NOBCAST = 5


class NetCtrlMac(IntEnum):
    """Commands of `NetCtrlClass.MAC`."""

    TABLE_SET = 0
    ADDR_SET = 1


class NetCtrlVlan(IntEnum):
    """Commands of `NetCtrlClass.VLAN`."""

    ADD = 0
    DEL = 1


class NetCtrlAnnounce(IntEnum):
    """Commands of `NetCtrlClass.ANNOUNCE`."""

    ACK = 0


class NetCtrlMq(IntEnum):
    """Commands of `NetCtrlClass.MQ`."""

    VQ_PAIRS_SET = 0
    RSS_CONFIG = 1
    HASH_CONFIG = 2


class NetCtrlAck(IntEnum):
    """The byte that answers a command."""

    OK = 0
    ERR = 1


@structure
class NetCtrlHeader(Structure):
    """``virtio_net_ctrl``: what every command begins with."""

    class_: NetCtrlClass | int = wire(code(u8, NetCtrlClass))
    command: int = wire(u8)
