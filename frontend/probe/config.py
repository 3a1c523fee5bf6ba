"""Configuration spaces by device type: which bytes to ask for, and what they mean.

A back-end is asked for the bytes that its own features say are there, and for no more: some answer a question about
more than they have with an error, and whoever wrote them has hardly tried it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Any

from vhostuser.wire.features import names
from vhostuser.wire.parts import parts
from vhostuser.wire.virtio.blk import BlkConfig, BlkFeature
from vhostuser.wire.virtio.console import ConsoleConfig, ConsoleFeature
from vhostuser.wire.virtio.fs import FsConfig, FsFeature
from vhostuser.wire.virtio.gpu import GpuConfig
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.input import InputConfig
from vhostuser.wire.virtio.net import NetConfig, NetFeature
from vhostuser.wire.virtio.scsi import ScsiConfig
from vhostuser.wire.virtio.vsock import VsockConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vhostuser.wire.schema import Structure

MOST = 256
"""Bytes of configuration space that all known back-ends can be asked for ("VHOST_USER_MAX_CONFIG_SIZE")."""
UNKNOWN_SIZES = (40, 16, 8, 4)
"""Bytes to ask a device of unknown type for, until it gives some; 40 and 8 are those of fs and vsock."""

BLK_NEEDS: Mapping[int, tuple[str, ...]] = {
    BlkFeature.SIZE_MAX: ("size_max",),
    BlkFeature.SEG_MAX: ("seg_max",),
    BlkFeature.GEOMETRY: ("cylinders", "heads", "sectors"),
    BlkFeature.BLK_SIZE: ("blk_size",),
    BlkFeature.TOPOLOGY: ("physical_block_exp", "alignment_offset", "min_io_size", "opt_io_size"),
    BlkFeature.CONFIG_WCE: ("writeback",),
    BlkFeature.MQ: ("num_queues",),
    BlkFeature.DISCARD: ("max_discard_sectors", "max_discard_seg", "discard_sector_alignment"),
    BlkFeature.WRITE_ZEROES: ("max_write_zeroes_sectors", "max_write_zeroes_seg", "write_zeroes_may_unmap"),
    BlkFeature.SECURE_ERASE: ("max_secure_erase_sectors", "max_secure_erase_seg", "secure_erase_sector_alignment"),
    BlkFeature.ZONED: (
        "zone_sectors",
        "max_open_zones",
        "max_active_zones",
        "max_append_sectors",
        "write_granularity",
        "model",
    ),
}
"""Which fields of a disk's configuration space mean something, by feature (5.2.4)."""
NET_NEEDS: Mapping[int, tuple[str, ...]] = {
    NetFeature.MAC: ("mac",),
    NetFeature.STATUS: ("status",),
    NetFeature.MQ | NetFeature.RSS: ("max_virtqueue_pairs",),
    NetFeature.MTU: ("mtu",),
    NetFeature.SPEED_DUPLEX: ("speed", "duplex"),
    NetFeature.RSS | NetFeature.HASH_REPORT: ("supported_hash_types",),
    NetFeature.RSS: ("rss_max_key_size", "rss_max_indirection_table_length"),
    NetFeature.HASH_TUNNEL: ("supported_tunnel_types",),
}
"""The same of a network device: any of several bits will do (5.1.4)."""
CONSOLE_NEEDS: Mapping[int, tuple[str, ...]] = {
    ConsoleFeature.SIZE: ("cols", "rows"),
    ConsoleFeature.MULTIPORT: ("max_nr_ports",),
    ConsoleFeature.EMERG_WRITE: ("emerg_wr",),
}


@dataclass(frozen=True)
class Space:
    """The configuration space of one device type.

    Attributes:
        layout: its fields.
        needs: fields by the features that make them mean something.
        always: those that need none.
    """

    layout: type[Structure]
    needs: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    always: tuple[str, ...] = ()

    def meaningful(self, features: int) -> list[str]:
        """Names of the fields that are there with ``features``, in the order of the layout."""
        there = {name for mask, needed in self.needs.items() if features & mask for name in needed}
        return [name for name in self.layout.__match_args__ if name in there or name in self.always]


SPACES: Mapping[int, Space] = {
    DeviceType.NET: Space(NetConfig, NET_NEEDS),
    DeviceType.BLOCK: Space(BlkConfig, BLK_NEEDS, ("capacity",)),
    DeviceType.CONSOLE: Space(ConsoleConfig, CONSOLE_NEEDS),
    DeviceType.SCSI: Space(ScsiConfig, {}, ScsiConfig.__match_args__),
    DeviceType.GPU: Space(GpuConfig, {}, GpuConfig.__match_args__),
    DeviceType.INPUT: Space(InputConfig, {}, InputConfig.__match_args__),
    DeviceType.VSOCK: Space(VsockConfig, {}, VsockConfig.__match_args__),
    DeviceType.FS: Space(FsConfig, {FsFeature.NOTIFICATION: ("notify_buf_size",)}, ("tag", "num_request_queues")),
}
"""Device types whose configuration space is described here."""
WITHOUT = frozenset({DeviceType.RNG})
"""Device types that have none."""


def sizes_to_ask(device_type: int | None, features: int) -> Iterator[int]:
    """Bytes to ask for, until the back-end gives some: first all that should be there, then less."""
    space = SPACES.get(device_type) if device_type is not None else None
    if space is not None:
        fields = set(space.meaningful(features))
        # Whole words, as the C structures are: what pads the last field belongs to it.
        ends = {-(-end // 4) * 4 for name, end in field_ends(space.layout) if name in fields}
        yield from sorted(ends, reverse=True)
    elif device_type not in WITHOUT:
        yield from UNKNOWN_SIZES


def decode(device_type: int | None, features: int, data: bytes) -> dict[str, Any]:
    """The fields in ``data`` that mean something, as JSON has it; none for a type that is not described here."""
    space = SPACES.get(device_type) if device_type is not None else None
    if space is None:
        return {}
    size = space.layout.wire_size()
    record = space.layout.parse(data[:size].ljust(size, b"\0"))
    whole = {name for name, end in field_ends(space.layout) if end <= len(data)}
    return {name: _plain(name, getattr(record, name)) for name in space.meaningful(features) if name in whole}


def field_ends(layout: type[Structure]) -> Iterator[tuple[str, int]]:
    """The name of each field, and how many bytes of the structure one needs to have all of it."""
    for part in parts(layout):
        if part.name is not None:
            yield part.name, (part.offset or 0) + (part.size or 0)


def _plain(name: str, value: object) -> Any:
    match value:
        case bytes() if name == "mac":
            return value.hex(":")
        case bytes() if name == "tag":
            return value.rstrip(b"\0").decode(errors="backslashreplace")
        case bytes():
            return value.hex()
        case IntFlag():
            return " ".join(names(int(value), type(value)))
        case IntEnum():
            return value.name
    return value
