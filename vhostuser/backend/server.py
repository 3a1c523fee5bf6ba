"""A device at a socket: one front-end after the other."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING

import trio

from vhostuser.backend.connection import Backend
from vhostuser.errors import RemoteProtocolError
from vhostuser.virtqueue.queue import RING_FEATURES

if TYPE_CHECKING:
    from typing import NoReturn

    from vhostuser.device import Device
    from vhostuser.transport.channel import Channel
    from vhostuser.transport.unix import Listener
    from vhostuser.wire.features import VirtioFeature

log = logging.getLogger("vhostuser.backend")


async def serve(device: Device, listener: Listener, *, ring_features: VirtioFeature = RING_FEATURES) -> NoReturn:
    """Serve ``device`` to whoever connects, one front-end at a time; further ones wait to be accepted.

    The device keeps its state from one front-end to the next.  A front-end that breaks the protocol or vanishes
    costs its own connection and nothing else.

    Args:
        device: what to serve.
        listener: where front-ends connect.
        ring_features: ring features to offer; add RING_PACKED to offer packed rings as well.
    """
    while True:
        await serve_one(device, await listener.accept(), ring_features=ring_features)


async def serve_one(device: Device, channel: Channel, *, ring_features: VirtioFeature = RING_FEATURES) -> None:
    """Serve ``device`` to the front-end at the other end of ``channel``, until it hangs up; closes ``channel``."""
    backend = Backend(device, ring_features=ring_features)
    async with channel:
        log.info("front-end connected")
        try:
            await backend.run(channel)
        except* RemoteProtocolError as group:
            for error in group.exceptions:
                log.error("closing the connection: %s", str(error))
        except* trio.BrokenResourceError as group:
            log.warning("connection lost: %s", group.exceptions[0])
        if backend.interrupted:
            # The tracebacks of tasks that were cancelled form cycles, with chains in them, and chains keep guest memory
            # mapped: until the collector comes, which in an idle process is never.
            gc.collect()
        log.info("front-end gone")
