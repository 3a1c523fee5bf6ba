"""A device that serves whatever a hostile driver offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.virtqueue.queue import BrokenQueue

if TYPE_CHECKING:
    from vhostuser.testing.rings import BuiltRing


def run_device(ring: BuiltRing) -> None:
    """Serve whatever there is, as a device would: read all, write all."""
    queue = ring.open_device()
    try:
        for _ in range(4):
            queue.disarm()
            chains = queue.pop(8)
            for chain in chains:
                chain.readable.read()
                for view in chain.writable.views():
                    view[: 1 << 10] = b"\xee" * len(view[: 1 << 10])
                chain.writable.wrote(chain.writable.remaining)
            queue.complete(chains)
            queue.arm()
    except BrokenQueue:
        pass
