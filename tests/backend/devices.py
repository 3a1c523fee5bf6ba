"""Devices that make a test's point: one that answers, one that waits, one that stumbles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from vhostuser.device import ChainSource, Device
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from vhostuser.virtqueue.chain import Chain


class Echo(Device):
    """Writes back what it read, backwards; keeps what it was told."""

    type = DeviceType.CONSOLE

    def __init__(self, num_queues: int = 2, *, features: int = 0) -> None:
        super().__init__(num_queues=num_queues, features=features)
        self.chosen: list[int] = []
        self.resets = 0
        self.served: list[int] = []

    def negotiated(self, features: int) -> None:
        super().negotiated(features)
        self.chosen.append(features)

    def reset(self) -> None:
        super().reset()
        self.resets += 1

    async def process(self, queue: int, chain: Chain) -> None:
        await trio.lowlevel.checkpoint()
        self.served.append(queue)
        chain.writable.write(chain.readable.read()[::-1])


class Patient(Echo):
    """Answers once its gate is open; until then it holds what it has taken."""

    def __init__(self, num_queues: int = 2) -> None:
        super().__init__(num_queues)
        self.gate = trio.Event()
        self.holds = 0

    async def process(self, queue: int, chain: Chain) -> None:
        self.holds += 1
        try:
            await self.gate.wait()
        finally:
            self.holds -= 1
        await super().process(queue, chain)


class Stumbling(Echo):
    """Fails at each request that says ``fail``."""

    async def process(self, queue: int, chain: Chain) -> None:
        if bytes(chain.readable.views()[0]) == b"fail":
            raise RuntimeError("the device stumbled")
        await super().process(queue, chain)


class Hasty(Echo):
    """Gives up altogether at the first request on queue 0."""

    async def run_queue(self, queue: int, chains: ChainSource) -> None:
        if queue:
            return await super().run_queue(queue, chains)
        async for _ in chains:
            raise RuntimeError("the device gave up")
