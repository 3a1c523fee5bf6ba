"""A ring as the back-end serves it: its notifiers, its position, and the worker that serves it while it runs.

The protocol object says what state a ring is in; `Ring` makes it so.  While a ring is started and enabled, a worker
takes its chains to the device.  To stop is to take no more: the device finishes what it has, and only then does `stop`
return, so a ring is always drained when its position is read.

A ring runs as soon as it is started and enabled, kick or no kick (11.1: SET_VRING_KICK itself starts it).  Every time
round its worker looks at the available ring first, and waits for the kick only after it has asked for one and looked
again.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

import trio

from vhostuser.backend.ends import Ends
from vhostuser.backend.native import NativeWorker
from vhostuser.backend.task import TaskWorker
from vhostuser.backend.thread import ThreadWorker
from vhostuser.backend.worker import Job
from vhostuser.device import Serving
from vhostuser.memory.map import GuestAddressError, GuestMemory, UserAddr
from vhostuser.virtqueue.queue import RingLayout, UnsupportedRing

if TYPE_CHECKING:
    from vhostuser.backend.worker import Worker
    from vhostuser.device import Device
    from vhostuser.protocol.rings import RingState
    from vhostuser.transport.notifier import EventConsumer, EventNotifier

log = logging.getLogger("vhostuser.backend")

WORKERS: dict[Serving, type[Worker]] = {
    Serving.TASK: TaskWorker,
    Serving.THREAD: ThreadWorker,
    Serving.NATIVE: NativeWorker,
}


class Ring:
    """One ring of a connection.

    Args:
        index: its number.
        device: who serves its chains.
    """

    def __init__(self, index: int, device: Device) -> None:
        self.index = index
        self._device = device
        self._ends = Ends(index)
        self._worker: Worker | None = None
        self._drained = trio.Event()
        self._position: int | None = None
        self._features: int | None = None

    # --- notifiers ---

    async def set_kick(self, event: EventConsumer | None) -> None:
        """Wait on ``event`` from now on; None: poll."""
        await self._pause()
        self._ends.use_kick(event)
        if self._worker is not None:
            self._worker.wake()

    async def set_call(self, event: EventNotifier | None) -> None:
        """Notify the driver through ``event``; once at once, since a notification may have met the old one."""
        was_running = self.running
        await self._pause()
        self._ends.use_call(event)
        if was_running:
            self._ends.notify()

    def set_err(self, event: EventNotifier | None) -> None:
        """Report a broken ring through ``event``."""
        self._ends.use_err(event)

    def close(self) -> None:
        """Close the notifiers.  The ring must be stopped."""
        self._ends.close()

    # --- life ---

    @property
    def running(self) -> bool:
        """True while somebody serves this ring."""
        return self._worker is not None

    async def follow(self, state: RingState, memory: GuestMemory, features: int, nursery: trio.Nursery) -> None:
        """Run or stop, as ``state`` says; when running already, use what is new in ``state`` and ``memory``.

        What a ring is made of does not change while it runs: ``features`` count from the moment it starts.
        """
        if not state.started:
            self._features = None
        elif self._features is None:
            self._features = features
        else:
            features = self._features
        worker = self._worker
        if state.running and worker is not None and not (worker.stopping or worker.stops_for_changes):
            self._rebind(worker, state, memory, features)
            return
        # A ring that broke takes no more chains, but its device may not have finished with those it has.
        await self.stop()
        if state.running:
            self._start(state, memory, features, nursery)

    async def stop(self) -> None:
        """Take no more chains, wait until the device has finished those it has."""
        if self._worker is not None:
            self._worker.stop()
            await self._drained.wait()

    def base(self, state: RingState) -> int:
        """Where the ring stands: what GET_VRING_BASE answers.  The ring must be stopped."""
        return state.base if self._position is None else self._position

    def forget(self) -> None:
        """The front-end has taken the position; the next start is a new one and begins where the protocol says."""
        self._position = self._features = None

    async def _pause(self) -> None:
        """Stop a worker that needs that for a change; `follow` goes on with another."""
        if self._worker is not None and self._worker.stops_for_changes:
            await self.stop()

    def _start(self, state: RingState, memory: GuestMemory, features: int, nursery: trio.Nursery) -> None:
        try:
            layout = resolve(state, memory, features)
            job = Job(self.index, self._device, self._ends, layout, memory, features, self.base(state))
            worker = self._hire(job)
        except (GuestAddressError, UnsupportedRing) as error:
            self._broken(error)
            return
        self._worker, self._drained = worker, trio.Event()
        nursery.start_soon(self._run, worker)

    def _hire(self, job: Job) -> Worker:
        """Hook: whoever serves the ring until it stops the next time."""
        return WORKERS[self._device.serving](job)

    def _rebind(self, worker: Worker, state: RingState, memory: GuestMemory, features: int) -> None:
        try:
            worker.rebind(resolve(state, memory, features), memory)
        except (GuestAddressError, UnsupportedRing) as error:
            worker.broken(error)
        worker.wake()

    async def _run(self, worker: Worker) -> None:
        try:
            await worker.run()
        except Exception:
            # The device is at fault.  The process, the control channel and the other rings live on.
            # As text: a traceback holds chains, and whoever kept the record would keep guest memory mapped.
            log.error("ring %d: the device gave up\n%s", self.index, traceback.format_exc())
            self._ends.report()
        finally:
            self._position = worker.base
            self._worker = None
            self._drained.set()

    def _broken(self, error: Exception) -> None:
        log.error("ring %d is broken: %s", self.index, str(error))
        self._ends.report()


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
