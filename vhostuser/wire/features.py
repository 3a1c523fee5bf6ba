"""Feature bits: virtio (those of transport and rings, device types have their own) and vhost-user protocol features.

Members are masks, never bit numbers: testing ``features & 30`` where bit 30 was meant is a bug that real back-ends
have had.
"""

from __future__ import annotations

from enum import IntFlag

ALL_64 = (1 << 64) - 1


class VirtioFeature(IntFlag):
    """Bits of GET_FEATURES / SET_FEATURES that mean the same for every device type.

    virtio 1.3, chapter 6, and three that only vhost knows: LOG_ALL, PROTOCOL_FEATURES (bit 30 was reserved in
    legacy virtio, so no driver can negotiate it) and the legacy NOTIFY_ON_EMPTY.
    """

    NOTIFY_ON_EMPTY = 1 << 24
    LOG_ALL = 1 << 26
    ANY_LAYOUT = 1 << 27
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    PROTOCOL_FEATURES = 1 << 30
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35
    ORDER_PLATFORM = 1 << 36
    SR_IOV = 1 << 37
    NOTIFICATION_DATA = 1 << 38
    NOTIF_CONFIG_DATA = 1 << 39
    RING_RESET = 1 << 40
    ADMIN_VQ = 1 << 41
    SUSPEND = 1 << 43


class ProtocolFeature(IntFlag):
    """Bits of GET_PROTOCOL_FEATURES / SET_PROTOCOL_FEATURES ("Protocol features"), all 23 of them."""

    MQ = 1 << 0
    LOG_SHMFD = 1 << 1
    RARP = 1 << 2
    REPLY_ACK = 1 << 3
    MTU = 1 << 4
    BACKEND_REQ = 1 << 5
    CROSS_ENDIAN = 1 << 6
    CRYPTO_SESSION = 1 << 7
    PAGEFAULT = 1 << 8
    CONFIG = 1 << 9
    BACKEND_SEND_FD = 1 << 10
    HOST_NOTIFIER = 1 << 11
    INFLIGHT_SHMFD = 1 << 12
    RESET_DEVICE = 1 << 13
    INBAND_NOTIFICATIONS = 1 << 14
    CONFIGURE_MEM_SLOTS = 1 << 15
    STATUS = 1 << 16
    XEN_MMAP = 1 << 17
    SHARED_OBJECT = 1 << 18
    DEVICE_STATE = 1 << 19
    GET_VRING_BASE_INFLIGHT = 1 << 20
    GPA_ADDRESSES = 1 << 21
    SHMEM = 1 << 22
    """Called SHMEM_MAP in the document's list of bits and SHMEM everywhere else in it."""


PREREQUISITES: dict[ProtocolFeature, ProtocolFeature] = {
    ProtocolFeature.INBAND_NOTIFICATIONS: ProtocolFeature.BACKEND_REQ | ProtocolFeature.REPLY_ACK,
    ProtocolFeature.GET_VRING_BASE_INFLIGHT: ProtocolFeature.INFLIGHT_SHMFD,
}
"""What the document says one bit cannot be negotiated without."""


PROTOCOL_MEANINGS: dict[ProtocolFeature, str] = {
    ProtocolFeature.MQ: "the back-end says how many queues it supports",
    ProtocolFeature.LOG_SHMFD: "the dirty log comes as a descriptor with SET_LOG_BASE, which is then replied to",
    ProtocolFeature.RARP: "the back-end can announce a network interface after a migration",
    ProtocolFeature.REPLY_ACK: "a sender may ask for an acknowledgement: need_reply",
    ProtocolFeature.MTU: "the front-end tells the MTU; also written NET_MTU",
    ProtocolFeature.BACKEND_REQ: "the back-end gets a channel for requests of its own",
    ProtocolFeature.CROSS_ENDIAN: "rings of legacy devices in the other byte order",
    ProtocolFeature.CRYPTO_SESSION: "sessions of crypto devices are made by messages",
    ProtocolFeature.PAGEFAULT: "postcopy migration: the back-end shares a userfaultfd",
    ProtocolFeature.CONFIG: "configuration space is read and written by messages",
    ProtocolFeature.BACKEND_SEND_FD: "descriptors may travel on the back-end channel, at most 8 with one message",
    ProtocolFeature.HOST_NOTIFIER: "a queue's notification page may be mapped into the guest",
    ProtocolFeature.INFLIGHT_SHMFD: "requests in flight are recorded in memory that outlives the back-end",
    ProtocolFeature.RESET_DEVICE: "a device reset is told to the back-end",
    ProtocolFeature.INBAND_NOTIFICATIONS: "kicks, calls and errors may be messages; meant for simulation",
    ProtocolFeature.CONFIGURE_MEM_SLOTS: "memory regions come and go one by one",
    ProtocolFeature.STATUS: "the VIRTIO device status is told and asked for",
    ProtocolFeature.XEN_MMAP: "each memory region says how a Xen domain's memory is mapped: 8 more bytes",
    ProtocolFeature.SHARED_OBJECT: "back-ends export objects to each other, by UUID",
    ProtocolFeature.DEVICE_STATE: "a device's inner state can be saved and loaded through a descriptor",
    ProtocolFeature.GET_VRING_BASE_INFLIGHT: "GET_VRING_BASE may suspend requests and record them, not drain them",
    ProtocolFeature.GPA_ADDRESSES: "front-end messages carry guest addresses where they had user addresses",
    ProtocolFeature.SHMEM: "the back-end maps files into VIRTIO shared memory regions",
}

VIRTIO_MEANINGS: dict[VirtioFeature, str] = {
    VirtioFeature.NOTIFY_ON_EMPTY: "legacy: notify the driver whenever the available ring runs dry",
    VirtioFeature.LOG_ALL: "vhost only: log all writes to guest memory; negotiated while a migration runs",
    VirtioFeature.ANY_LAYOUT: "legacy: descriptors may split a request anywhere",
    VirtioFeature.INDIRECT_DESC: "a descriptor may refer to a table of descriptors",
    VirtioFeature.EVENT_IDX: "each side says at which entry it wants the next notification",
    VirtioFeature.PROTOCOL_FEATURES: "vhost-user only: there are protocol features",
    VirtioFeature.VERSION_1: "virtio 1.0 or later: everything little-endian",
    VirtioFeature.ACCESS_PLATFORM: "addresses are IOVAs, translated by IOTLB messages; also called IOMMU_PLATFORM",
    VirtioFeature.RING_PACKED: "packed virtqueues",
    VirtioFeature.IN_ORDER: "buffers are used in the order in which they were made available",
    VirtioFeature.ORDER_PLATFORM: "memory accesses are ordered as for a device outside the CPUs",
    VirtioFeature.SR_IOV: "PCI: single root I/O virtualization",
    VirtioFeature.NOTIFICATION_DATA: "notifications carry the queue's position",
    VirtioFeature.NOTIF_CONFIG_DATA: "notifications carry a value that the device chose",
    VirtioFeature.RING_RESET: "one queue can be reset by itself",
    VirtioFeature.ADMIN_VQ: "administration virtqueues",
    VirtioFeature.SUSPEND: "virtio 1.4: the driver can suspend the device",
}


def names(value: int, *tables: type[IntFlag]) -> list[str]:
    """The names of the bits set in ``value``, lowest first; a bit that no table knows is called ``bit N``."""
    value = int(value)  # an operator of IntFlag costs 0.5 µs
    return [_name(1 << bit, bit, tables) for bit in range(value.bit_length()) if value & (1 << bit)]


def _name(mask: int, bit: int, tables: tuple[type[IntFlag], ...]) -> str:
    for table in tables:
        for member in table:
            if member.value == mask and member.name:
                return member.name
    return f"bit {bit}"
