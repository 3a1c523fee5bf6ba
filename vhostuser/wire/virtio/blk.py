"""Block device (virtio 1.3, section 5.2).  A sector is 512 bytes, whatever ``blk_size`` says."""

from __future__ import annotations

from enum import IntEnum, IntFlag

from vhostuser.wire.schema import Structure, code, flags, le16, le32, le64, pad, structure, u8, wire

SECTOR_SIZE = 512
ID_SIZE = 20
"""5.2.6: GET_ID writes this many bytes, padded with NUL; all 20 may be used, so there may be no NUL."""


class BlkFeature(IntFlag):
    """5.2.3 Feature bits."""

    BARRIER = 1 << 0
    SIZE_MAX = 1 << 1
    SEG_MAX = 1 << 2
    GEOMETRY = 1 << 4
    RO = 1 << 5
    BLK_SIZE = 1 << 6
    SCSI = 1 << 7
    FLUSH = 1 << 9
    TOPOLOGY = 1 << 10
    CONFIG_WCE = 1 << 11
    MQ = 1 << 12
    DISCARD = 1 << 13
    WRITE_ZEROES = 1 << 14
    LIFETIME = 1 << 15
    SECURE_ERASE = 1 << 16
    ZONED = 1 << 17


@structure
class BlkConfig(Structure):
    """5.2.4 Device configuration layout.  Which fields mean something depends on the features."""

    capacity: int = wire(le64)
    size_max: int = wire(le32, default=0)
    seg_max: int = wire(le32, default=0)
    cylinders: int = wire(le16, default=0)
    heads: int = wire(u8, default=0)
    sectors: int = wire(u8, default=0)
    blk_size: int = wire(le32, default=0)
    physical_block_exp: int = wire(u8, default=0)
    alignment_offset: int = wire(u8, default=0)
    min_io_size: int = wire(le16, default=0)
    opt_io_size: int = wire(le32, default=0)
    writeback: int = wire(u8, default=0)
    _unused0: None = pad(1)
    num_queues: int = wire(le16, default=0)
    max_discard_sectors: int = wire(le32, default=0)
    max_discard_seg: int = wire(le32, default=0)
    discard_sector_alignment: int = wire(le32, default=0)
    max_write_zeroes_sectors: int = wire(le32, default=0)
    max_write_zeroes_seg: int = wire(le32, default=0)
    write_zeroes_may_unmap: int = wire(u8, default=0)
    _unused1: None = pad(3)
    max_secure_erase_sectors: int = wire(le32, default=0)
    max_secure_erase_seg: int = wire(le32, default=0)
    secure_erase_sector_alignment: int = wire(le32, default=0)
    zone_sectors: int = wire(le32, default=0)
    max_open_zones: int = wire(le32, default=0)
    max_active_zones: int = wire(le32, default=0)
    max_append_sectors: int = wire(le32, default=0)
    write_granularity: int = wire(le32, default=0)
    model: int = wire(u8, default=0)
    _unused2: None = pad(3)


class BlkType(IntEnum):
    """5.2.6 Device operation: what a request asks for.  Those with SCSI in their name and FLUSH_OUT are legacy."""

    IN = 0
    OUT = 1
    SCSI_CMD = 2
    SCSI_CMD_OUT = 3
    FLUSH = 4
    FLUSH_OUT = 5
    GET_ID = 8
    GET_LIFETIME = 10
    DISCARD = 11
    WRITE_ZEROES = 13
    SECURE_ERASE = 14
    ZONE_APPEND = 15
    ZONE_REPORT = 16
    ZONE_OPEN = 18
    ZONE_CLOSE = 20
    ZONE_FINISH = 22
    ZONE_RESET = 24
    ZONE_RESET_ALL = 26


class BlkStatus(IntEnum):
    """The last byte that the device writes; from 3 on, zoned devices only."""

    OK = 0
    IOERR = 1
    UNSUPP = 2
    ZONE_INVALID_CMD = 3
    ZONE_UNALIGNED_WP = 4
    ZONE_OPEN_RESOURCE = 5
    ZONE_ACTIVE_RESOURCE = 6


@structure
class BlkHeader(Structure):
    """``virtio_blk_outhdr``: the first 16 bytes that the device reads."""

    type: BlkType | int = wire(code(le32, BlkType))
    reserved: int = wire(le32)
    sector: int = wire(le64)


class BlkRangeFlags(IntFlag):
    """Flags of a discard or write-zeroes range."""

    UNMAP = 1


@structure
class BlkRange(Structure):
    """``virtio_blk_discard_write_zeroes``: one range of sectors."""

    sector: int = wire(le64)
    num_sectors: int = wire(le32)
    flags: BlkRangeFlags = wire(flags(le32, BlkRangeFlags))
