"""Which feature bits each device type has, and the names of a whole feature word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.wire.features import VirtioFeature, names
from vhostuser.wire.virtio.blk import BlkFeature
from vhostuser.wire.virtio.console import ConsoleFeature
from vhostuser.wire.virtio.fs import FsFeature
from vhostuser.wire.virtio.gpu import GpuFeature
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetFeature
from vhostuser.wire.virtio.scsi import ScsiFeature
from vhostuser.wire.virtio.vsock import VsockFeature

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import IntFlag

DEVICE_FEATURES: Mapping[int, type[IntFlag]] = {
    DeviceType.NET: NetFeature,
    DeviceType.BLOCK: BlkFeature,
    DeviceType.CONSOLE: ConsoleFeature,
    DeviceType.SCSI: ScsiFeature,
    DeviceType.GPU: GpuFeature,
    DeviceType.VSOCK: VsockFeature,
    DeviceType.FS: FsFeature,
}
"""Device types that have feature bits of their own and are described here."""


def describe(features: int, device_type: int | None = None) -> list[str]:
    """The names of the bits set in ``features``, lowest first.

    Args:
        features: what GET_FEATURES or SET_FEATURES carries.
        device_type: whose device-specific bits they are; one that is unknown, or None, leaves those nameless.

    Returns:
        Names without their ``VIRTIO_`` prefixes, or ``bit N``.
    """
    table = DEVICE_FEATURES.get(device_type) if device_type is not None else None
    return names(features, *([table] if table else []), VirtioFeature)
