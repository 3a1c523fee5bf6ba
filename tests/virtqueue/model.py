"""Driver and device against a model: whatever happens in whatever order, no chain and no wake-up is lost.

The model is lists of requests (added, published, with the device, used) and who sleeps.  A side may sleep when arming
found nothing to do; from then on only the other side's notification wakes it.  With IN_ORDER a request that the device
is done with stays in its list until it is the first there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from vhostuser.virtqueue.queue import QueueFull, Segment
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from vhostuser.testing.rings import BuiltRing
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.queue import DeviceQueue, DriverQueue

PIECE = 16


@dataclass(eq=False)
class Request:
    """What was asked, and what shall come back."""

    question: bytes
    room: int
    answer_at: list[Segment]
    descriptors: int
    answer: bytes = b""
    done: bool = False


class Model:
    """One ring with both its sides, and what we know of it.

    Args:
        ring: where it lies.
        driver: opens the driver's side, with indirect tables of so many entries.
        device: opens the device's side, now and whenever another device takes over.
        tables: entries of those tables, or 0.
    """

    def __init__(
        self,
        ring: BuiltRing,
        driver: Callable[[BuiltRing, int], DriverQueue[Request]],
        device: Callable[[BuiltRing], DeviceQueue],
        tables: int,
    ) -> None:
        self.ring = ring
        self.size = ring.queue_size
        self.in_order = bool(ring.features & VirtioFeature.IN_ORDER)
        self.tables = tables if ring.features & VirtioFeature.INDIRECT_DESC else 0
        self.driver = driver(ring, tables)
        self.open_device = device
        self.device = self.open_device(self.ring)
        self.added: list[Request] = []
        self.published: list[Request] = []
        self.held: list[tuple[Chain, Request]] = []
        self.used: list[Request] = []
        self.device_sleeps = self.driver_sleeps = False
        self.count = 0

    # --- the driver --------------------------------------------------------------------------------------------------

    def add(self, readable: int, writable: int) -> None:
        """A request of so many segments, at least one and no more than the ring has entries."""
        self.count += 1
        question = bytes((self.count * 7 + place) % 256 for place in range(readable * PIECE))
        pieces = [self.ring.buffer(PIECE, question[place * PIECE : (place + 1) * PIECE]) for place in range(readable)]
        room = [self.ring.buffer(PIECE) for _ in range(writable)]
        total = readable + writable
        request = Request(question, writable * PIECE, room, 1 if total <= self.tables else total)
        out = self.added + self.published + [request for _, request in self.held] + self.used
        fits = sum(other.descriptors for other in out) + request.descriptors <= self.size
        assert self.driver.free == self.size - sum(other.descriptors for other in out)
        try:
            self.driver.add(pieces, room, request)
        except QueueFull:
            assert not fits
        else:
            assert fits
            self.added.append(request)

    def publish(self) -> None:
        kick = self.driver.publish()
        if self.added and self.device_sleeps:
            assert kick, "the device sleeps, has work, and is not kicked"
        if kick:
            self.device_sleeps = False
        self.published += self.added
        self.added = []

    def reap(self, limit: int) -> None:
        reaped = self.driver.reap(limit)
        assert [used.token for used in reaped] == self.used[:limit]
        for request, length in reaped:
            assert length == len(request.answer)
            found = b"".join(self.ring.memory.read(*segment) for segment in request.answer_at)
            assert found[:length] == request.answer
        del self.used[:limit]

    def driver_goes_to_sleep(self) -> None:
        if self.driver_sleeps:
            return
        more = self.driver.arm()
        assert more is bool(self.used)
        self.driver_sleeps = not more

    def driver_wants_peace(self) -> None:
        if self.driver_sleeps:
            return
        self.driver.disarm()

    # --- the device --------------------------------------------------------------------------------------------------

    def pop(self, limit: int) -> None:
        chains = self.device.pop(limit)
        assert len(chains) == min(limit, len(self.published))
        for chain, request in zip(chains, self.published, strict=False):
            assert chain.readable.read() == request.question
            assert chain.writable.remaining == request.room
            self.held.append((chain, request))
        del self.published[: len(chains)]
        assert self.device.in_flight == len(self.held)

    def complete(self, chance: Random) -> None:
        """Some of what the device has and is not done with, in an order that is left to chance."""
        begun = [pair for pair in self.held if not pair[1].done]
        if not begun:
            return
        chosen = chance.sample(begun, chance.randint(1, len(begun)))
        for chain, request in chosen:
            # Filled, more often than chance has it: only such chains can be skipped.
            length = request.room if chance.random() < 0.5 else chance.randint(0, request.room)
            request.answer = bytes(chance.randrange(256) for _ in range(length))
            chain.writable.write(request.answer)
            request.done = True
        call = self.device.complete(chain for chain, _ in chosen)
        back = self.in_turn() if self.in_order else [request for _, request in chosen]
        if back and self.driver_sleeps:
            assert call, "the driver sleeps, has completions, and is not called"
        if call:
            assert back, "nothing was given back, and the driver is called"
            self.driver_sleeps = False
        self.used += back
        self.held = [(chain, request) for chain, request in self.held if request not in back]

    def in_turn(self) -> list[Request]:
        """What the device is done with, up to the first request that it is not done with."""
        return [request for _, request in takewhile(lambda pair: pair[1].done, self.held)]

    def device_goes_to_sleep(self) -> None:
        if self.device_sleeps:
            return
        more = self.device.arm()
        assert more is bool(self.published)
        self.device_sleeps = not more

    def device_wants_peace(self) -> None:
        if self.device_sleeps:
            return
        self.device.disarm()

    def memory_is_mapped_anew(self) -> None:
        self.device.rebind(self.ring.layout, self.ring.memory.guest)

    def another_device_takes_over(self) -> None:
        if self.held:
            return
        self.ring.base = self.device.base
        self.device = self.open_device(self.ring)

    def nothing_is_lost(self) -> None:
        out = len(self.added) + len(self.published) + len(self.held) + len(self.used)
        assert self.driver.outstanding == out
        assert self.ring.memory.intact
