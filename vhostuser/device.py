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
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol

import trio

from vhostuser.errors import VhostUserError
from vhostuser.virtqueue.ring import UnsupportedRing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.queue import DeviceQueue
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


class BlockingChainSource(Protocol):
    """The same for a device that has a thread for each queue, and may block it."""

    def __iter__(self) -> Iterator[list[Chain]]:
        """As `ChainSource`; waits by blocking the thread."""

    def done(self, *chains: Chain) -> None:
        """See `ChainSource`; from the same thread."""


class CompiledLoop(Protocol):
    """A device's work on one queue as a loop that needs no GIL; one object for each time the queue is started."""

    def run(self, queue: DeviceQueue, kick: int, call: int, stop: int, poll_seconds: float) -> None:
        """Serve ``queue``, which belongs to the compiled engine, until `stop`.

        It also returns, with nothing in flight, after the SIGBUS guard had to repair a mapping: look what it was.

        Args:
            queue: nobody else touches it meanwhile.
            kick: descriptor to sleep on; -1 to look now and then instead.
            call: descriptor to notify the driver through; -1 for none.
            stop: a descriptor that becomes readable after `stop`.
            poll_seconds: how long to watch an empty ring before sleeping.

        Raises:
            BrokenQueue: the driver broke the ring.
        """

    def stop(self) -> None:
        """Take no more chains; from any thread, before `run` or while it runs, which also needs a wake-up."""


class Serving(Enum):
    """What runs a device's work on a queue."""

    TASK = "task"
    """A trio task, by `Device.run_queue`: a device may wait for anything, for many chains at once."""
    THREAD = "thread"
    """A thread for each queue, by `Device.run_queue_on_thread`: a device may block."""
    NATIVE = "native"
    """A thread for each queue that runs without the GIL, by `Device.compiled_loop`."""


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
        serving: what runs its queues; how many ways a device has is its own affair, all of them have `Serving.TASK`.
        poll_seconds: how long a ring that is empty is watched before whoever serves it sleeps; 0 sleeps at once.  It
            costs a processor meanwhile, and a task lets nothing else run: 50 µs are reasonable, a millisecond is not.
    """

    type: ClassVar[DeviceType]
    serving: Serving = Serving.TASK
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

    def run_queue_on_thread(self, queue: int, chains: BlockingChainSource) -> None:
        """Serve one queue until its ring stops, on a thread that this queue has to itself."""
        raise NotImplementedError(f"{type(self).__name__} cannot be served by threads")

    def compiled_loop(self, queue: int) -> CompiledLoop:
        """A loop without the GIL for one queue, to run once.

        Raises:
            UnsupportedRing: there is none for this device as it is, or the compiled engine does not run.
        """
        raise UnsupportedRing(f"{type(self).__name__} has no compiled loop")

    async def _serve(self, queue: int, chain: Chain, chains: ChainSource) -> None:
        # A request that makes a device stumble must not take the device down: the driver gets its chain back, with
        # nothing written, and the log says why.
        try:
            await self.process(queue, chain)
        except Exception:
            # As text: a traceback holds the chain, and whoever kept the record would keep guest memory mapped.
            log.error("queue %d: request at head %d failed\n%s", queue, chain.head, traceback.format_exc())
        chains.done(chain)
