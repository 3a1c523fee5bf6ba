"""A disk's queues without the GIL: what the compiled loops are told, and what they hand back.

A loop serves reads and writes that are as they should be, where storage is a file, memory, or nothing at all.  Each
other request comes back to the device as a chain, so that every answer but "done" is given in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.devices.blk.counts import Counts
from vhostuser.virtqueue.engine import why_not_native
from vhostuser.virtqueue.ring import UnsupportedRing

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.device import CompiledLoop
    from vhostuser.devices.blk.storage import Storage
    from vhostuser.virtqueue.chain import Chain


class CompiledDisk:
    """The image that all loops of one disk share.

    Args:
        storage: where its bytes are; used for as long as this lives.
        sectors: size of the disk.

    Raises:
        UnsupportedRing: the compiled engine does not run, or ``storage`` is nothing that it can use.
    """

    def __init__(self, storage: Storage, sectors: int) -> None:
        why_not = why_not_native()
        if why_not is not None:
            raise UnsupportedRing(f"the compiled engine does not run here: {why_not}")
        from vhostuser.virtqueue.engine.blk import BlkLoop, Image

        backing = storage.backing()
        if backing is None:
            raise UnsupportedRing(f"{type(storage).__name__} is nothing that a compiled loop can read")
        self._loop = BlkLoop
        self._image = Image(fd=backing.fd, buffer=backing.buffer, null=backing.null, sectors=sectors)

    def loop(self, serve: Callable[[Chain], object]) -> CompiledLoop:
        """A loop for one queue; ``serve`` answers the requests that are not for it."""
        return self._loop(self._image, serve)

    def allow(self, *, sectors: int, writing: bool) -> None:
        """What loops may do by themselves from now on: those that run, too."""
        self._image.set_size(sectors)
        self._image.set_writable(writing)

    @property
    def counts(self) -> Counts:
        """What the loops have done, without what they handed back."""
        return Counts(*self._image.counts)
