"""A ring served by a thread without the GIL: the device's compiled loop on the compiled engine's queue.

All that is Python about it happens before and after: the loop gets descriptors as numbers and returns when it was
stopped, when the ring is broken, or when the SIGBUS guard had to repair some mapping of the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.backend.thread import ThreadWorker
from vhostuser.backend.worker import check_memory
from vhostuser.memory.map import MappingError
from vhostuser.virtqueue.queue import BrokenQueue, open_device_queue

if TYPE_CHECKING:
    from vhostuser.backend.worker import Job
    from vhostuser.transport.notifier import EventConsumer, EventNotifier
    from vhostuser.virtqueue.queue import DeviceQueue


class NativeWorker(ThreadWorker):
    """Runs the device's `compiled_loop`."""

    def __init__(self, job: Job) -> None:
        self._loop = job.device.compiled_loop(job.index)
        super().__init__(job)

    def _open(self, job: Job) -> DeviceQueue:
        return open_device_queue(
            job.layout, job.memory, job.features, base=job.base, queue_index=job.index, engine="native"
        )

    def stop(self) -> None:
        """See `Worker.stop`."""
        self._loop.stop()
        super().stop()

    def _serve(self) -> None:
        kick, call = _number(self._ends.kick), _number(self._ends.call)
        try:
            while not self.stopping:
                self._loop.run(self._queue, kick, call, self._stopped.fileno(), self._device.poll_seconds)
                check_memory(self._memory)
        except (BrokenQueue, MappingError) as error:
            self.broken(error)


def _number(end: EventConsumer | EventNotifier | None) -> int:
    return -1 if end is None else end.fileno()
