"""What a disk says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from frontend.commands.blk_copy import block_of
from frontend.commands.running import open_target, run_at
from frontend.drivers.blk import CONFIG_SIZE, BlkDriver
from frontend.probe.config import BLK_NEEDS
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkConfig, BlkFeature

if TYPE_CHECKING:
    from frontend.commands.options import BlkTarget
    from frontend.commands.running import Patience


@dataclass(frozen=True, kw_only=True)
class DiskInfo:
    """What `blk info` tells."""

    socket_path: str
    name: str
    size: int
    block_size: int
    read_only: bool
    queues: int
    memory_slots: int | None
    features: int
    features_in_use: int
    protocol_features: ProtocolFeature
    protocol_features_in_use: ProtocolFeature
    config: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "socket_path": self.socket_path,
            "id": self.name,
            "size": self.size,
            "capacity_sectors": self.size // SECTOR_SIZE,
            "block_size": self.block_size,
            "read_only": self.read_only,
            "queues": self.queues,
            "memory_slots": self.memory_slots,
            "features": _features_json(self.features, self.features_in_use, BlkFeature, VirtioFeature),
            "protocol_features": _features_json(self.protocol_features, self.protocol_features_in_use, ProtocolFeature),
            "config": self.config,
        }


def disk_info(target: BlkTarget) -> DiskInfo:
    """Ask the back-end and the device everything."""

    async def action(_patience: Patience) -> DiskInfo:
        async with open_target(target, BlkDriver, feature_names=BlkFeature) as disk:
            return await _ask(disk, target.socket_path)

    return run_at(target, action)


async def _ask(disk: BlkDriver, socket_path: str) -> DiskInfo:
    link, frontend = disk.link, disk.link.frontend
    in_use = link.protocol_features
    features = await frontend.get_features()
    has_protocol_features = bool(features & VirtioFeature.PROTOCOL_FEATURES)
    return DiskInfo(
        socket_path=socket_path,
        name=await disk.get_id(),
        size=disk.size,
        block_size=block_of(disk),
        read_only=disk.read_only,
        queues=await frontend.get_queue_num() if in_use & ProtocolFeature.MQ else 1,
        memory_slots=await frontend.get_max_mem_slots() if in_use & ProtocolFeature.CONFIGURE_MEM_SLOTS else None,
        features=features,
        features_in_use=link.features,
        protocol_features=await frontend.get_protocol_features() if has_protocol_features else ProtocolFeature(0),
        protocol_features_in_use=in_use,
        config=known_config(disk.config, features),
    )


def known_config(config: BlkConfig, features: int) -> dict[str, int]:
    """The fields that mean something with these features, as far as this driver reads them."""
    fields = ["capacity"]
    for feature, needed in BLK_NEEDS.items():
        if features & feature:
            fields += needed
    return {name: getattr(config, name) for name in fields if BlkConfig.wire_offset(name) < CONFIG_SIZE}


def _features_json(offered: int, in_use: int, *tables: Any) -> dict[str, Any]:
    return {"value": f"{offered:#x}", "offered": names(offered, *tables), "in_use": names(in_use, *tables)}
