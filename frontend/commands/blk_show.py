"""`DiskInfo` as tables, for a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from frontend.commands.printing import Printer
from vhostuser.memory.sizes import format_size
from vhostuser.wire.features import PROTOCOL_MEANINGS, VIRTIO_MEANINGS, ProtocolFeature, VirtioFeature, names
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkFeature

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import IntFlag

    from frontend.commands.blk_info import DiskInfo

BLK_MEANINGS: dict[BlkFeature, str] = {
    BlkFeature.BARRIER: "legacy: request barriers",
    BlkFeature.SIZE_MAX: "a segment has a largest size",
    BlkFeature.SEG_MAX: "a request has a largest number of segments",
    BlkFeature.GEOMETRY: "cylinders, heads and sectors, for old systems",
    BlkFeature.RO: "the disk is read-only",
    BlkFeature.BLK_SIZE: "the disk tells the size of its blocks",
    BlkFeature.SCSI: "legacy: SCSI commands pass through",
    BlkFeature.FLUSH: "what was written is made durable on command",
    BlkFeature.TOPOLOGY: "the disk tells which sizes suit it best",
    BlkFeature.CONFIG_WCE: "its write cache can be switched on and off",
    BlkFeature.MQ: "there may be several request queues",
    BlkFeature.DISCARD: "sectors can be given up",
    BlkFeature.WRITE_ZEROES: "sectors can be zeroed without sending zeroes",
    BlkFeature.LIFETIME: "the disk tells how worn it is",
    BlkFeature.SECURE_ERASE: "sectors can be erased for good",
    BlkFeature.ZONED: "there are zones that are written in order",
}


def show(info: DiskInfo) -> None:
    """Print all of it to stdout."""
    printer = Printer()
    printer.print(_facts(info))
    meanings: dict[Any, str] = {**BLK_MEANINGS, **VIRTIO_MEANINGS}
    offered, in_use = info.protocol_features, info.protocol_features_in_use
    for table in (
        _features("feature", info.features, info.features_in_use, meanings, BlkFeature, VirtioFeature),
        _features("protocol feature", offered, in_use, PROTOCOL_MEANINGS, ProtocolFeature),
        _config(info.config),
    ):
        printer.print()
        printer.print(table)


def _facts(info: DiskInfo) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    sectors = f"{info.size // SECTOR_SIZE} sectors of {SECTOR_SIZE} bytes"
    for name, value in {
        "socket": info.socket_path,
        "id": info.name or "none",
        "size": f"{format_size(info.size)}, {sectors}" if info.size else "0",
        "block size": str(info.block_size),
        "access": "read only" if info.read_only else "read and write",
        "queues": str(info.queues),
        "memory slots": "not told" if info.memory_slots is None else str(info.memory_slots),
    }.items():
        table.add_row(name, value)
    return table


def _features(title: str, offered: int, in_use: int, meanings: Mapping[Any, str], *tables: type[IntFlag]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column(title, no_wrap=True)
    table.add_column("in use")
    table.add_column("meaning")
    masks = [1 << bit for bit in range(offered.bit_length()) if offered & (1 << bit)]
    for mask, name in zip(masks, names(offered, *tables), strict=True):
        table.add_row(name, "yes" if mask & in_use else "-", meanings.get(mask, "unknown"))
    return table


def _config(config: Mapping[str, int]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    table.add_column("configuration space", no_wrap=True)
    table.add_column("value", justify="right")
    for name, value in config.items():
        table.add_row(name, str(value))
    return table
