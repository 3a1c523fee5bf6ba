"""Which type of device is this?  Nothing in the protocol tells; a front-end has to know, and a stranger to guess.

Feature bits mean something else for every type, so the same bits speak for some types more than for others.  Only
what speaks loudly is taken: no guess at all is better than a wrong one, and `--type` is there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.probe.report import TypeGuess
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.virtio.blk import BlkFeature
from vhostuser.wire.virtio.fs import TAG_SIZE, FsConfig
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetFeature
from vhostuser.wire.virtio.vsock import RESERVED_CIDS

if TYPE_CHECKING:
    from frontend.probe.report import Report

DEVICE_BITS = (1 << 24) - 1 | ((1 << 64) - (1 << 50))
"""0 to 23 and 50 to 63: what they mean depends on the type (virtio 1.3, 2.2)."""
NET_ONLY = NetFeature.MRG_RXBUF | NetFeature.CTRL_VQ | NetFeature.CTRL_RX | NetFeature.MQ | NetFeature.CTRL_MAC_ADDR
"""Bits that are nothing to any other type, or nothing that anybody offers."""
BLK_OFTEN = BlkFeature.SEG_MAX | BlkFeature.BLK_SIZE | BlkFeature.FLUSH | BlkFeature.TOPOLOGY | BlkFeature.MQ
"""Nearly every disk has several of these; to other types they are legacy bits or none."""


def guess(report: Report) -> TypeGuess:
    """The type as far as features and queues tell it."""
    bits = (report.features or 0) & DEVICE_BITS
    if report.has(ProtocolFeature.CRYPTO_SESSION):
        return TypeGuess(DeviceType.CRYPTO, "protocol feature CRYPTO_SESSION")
    if report.has(ProtocolFeature.RARP | ProtocolFeature.MTU):
        return TypeGuess(DeviceType.NET, "protocol feature RARP or MTU")
    if bits & NET_ONLY:
        return TypeGuess(DeviceType.NET, "feature bits that only network devices have")
    if (bits & BLK_OFTEN).bit_count() >= 2 and report.has(ProtocolFeature.CONFIG):
        return TypeGuess(DeviceType.BLOCK, "feature bits that disks have")
    return TypeGuess(None)


def guess_from_config(report: Report) -> TypeGuess:
    """The type as far as the first bytes of configuration space, or their absence, tell it."""
    config, queues = report.config or b"", report.queues
    if (report.features or 0) & DEVICE_BITS:
        return _socket(config)
    if len(config) >= FsConfig.wire_offset("notify_buf_size") and _is_file_system(config, queues):
        return TypeGuess(DeviceType.FS, "a tag and a number of queues in the configuration space")
    if (found := _socket(config)).type is not None:
        return found
    if any(config) or not report.features:
        return TypeGuess(None)
    if queues == 1:
        return TypeGuess(DeviceType.RNG, "one queue, no features and no configuration of its own")
    if queues is not None and queues > 1 and not report.has(ProtocolFeature.CONFIG):
        return TypeGuess(DeviceType.FS, "several queues, no features and no configuration of its own")
    return TypeGuess(None)


def _is_file_system(config: bytes, queues: int | None) -> bool:
    tag, padding = config[:TAG_SIZE].partition(b"\0")[::2]
    number = int.from_bytes(config[TAG_SIZE : TAG_SIZE + 4], "little")
    printable = tag.decode("utf-8", errors="replace").isprintable()
    return bool(tag) and printable and not any(padding) and 0 < number < (queues or 1 << 16)


def _socket(config: bytes) -> TypeGuess:
    cid = int.from_bytes(config[:8], "little")
    if len(config) >= 8 and not any(config[8:]) and cid not in RESERVED_CIDS and 2 < cid < 1 << 32:
        return TypeGuess(DeviceType.VSOCK, "a CID in the configuration space")
    return TypeGuess(None)
