"""What a device implements, independent of how it is served.

A device never sees a vhost-user message, a descriptor of the protocol, or guest memory as such: it gets chains, reads
requests from them, writes answers into them, and gives them back.  How much it wrote is counted by the chain's
writer, so a device cannot report a used length that is not true.

Stopping is the natural end of a loop.  A ring that is told to stop ends the iteration over its chains; the device
finishes what it has taken and returns; then the ring is drained, and its position can be handed over.
"""

from __future__ import annotations

import logging
import traceback
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

import trio

from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.virtio.ids import DeviceType

log = logging.getLogger("vhostuser.device")


class ConfigError(VhostUserError):
    """The driver asked for configuration space that is not there, or may not be written."""


class ChainSource(Protocol):
    """What a running ring lends a device: chains to work on, in batches, until the ring is stopped."""

    def __aiter__(self) -> AsyncIterator[list[Chain]]:
        """Batches of at least one chain each; waits for the driver between them, ends when the ring stops."""

    def done(self, *chains: Chain) -> None:
        """Give chains back to the driver, in this order, and notify it once if it wants to know."""


class Signal:
    """Something happened; many happenings before anyone looks are one."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def set(self) -> None:
        """It happened."""
        self._event.set()

    async def wait(self) -> None:
        """Return once it has happened since the last return."""
        await self._event.wait()
        self._event = trio.Event()


class Device(ABC):
    """A virtio device.

    Subclasses set `type`, pass their feature bits and number of queues up, and implement `process`.
    Ring and transport feature bits are added by whoever serves the device.

    Args:
        features: device-specific feature bits on offer.
        num_queues: number of virtqueues.

    Attributes:
        poll_seconds: how long a ring that is empty is watched before its task sleeps; 0 sleeps at once.  Nothing else
            runs meanwhile, so 50 µs are reasonable and a millisecond is not.
    """

    type: ClassVar[DeviceType]
    poll_seconds: float = 0.0

    def __init__(self, *, features: int = 0, num_queues: int = 1) -> None:
        self.features = features
        self.num_queues = num_queues
        self.config_changed = Signal()

    @property
    def config(self) -> bytes:
        """The whole configuration space; empty when this device has none."""
        return b""

    def read_config(self, offset: int, size: int) -> bytes:
        """``size`` bytes of configuration space; what lies behind its end reads as zero (as drivers expect)."""
        return self.config[offset : offset + size].ljust(size, b"\0")

    def write_config(self, offset: int, data: bytes) -> None:
        """The driver writes configuration space.

        Raises:
            ConfigError: nothing here is writable, unless a subclass says otherwise.
        """
        raise ConfigError(f"{type(self).__name__}: configuration space is read-only ({len(data)} bytes at {offset})")

    def negotiated(self, features: int) -> None:
        """The driver has chosen ``features``; called each time it does, before any chain that relies on it."""

    def reset(self) -> None:
        """The driver has reset the device; its rings are stopped."""

    @abstractmethod
    async def process(self, queue: int, chain: Chain) -> None:
        """Serve one request: read it from ``chain.readable``, write the answer to ``chain.writable``."""

    async def run_queue(self, queue: int, chains: ChainSource) -> None:
        """Serve one queue until its ring stops: a task for each chain, each given back when it is done.

        Devices that are better off with a batch at a time, or that stream, override this.
        """
        async with trio.open_nursery() as nursery:
            async for batch in chains:
                # Emptied: what is held here stays mapped while the ring is idle, though the front-end may have taken
                # that memory back.
                while batch:
                    nursery.start_soon(self._serve, queue, batch.pop(0), chains)

    async def _serve(self, queue: int, chain: Chain, chains: ChainSource) -> None:
        # A request that makes a device stumble must not take the device down: the driver gets its chain back, with
        # nothing written, and the log says why.
        try:
            await self.process(queue, chain)
        except Exception:
            # As text: a traceback holds the chain, and whoever kept the record would keep guest memory mapped.
            log.error("queue %d: request at head %d failed\n%s", queue, chain.head, traceback.format_exc())
        chains.done(chain)
