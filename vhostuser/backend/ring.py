"""A ring as the back-end serves it: its notifiers, its queue while it runs, and the one task that runs it.

The protocol object says what state a ring is in; `Ring` makes it so.  While a ring is started and enabled, a task
runs the device's `run_queue` over it.  To stop is to end that iteration: the device finishes what it has taken and
returns, and only then does `stop` return, so a ring is always drained when its position is read.

A ring runs as soon as it is started and enabled, kick or no kick (11.1: SET_VRING_KICK itself starts it).  Every time
round it looks at the available ring first, and waits for the kick only after it has asked for one and looked again.
"""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING

import trio

from vhostuser.memory.map import GuestAddressError, GuestMemory, MappingError, UserAddr
from vhostuser.transport.notifier import PeerClosed
from vhostuser.virtqueue.queue import BrokenQueue, RingLayout, UnsupportedRing, open_device_queue

if TYPE_CHECKING:
    from vhostuser.device import Device
    from vhostuser.protocol.rings import RingState
    from vhostuser.transport.notifier import EventConsumer, EventNotifier
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.queue import DeviceQueue

log = logging.getLogger("vhostuser.backend")

BATCH = 16
"""Chains taken at a time: given back in groups of this size, they keep driver and device working side by side.

With all of 32 requests in one group each side sleeps while the other works: 51 k requests/s against 89 k in the same
run, on two cores.  At 8 the rate is no better, and the driver needs 11 µs of CPU a request instead of 10.  It also
keeps a driver that never stops from starving the other rings.
"""
POLL_INTERVAL = 0.001
"""Seconds between two looks at a ring whose front-end gave no kick descriptor."""


class Ring:
    """One ring of a connection.

    Args:
        index: its number.
        device: who serves its chains.
    """

    def __init__(self, index: int, device: Device) -> None:
        self.index = index
        self._device = device
        self._queue: DeviceQueue | None = None
        self._memory = GuestMemory.EMPTY
        self._kick: EventConsumer | None = None
        self._call: EventNotifier | None = None
        self._err: EventNotifier | None = None
        self._stopping = False
        self._idle: trio.CancelScope | None = None
        self._drained: trio.Event | None = None
        self._base = 0

    # --- notifiers; each is owned here, and closed when it is replaced ---

    def set_kick(self, event: EventConsumer | None) -> None:
        """Wait on ``event`` from now on; None: poll."""
        old, self._kick = self._kick, event
        if old is not None:
            old.close()
        self._wake()

    def set_call(self, event: EventNotifier | None) -> None:
        """Notify the driver through ``event``; once at once, since a notification may have met the old one."""
        old, self._call = self._call, event
        if old is not None:
            old.close()
        if self.running:
            self._notify()

    def set_err(self, event: EventNotifier | None) -> None:
        """Report a broken ring through ``event``."""
        old, self._err = self._err, event
        if old is not None:
            old.close()

    def close(self) -> None:
        """Close the notifiers, let go of memory.  The ring must be stopped."""
        for event in (self._kick, self._call, self._err):
            if event is not None:
                event.close()
        self._kick = self._call = self._err = None
        # Views keep memory mapped, and this object may have to wait for the garbage collector.
        self._queue, self._memory = None, GuestMemory.EMPTY

    # --- life ---

    @property
    def running(self) -> bool:
        """True while a task serves this ring."""
        return self._drained is not None

    async def follow(self, state: RingState, memory: GuestMemory, features: int, nursery: trio.Nursery) -> None:
        """Run or stop, as ``state`` says; when running already, use what is new in ``state`` and ``memory``."""
        self._memory = memory
        if state.running and self.running and not self._stopping:
            self._rebind(state, memory, features)
            return
        # A ring that broke takes no more chains, but its device may not have finished with those it has.
        await self.stop()
        if state.running:
            self._start(state, memory, features, nursery)

    async def stop(self) -> None:
        """Take no more chains, wait until the device has finished those it has."""
        if self._drained is not None:
            self._stopping = True
            self._wake()
            await self._drained.wait()

    def base(self, state: RingState) -> int:
        """Where the ring stands: what GET_VRING_BASE answers.  The ring must be stopped."""
        return self._base if self._queue is not None else state.base

    def forget(self) -> None:
        """The front-end has taken the position; the next start begins where the protocol says."""
        self._queue = None

    def _start(self, state: RingState, memory: GuestMemory, features: int, nursery: trio.Nursery) -> None:
        base = self.base(state)
        try:
            layout = resolve(state, memory, features)
            self._queue = open_device_queue(layout, memory, features, base=base, queue_index=self.index)
        except (GuestAddressError, UnsupportedRing) as error:
            self._broken(error)
            return
        self._stopping = False
        self._drained = trio.Event()
        nursery.start_soon(self._run)

    def _rebind(self, state: RingState, memory: GuestMemory, features: int) -> None:
        queue = self._queue
        if queue is None:
            return
        try:
            queue.rebind(resolve(state, memory, features), memory)
        except (GuestAddressError, UnsupportedRing) as error:
            self._broken(error)
            self._stopping = True
        self._wake()

    async def _run(self) -> None:
        queue, drained = self._queue, self._drained
        if queue is None or drained is None:
            return
        try:
            await self._device.run_queue(self.index, self)
        except Exception:
            # The device is at fault.  The process, the control channel and the other rings live on.
            # As text: a traceback holds chains, and whoever kept the record would keep guest memory mapped.
            log.error("ring %d: the device gave up\n%s", self.index, traceback.format_exc())
            self._report()
        finally:
            self._base = queue.base
            self._drained = None
            drained.set()

    # --- what the device sees (ChainSource) ---

    def __aiter__(self) -> Ring:
        return self

    async def __anext__(self) -> list[Chain]:
        # A checkpoint for each batch: other rings, and the message loop, get their turn.
        await trio.lowlevel.checkpoint()
        # A driver that waits for one request at a time comes back sooner than a sleeper wakes: 50 µs of watching give
        # 1.6 times the requests at depth 1, and cost a processor while they last.
        watch_until = time.perf_counter() + self._device.poll_seconds
        while not self._stopping and self._queue is not None:
            chains = self._take(self._queue)
            if chains:
                return chains
            if time.perf_counter() >= watch_until:
                await self._wait()
        raise StopAsyncIteration

    def _take(self, queue: DeviceQueue) -> list[Chain]:
        try:
            chains = queue.pop(BATCH)
            # Afterwards, since this look may have been the one that found the hole.
            if self._memory.damaged:
                raise MappingError("the front-end cut a memory file short while it was mapped here")
        except (BrokenQueue, MappingError) as error:
            self._broken(error)
            self._stopping = True
            return []
        if chains:
            queue.disarm()
        return chains

    def done(self, *chains: Chain) -> None:
        """Give chains back to the driver, and notify it if it wants to know."""
        if chains and self._queue is not None and self._queue.complete(chains):
            self._notify()

    async def _wait(self) -> None:
        with trio.CancelScope() as self._idle:
            if self._stopping or self._queue is None or self._queue.arm():
                return
            if self._kick is None:
                await trio.sleep(POLL_INTERVAL)
                return
            try:
                await self._kick.wait()
            except trio.EndOfChannel:
                # A pipe whose writer is gone; the socket will say so too.  Until then nobody can kick.
                await trio.sleep_forever()
            except trio.ClosedResourceError:
                return  # replaced meanwhile: go round with the new one

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.cancel()

    # --- telling the front-end ---

    def _notify(self) -> None:
        if self._call is not None:
            try:
                self._call.notify()
            except PeerClosed:
                log.debug("ring %d: nobody listens to the call descriptor", self.index)

    def _broken(self, error: Exception) -> None:
        log.error("ring %d is broken: %s", self.index, str(error))
        self._report()

    def _report(self) -> None:
        if self._err is not None:
            try:
                self._err.notify()
            except PeerClosed:
                log.debug("ring %d: nobody listens to the err descriptor", self.index)


def resolve(state: RingState, memory: GuestMemory, features: int) -> RingLayout:
    """The three parts of a ring as views; each must lie within one region.

    Raises:
        GuestAddressError: a part is not wholly in memory.
        UnsupportedRing: the ring has no addresses or no size.
    """
    if state.addr is None or not state.size:
        raise UnsupportedRing(f"ring {state.index} was started without addresses or without a size")
    sizes = RingLayout.sizes(state.size, features)
    return RingLayout(
        state.size,
        memory.user_view(UserAddr(state.addr.descriptor), sizes.descriptor),
        memory.user_view(UserAddr(state.addr.available), sizes.driver),
        memory.user_view(UserAddr(state.addr.used), sizes.device),
    )
