"""`Queue`: a ring in guest memory, the two notifiers beside it, and somebody to call when a request is done.

Requests are added without waiting (`start`) and made visible in batches (`flush`): one index store, one fence and at
most one kick for as many as were added.  One task (`run`) waits for used buffers and calls whoever asked, in the
order in which the device used them.
"""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from vhostuser.errors import VhostUserError
from vhostuser.transport.notifier import NotifierKind, PeerClosed, event_pair
from vhostuser.virtqueue.indirect import IndirectTables
from vhostuser.virtqueue.queue import (
    BrokenQueue,
    DriverQueue,
    QueueFull,
    RingLayout,
    Segment,
    initial_base,
    open_driver_queue,
)
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from frontend.guest.memory import GuestRam

    Done: TypeAlias = Callable[[int], None]

__all__ = ["BrokenQueue", "Queue", "QueueClosed", "QueueFull", "Segment"]

REAP = 256
"""Used elements taken at a time."""
INDIRECT_ENTRIES = 8
"""Descriptors in an indirect table: header, status, and room for a few pieces of data."""


class QueueClosed(VhostUserError):
    """The queue was stopped while a request was in flight, or the back-end is gone."""


class Queue:
    """The driver's side of one ring, in guest memory.

    Args:
        index: its number.
        ram: where the ring is allocated.
        queue_size: entries; a power of two unless the ring is packed.
        features: negotiated features; RING_PACKED among them makes it a packed ring.
        notifier: kind of the kick and call notifiers.
        base: position to begin at, if that is not where a new ring begins.

    The parts are called after those of a split ring.  In a packed one the descriptor ring takes the place of the
    descriptor table, and the event suppression of driver and device that of the two other rings.
    """

    def __init__(
        self,
        index: int,
        ram: GuestRam,
        *,
        queue_size: int,
        features: int,
        notifier: NotifierKind | None = None,
        base: int | None = None,
    ) -> None:
        self.index = index
        self.queue_size = queue_size
        self.base = initial_base(features) if base is None else base
        sizes = RingLayout.sizes(queue_size, features)
        self.desc_table = ram.buffer(sizes.descriptor, align=4096)
        self.avail_ring = ram.buffer(sizes.driver)
        self.used_ring = ram.buffer(sizes.device)
        self._ring: DriverQueue[Done] = open_driver_queue(
            RingLayout(queue_size, self.desc_table.view, self.avail_ring.view, self.used_ring.view),
            features,
            indirect=_tables(ram, queue_size, features),
            base=self.base,
            queue_index=index,
        )
        # The back-end waits on the kick and signals the call: `kick_consumer` and `call_notifier` travel.
        self.kick, self.kick_consumer = event_pair(notifier)
        self.call_notifier, self.call = event_pair(notifier)
        self._hearing: trio.CancelScope | None = None
        self._parked, self._returned = trio.Event(), trio.Event()
        self._returned.set()
        self._waiting: set[trio.Event] = set()
        self._failed: VhostUserError | None = None

    # --- requests ---

    @property
    def free(self) -> int:
        """Ring entries that `start` can still take."""
        return self._ring.free

    @property
    def outstanding(self) -> int:
        """Requests started and not done yet."""
        return self._ring.outstanding

    def start(self, readable: Sequence[Segment], writable: Sequence[Segment], done: Done) -> None:
        """Add a request; the device sees it after `flush`.

        Args:
            readable: what the device reads.
            writable: what it fills.
            done: called with the used length, from the task that runs the queue.

        Raises:
            QueueFull: wait until a request is done.
            QueueClosed: the queue failed or was closed.
        """
        if self._failed is not None:
            raise self._failed
        self._ring.add(readable, writable, done)

    def flush(self) -> None:
        """Make what was started visible, and kick the device if it wants to know."""
        if self._ring.publish():
            self.notify_device()

    def notify_device(self) -> None:
        """Kick.  A back-end that is gone cannot hear it; whoever runs the queue is told that in another way."""
        with contextlib.suppress(PeerClosed):
            self.kick.notify()

    async def submit(self, readable: Sequence[Segment], writable: Sequence[Segment]) -> int:
        """One request: add it, make it visible, wait; the used length.

        Raises:
            QueueFull: as `start`.
            QueueClosed: the queue ended first.
        """
        finished = _Finished()
        self.start(readable, writable, finished.set)
        self.flush()
        await self.until(finished.event)
        return finished.length

    async def until(self, event: trio.Event) -> None:
        """Wait for ``event``, which a request of this queue sets when it is done.

        Raises:
            QueueClosed: the queue ended first.
        """
        if self._failed is None:  # else nobody would ever set it
            self._waiting.add(event)
            try:
                await event.wait()
            finally:
                self._waiting.discard(event)
        if self._failed is not None:
            raise self._failed

    # --- the task that hears from the device ---

    async def run(self) -> None:
        """Wait for used buffers and call whoever asked, until cancelled or closed.

        Raises:
            BrokenQueue: the device broke the ring; requests in flight raise `QueueClosed`.
            QueueClosed: the device closed its end of a pipe.
        """
        try:
            while True:
                while not self._returned.is_set():  # it may be lent again before this task has its turn
                    await self._returned.wait()
                with trio.CancelScope() as self._hearing:
                    await self._hear()
                self._hearing = None
                self._parked.set()
        except BrokenQueue as error:
            self.fail(QueueClosed(f"queue {self.index}: {error}"))
            raise
        except trio.ClosedResourceError:
            return
        except trio.EndOfChannel:
            self.fail(QueueClosed(f"queue {self.index}: the back-end closed its end of the call pipe"))
            # The socket tells the whole story; this is only the first sign of it.
            await trio.sleep_forever()
        finally:
            self._hearing = None
            self._parked.set()

    async def _hear(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            if not self._reap() and not self._ring.arm():
                await self.call.wait()

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[DriverQueue[Any]]:
        """The ring, for a loop of somebody else's, which waits for `call` and signals `kick` by itself.

        Nothing may be in flight at either end of the block, and nothing be started here meanwhile.

        Raises:
            QueueClosed: the queue ended before.
        """
        self._parked, self._returned = trio.Event(), trio.Event()
        if self._hearing is not None:
            self._hearing.cancel()
            await self._parked.wait()
        try:
            if self._failed is not None:
                raise self._failed
            yield self._ring
        finally:
            self._returned.set()

    def _reap(self) -> bool:
        used = self._ring.reap(REAP)
        for done, length in used:
            done(length)
        return bool(used)

    def fail(self, error: VhostUserError) -> None:
        """Nothing will be done any more: whoever waits, and whoever asks later, gets ``error``."""
        self._failed = self._failed or error
        for event in self._waiting:
            event.set()

    def close(self) -> None:
        """Close the notifiers; requests in flight raise `QueueClosed`."""
        self.fail(QueueClosed(f"queue {self.index} was closed"))
        for end in (self.kick, self.kick_consumer, self.call, self.call_notifier):
            end.close()


class _Finished:
    __slots__ = ("event", "length")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.length = 0

    def set(self, length: int) -> None:
        self.length = length
        self.event.set()


def _tables(ram: GuestRam, queue_size: int, features: int) -> IndirectTables | None:
    if not features & VirtioFeature.INDIRECT_DESC:
        return None
    entries = min(INDIRECT_ENTRIES, queue_size)
    buffer = ram.buffer(IndirectTables.size(queue_size, entries))
    return IndirectTables(buffer.view, buffer.addr, entries)
