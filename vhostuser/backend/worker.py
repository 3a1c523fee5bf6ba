"""Who serves a ring: what all three ways have in common (`vhostuser.device.Serving` says which there are).

A worker lives from a start of its ring to the next stop, and has the ring's queue to itself meanwhile: a queue is not
for two threads.  When it has ended the ring is drained, so `base` is the whole truth, and the next worker goes on
exactly there.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vhostuser.memory.map import MappingError
from vhostuser.virtqueue.queue import BrokenQueue, open_device_queue

if TYPE_CHECKING:
    from vhostuser.backend.ends import Ends
    from vhostuser.device import Device
    from vhostuser.memory.map import GuestMemory
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.queue import DeviceQueue, RingLayout

log = logging.getLogger("vhostuser.backend")

BATCH = 16
"""Chains taken at a time: given back in groups of this size, they keep driver and device working side by side.

With all of 32 requests in one group each side sleeps while the other works: 51 k requests/s against 89 k in the same
run, on two cores.  At 8 the rate is no better, and the driver needs 11 µs of CPU a request instead of 10.  It also
keeps a driver that never stops from starving the other rings.
"""
POLL_INTERVAL = 0.001
"""Seconds between two looks at a ring whose front-end gave no kick descriptor."""


@dataclass(frozen=True)
class Job:
    """One run of a ring.

    Attributes:
        index: number of the ring.
        device: who serves its chains.
        ends: its notifiers; they belong to the ring.
        layout: its parts.
        memory: where its chains lead.
        features: what was negotiated.
        base: where it stands.
    """

    index: int
    device: Device
    ends: Ends
    layout: RingLayout
    memory: GuestMemory
    features: int
    base: int


class Worker(ABC):
    """Serves one ring from a start to a stop.

    Raises:
        UnsupportedRing: at once, if the ring cannot be served.
    """

    stops_for_changes: ClassVar[bool] = True
    """Memory, addresses and notifiers can only change while it is stopped."""

    def __init__(self, job: Job) -> None:
        self._index, self._device, self._ends, self._memory = job.index, job.device, job.ends, job.memory
        self._queue = self._open(job)
        self.stopping = False
        """No more chains are taken: somebody said so, or the ring is broken."""

    def _open(self, job: Job) -> DeviceQueue:
        return open_device_queue(job.layout, job.memory, job.features, base=job.base, queue_index=job.index)

    @property
    def base(self) -> int:
        """Where the ring stands."""
        return self._queue.base

    @abstractmethod
    async def run(self) -> None:
        """Serve until `stop`, until the ring breaks, or until cancelled; then nothing is in flight any more."""

    def stop(self) -> None:
        """Take no more chains; `run` returns when those that were taken are done."""
        self.stopping = True
        self.wake()

    @abstractmethod
    def wake(self) -> None:
        """Something changed: look again instead of sleeping."""

    def rebind(self, layout: RingLayout, memory: GuestMemory) -> None:
        """Go on in other memory, as `DeviceQueue.rebind`; only for those that do not stop for changes."""
        self._queue.rebind(layout, memory)
        self._memory = memory

    # --- for workers that hand chains to a device in Python ---

    def _take(self) -> list[Chain]:
        try:
            chains = self._queue.pop(BATCH)
            # Afterwards, since this look may have been the one that found the hole.
            check_memory(self._memory)
        except (BrokenQueue, MappingError) as error:
            self.broken(error)
            return []
        if chains:
            self._queue.disarm()
        return chains

    def done(self, *chains: Chain) -> None:
        """See `vhostuser.device.ChainSource.done`."""
        if chains and self._queue.complete(chains):
            self._ends.notify()

    def broken(self, error: Exception) -> None:
        """Nothing in this ring can be trusted any more: take no more chains, tell who wants to know."""
        self.stopping = True
        log.error("ring %d is broken: %s", self._index, str(error))
        self._report()

    def _report(self) -> None:
        self._ends.report()


def check_memory(memory: GuestMemory) -> None:
    """Raises `MappingError` when the front-end took back memory that is mapped here."""
    if memory.damaged:
        raise MappingError("the front-end cut a memory file short while it was mapped here")
