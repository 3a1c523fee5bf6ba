"""A backend and a front-end in one process, joined by a real socket, real shared memory and real notifiers."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from frontend.bringup import DeviceLink, Driver, bring_up
from vhostuser.backend import serve_one
from vhostuser.transport import channel_pair
from vhostuser.virtqueue.queue import RING_FEATURES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vhostuser.device import Device


@asynccontextmanager
async def linked(
    device: Device, driver: type[Driver], *, ring_features: Any = RING_FEATURES, **options: Any
) -> AsyncIterator[DeviceLink]:
    """``device`` served with ``ring_features`` (`VirtioFeature`) on offer, and brought up as ``driver`` plans it."""
    ours, theirs = channel_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_one, ring_features=ring_features), device, theirs)
        async with bring_up(ours, driver.plan(**options)) as link:
            yield link
