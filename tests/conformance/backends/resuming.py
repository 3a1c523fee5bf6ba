"""A disk that goes on where it was killed: ``python -m tests.conformance.backends.resuming SOCKET``.

It records requests in flight in the area of GET_INFLIGHT_FD, takes them up again after SET_INFLIGHT_FD, and leaves
them there at GET_VRING_BASE when the front-end has agreed to that.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.area import Area, new_area
from tests.conformance.backends.extended import Extended, serve
from tests.conformance.backends.recorded_packed import RecordedPacked
from tests.conformance.backends.recorded_split import RecordedSplit
from vhostuser.backend.ring import Ring
from vhostuser.backend.task import TaskWorker
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import GetInflightFd, ResetDevice, SetInflightFd, SetStatus
from vhostuser.wire.records import Inflight

if TYPE_CHECKING:
    from vhostuser.backend.worker import Job
    from vhostuser.device import ChainSource, Device
    from vhostuser.protocol.framing import Frame
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.queue import DeviceQueue
    from vhostuser.wire.catalog import Message

SIZE = 1 << 20
LONG = 1 << 15
"""A request with so much to fill takes its time, so that there is something to see and to suspend."""
PAUSE = 0.005


class SlowDisk(BlkDevice):
    """One request after the other, and long ones in the time that a disk needs."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage(SIZE), num_queues=2)

    async def run_queue(self, queue: int, chains: ChainSource) -> None:
        """See `Device.run_queue`."""
        async for batch in chains:
            while batch:
                await self._one(queue, batch.pop(0), chains)

    async def _one(self, queue: int, chain: Chain, chains: ChainSource) -> None:
        await trio.sleep(PAUSE if chain.writable.remaining >= LONG else 0)
        await self.process(queue, chain)
        chains.done(chain)


class ResumingWorker(TaskWorker):
    """Serves a ring that is recorded in a part of the area."""

    def __init__(self, job: Job, part: memoryview) -> None:
        self._part = part
        self._serving = trio.CancelScope()
        super().__init__(job)

    def _open(self, job: Job) -> DeviceQueue:
        kind = RecordedPacked if job.features & VirtioFeature.RING_PACKED else RecordedSplit
        return kind(self._part, job.layout, job.memory, job.features, base=job.base, index=job.index)

    async def run(self) -> None:
        """See `Worker.run`; after `suspend` something may be in flight."""
        with self._serving:
            self._ends.notify()  # whoever was killed may have owed the driver this
            await super().run()

    def suspend(self) -> None:
        """Leave what is in flight to whoever gets the area next."""
        self.stopping = True
        self._serving.cancel()


class ResumingRing(Ring):
    """A ring that is recorded once there is an area.

    Attributes:
        area: used from the next start on.
    """

    area: Area | None = None

    def _hire(self, job: Job) -> TaskWorker:
        packed = bool(job.features & VirtioFeature.RING_PACKED)
        part = None if self.area is None else self.area.part(self.index, job.layout.queue_size, packed=packed)
        return TaskWorker(job) if part is None else ResumingWorker(job, part)

    def suspend(self) -> None:
        """Take no more chains, and let go of those that there are."""
        if isinstance(self._worker, ResumingWorker):
            self._worker.suspend()


class Resuming(Extended):
    """GET_INFLIGHT_FD, SET_INFLIGHT_FD, and a GET_VRING_BASE that need not wait."""

    extra = ProtocolFeature.INFLIGHT_SHMFD | ProtocolFeature.GET_VRING_BASE_INFLIGHT
    rings: list[ResumingRing]  # type: ignore[assignment]  # ours alone, whatever else a back-end may have

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self.rings = [ResumingRing(index, device) for index in range(device.num_queues)]

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case GetInflightFd():
                return self._make_area(message)
            case SetInflightFd():
                self._use_area(Area(message, frame.fds[0], self.device.num_queues))
            case ResetDevice() | SetStatus(0):
                answer = await super()._act(message, frame)
                self._use_area(None)  # the rings begin anew, and what stands there is about the old ones
                return answer
        return await super()._act(message, frame)

    async def _take_base(self, index: int) -> int:
        if self.protocol.state.protocol_features & ProtocolFeature.GET_VRING_BASE_INFLIGHT:
            self.rings[index].suspend()
        return await super()._take_base(index)

    def _make_area(self, asked: GetInflightFd) -> Frame:
        packed = bool(self.protocol.state.features & VirtioFeature.RING_PACKED)
        with new_area(asked, self.device.num_queues, packed=packed) as block:
            told = Inflight(len(block.view), 0, asked.num_queues, asked.queue_size)
            return self.protocol.reply(asked, told, Fds.of(block.fd.duplicate()))

    def _use_area(self, area: Area | None) -> None:
        for ring in self.rings:
            ring.area = area

    def _release(self) -> None:
        self._use_area(None)
        super()._release()


def main(path: str) -> None:
    """Listen at ``path`` until somebody has had enough."""
    with suppress(KeyboardInterrupt):
        trio.run(serve, lambda: Resuming(SlowDisk()), path)


if __name__ == "__main__":
    main(sys.argv[1])
