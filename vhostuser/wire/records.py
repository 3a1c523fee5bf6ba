"""Records that several messages share ("Message Specification" of the vhost-user document), under their C names.

The document lists fields and never mentions the padding that a C compiler puts behind them.  Peers send it, so
fields called ``trailing`` keep it and give it back as it came.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from construct import Bytes, Int64sn

from vhostuser.wire.schema import (
    Structure,
    array,
    code,
    counted,
    flags,
    pad,
    record,
    rest,
    structure,
    u8,
    u16,
    u32,
    u64,
    wire,
)

MAX_REGIONS = 8
"""SET_MEM_TABLE describes at most eight regions."""
MAX_CONFIG_SIZE = 256
"""What QEMU and libvhost-user cap the device configuration space at."""
MAX_SHMEM_REGIONS = 256


@structure
class U64(Structure):
    """A single 64-bit integer; as an acknowledgement, 0 means success."""

    value: int = wire(u64)


@structure
class Empty(Structure):
    """No payload."""


@structure
class Opaque(Structure):
    """A payload that the document does not describe, or that peers disagree on, kept as it came."""

    raw: bytes = rest(default=b"")


@structure
class VringState(Structure):
    """A ring and a number: its size, its base, whether it is enabled."""

    index: int = wire(u32)
    num: int = wire(u32)


class VringAddrFlags(IntFlag):
    """``VHOST_VRING_F_LOG``: log writes to the used ring."""

    LOG = 1


@structure
class MemoryRegion(Structure):
    """One range of guest memory and where it lies in the file that comes with it (all in bytes)."""

    guest_addr: int = wire(u64)
    size: int = wire(u64)
    user_addr: int = wire(u64)
    mmap_offset: int = wire(u64)


class XenMmapFlags(IntFlag):
    """How a Xen domain's memory is to be mapped."""

    FOREIGN = 1 << 0
    GRANT = 1 << 1
    NO_ADVANCE_MAP = 1 << 8


@structure
class XenMemoryRegion(Structure):
    """A memory region as it looks once XEN_MMAP is negotiated."""

    guest_addr: int = wire(u64)
    size: int = wire(u64)
    user_addr: int = wire(u64)
    mmap_offset: int = wire(u64)
    xen_flags: XenMmapFlags = wire(flags(u32, XenMmapFlags))
    domid: int = wire(u32)


@structure
class MemoryTable(Structure):
    """Multiple memory regions.  QEMU sends only those it has; some send all eight places (264 bytes)."""

    regions: tuple[MemoryRegion, ...] = wire(counted(u32, MemoryRegion, padding=4))
    trailing: bytes = rest(default=b"")


@structure
class XenMemoryTable(Structure):
    """Multiple memory regions, once XEN_MMAP is negotiated."""

    regions: tuple[XenMemoryRegion, ...] = wire(counted(u32, XenMemoryRegion, padding=4))
    trailing: bytes = rest(default=b"")


@structure
class SingleRegion(Structure):
    """A single memory region."""

    _: None = pad(8)
    region: MemoryRegion = wire(record(MemoryRegion))


@structure
class XenSingleRegion(Structure):
    """A single memory region, once XEN_MMAP is negotiated."""

    _: None = pad(8)
    region: XenMemoryRegion = wire(record(XenMemoryRegion))


@structure
class Log(Structure):
    """Where the dirty log lies in its file."""

    size: int = wire(u64)
    offset: int = wire(u64)


class IotlbPermission(IntFlag):
    """Access that an IOTLB entry grants, or that a miss asks for."""

    READ = 1
    WRITE = 2


class IotlbType(IntEnum):
    """What an IOTLB message says."""

    MISS = 1
    UPDATE = 2
    INVALIDATE = 3
    ACCESS_FAIL = 4


@structure
class Iotlb(Structure):
    """One translation: 26 bytes of fields, and 6 of C padding on the wire."""

    iova: int = wire(u64)
    size: int = wire(u64)
    user_addr: int = wire(u64)
    permission: IotlbPermission = wire(flags(u8, IotlbPermission))
    type: IotlbType | int = wire(code(u8, IotlbType))
    trailing: bytes = rest(default=bytes(6))


class ConfigFlags(IntFlag):
    """Why configuration space is written.  The document lists values, 0 and 1; rust-vmm reads bits 1 and 2."""

    LIVE_MIGRATION = 1


@structure
class Config(Structure):
    """A piece of the device configuration space.  ``size`` is what the sender says, ``data`` what it sent."""

    offset: int = wire(u32)
    size: int = wire(u32)
    flags: ConfigFlags = wire(flags(u32, ConfigFlags))
    data: bytes = rest(default=b"")


@structure
class VringArea(Structure):
    """Where a queue's host notifier lies in its file."""

    index_and_flags: int = wire(u64)
    size: int = wire(u64)
    offset: int = wire(u64)


@structure
class Inflight(Structure):
    """The area in which requests in flight are recorded: 20 bytes of fields, 24 on the wire."""

    mmap_size: int = wire(u64)
    mmap_offset: int = wire(u64)
    num_queues: int = wire(u16)
    queue_size: int = wire(u16)
    _: None = pad(4)


UUID = Bytes(16)
"""A shared object's name in RFC 4122 byte order."""


class TransferDirection(IntEnum):
    """Which way device state is moved."""

    SAVE = 0
    LOAD = 1


class TransferPhase(IntEnum):
    """When device state is moved; the document has only one such time."""

    STOPPED = 0


DEVICE_STATE_ERROR = 0xFF
"""Reply to SET_DEVICE_STATE_FD: bits 0-7 are an error number."""
DEVICE_STATE_NO_FD = 0x100
"""Reply to SET_DEVICE_STATE_FD: no descriptor comes with it, use the one that was sent."""


class ShmemFlags(IntFlag):
    """How a range is mapped into a shared memory region; without a bit, read-only."""

    WRITE = 1


@structure
class ShmemMap(Structure):
    """A range of a file and its place in a VIRTIO shared memory region."""

    shmid: int = wire(u8)
    _: None = pad(7)
    fd_offset: int = wire(u64)
    shm_offset: int = wire(u64)
    len: int = wire(u64)
    flags: ShmemFlags = wire(flags(u64, ShmemFlags))


@structure
class ShmemConfig(Structure):
    """Sizes in bytes of all 256 possible shared memory regions; 0 is a region that is not there."""

    num_regions: int = wire(u32)
    _: None = pad(4)
    sizes: tuple[int, ...] = wire(array(MAX_SHMEM_REGIONS, u64))


@structure
class CryptoSession(Structure):
    """A crypto session as QEMU lays it out on 64-bit systems; the document does not describe it.

    ``parameters`` holds C structures with process-local pointers in them: nothing a peer could use.
    """

    op_code: int = wire(u64)
    parameters: bytes = wire(Bytes(1056))
    session_id: int = wire(Int64sn)
