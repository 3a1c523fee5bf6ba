"""Who drives a ring: the class for an engine, a format and a side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vhostuser.virtqueue.packed_device import PackedDevice
from vhostuser.virtqueue.packed_driver import PackedDriver
from vhostuser.virtqueue.split_device import SplitDevice
from vhostuser.virtqueue.split_driver import SplitDriver

if TYPE_CHECKING:
    from vhostuser.virtqueue.engine import Engine
    from vhostuser.virtqueue.engine.device import NativeDevice
    from vhostuser.virtqueue.engine.driver import NativeDriver

# The compiled modules are imported where they are wanted: they may not be there.


def device_class(engine: Engine, *, packed: bool) -> type[PackedDevice | SplitDevice | NativeDevice]:
    """The device's side of a ring."""
    if engine == "native":
        from vhostuser.virtqueue.engine.device import NativePackedDevice, NativeSplitDevice

        return NativePackedDevice if packed else NativeSplitDevice
    return PackedDevice if packed else SplitDevice


def driver_class(engine: Engine, *, packed: bool) -> type[PackedDriver[Any] | SplitDriver[Any] | NativeDriver]:
    """The driver's side of a ring."""
    if engine == "native":
        from vhostuser.virtqueue.engine.driver import NativePackedDriver, NativeSplitDriver

        return NativePackedDriver if packed else NativeSplitDriver
    return PackedDriver if packed else SplitDriver
