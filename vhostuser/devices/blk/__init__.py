"""Block device over a raw image file or memory."""

from __future__ import annotations

from vhostuser.devices.blk.device import BlkDevice
from vhostuser.devices.blk.mapped import MappedStorage
from vhostuser.devices.blk.storage import FileStorage, MemoryStorage, NullStorage, Storage

__all__ = ["BlkDevice", "FileStorage", "MappedStorage", "MemoryStorage", "NullStorage", "Storage"]
