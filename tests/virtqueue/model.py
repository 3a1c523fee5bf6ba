"""Driver and device against a model: whatever happens in whatever order, no chain and no wake-up is lost.

The model is lists of requests (added, published, with the device, used) and who sleeps.  A side may sleep when arming
found nothing to do; from then on only the other side's notification wakes it.  With IN_ORDER a request that the device
is done with stays in its list until it is the first there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.virtqueue.formats import drawn
from vhostuser.testing.packed_rings import build_ring
from vhostuser.virtqueue.queue import QueueFull, Segment
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.packed import Position

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.testing.rings import BuiltRing
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.engine import Engine
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


class Place(NamedTuple):
    """A ring that is to be opened."""

    features: int
    queue_size: int
    base: int


@st.composite
def packed_places(draw: st.DrawFn, kinds: list[int]) -> Place:
    """Any small size, at any entry, in either lap, with nothing in flight."""
    queue_size = draw(st.integers(1, 11))
    place = int(Position(draw(st.integers(0, queue_size - 1)), draw(st.booleans())))
    return Place(draw(st.sampled_from(kinds)), queue_size, place | place << 16)


def split_places(kinds: list[int]) -> st.SearchStrategy[Place]:
    """Eight entries, or a few, most of the time close to where positions wrap."""
    return st.builds(
        Place,
        st.sampled_from(kinds),
        st.sampled_from([8, 8, 1, 2, 16]),
        st.one_of(st.integers(0, 65535), st.integers(65520, 65535)),
    )


class Ring(RuleBasedStateMachine):
    """One ring with both its sides.

    Args:
        driver_engine: who drives it.
        open_device: opens the device's side.
        fixed: choices of its kind (``formats.py``) that are not left to Hypothesis.
    """

    ring: BuiltRing
    driver: DriverQueue[Request]
    device: DeviceQueue

    def __init__(self, driver_engine: Engine, open_device: Callable[[BuiltRing], DeviceQueue], **fixed: bool) -> None:
        super().__init__()
        self.driver_engine = driver_engine
        self.open_device = open_device
        self.places = st.one_of(split_places(drawn(packed=False, **fixed)), packed_places(drawn(packed=True, **fixed)))

    @initialize(data=st.data(), tables=st.integers(0, 3))
    def open(self, data: st.DataObject, tables: int) -> None:
        place = data.draw(self.places)
        self.size = place.queue_size
        self.in_order = bool(place.features & VirtioFeature.IN_ORDER)
        self.ring = build_ring(self.size, place.features, base=place.base)
        tables = min(tables, self.size)
        self.tables = tables if place.features & VirtioFeature.INDIRECT_DESC else 0
        self.driver = self.ring.open_driver(indirect=tables, engine=self.driver_engine)
        self.device = self.open_device(self.ring)
        self.added: list[Request] = []
        self.published: list[Request] = []
        self.held: list[tuple[Chain, Request]] = []
        self.used: list[Request] = []
        self.device_sleeps = self.driver_sleeps = False
        self.count = 0

    # --- the driver --------------------------------------------------------------------------------------------------

    @rule(readable=st.integers(0, 4), writable=st.integers(0, 4))
    def add(self, readable: int, writable: int) -> None:
        if not 0 < readable + writable <= self.size:
            return
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

    @rule()
    def publish(self) -> None:
        kick = self.driver.publish()
        if self.added and self.device_sleeps:
            assert kick, "the device sleeps, has work, and is not kicked"
        if kick:
            self.device_sleeps = False
        self.published += self.added
        self.added = []

    @rule(limit=st.integers(1, 9))
    def reap(self, limit: int) -> None:
        reaped = self.driver.reap(limit)
        assert [used.token for used in reaped] == self.used[:limit]
        for request, length in reaped:
            assert length == len(request.answer)
            found = b"".join(self.ring.memory.read(*segment) for segment in request.answer_at)
            assert found[:length] == request.answer
        del self.used[:limit]

    @precondition(lambda self: not self.driver_sleeps)
    @rule()
    def driver_goes_to_sleep(self) -> None:
        more = self.driver.arm()
        assert more is bool(self.used)
        self.driver_sleeps = not more

    @precondition(lambda self: not self.driver_sleeps)
    @rule()
    def driver_wants_peace(self) -> None:
        self.driver.disarm()

    # --- the device --------------------------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 9))
    def pop(self, limit: int) -> None:
        chains = self.device.pop(limit)
        assert len(chains) == min(limit, len(self.published))
        for chain, request in zip(chains, self.published, strict=False):
            assert chain.readable.read() == request.question
            assert chain.writable.remaining == request.room
            self.held.append((chain, request))
        del self.published[: len(chains)]
        assert self.device.in_flight == len(self.held)

    @precondition(lambda self: any(not request.done for _, request in self.held))
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        order = data.draw(st.permutations([pair for pair in self.held if not pair[1].done]))
        chosen = order[: data.draw(st.integers(1, len(order)))]
        for chain, request in chosen:
            full = data.draw(st.booleans())  # more often than chance has it: only such chains can be skipped
            request.answer = data.draw(st.binary(min_size=request.room if full else 0, max_size=request.room))
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

    @precondition(lambda self: not self.device_sleeps)
    @rule()
    def device_goes_to_sleep(self) -> None:
        more = self.device.arm()
        assert more is bool(self.published)
        self.device_sleeps = not more

    @precondition(lambda self: not self.device_sleeps)
    @rule()
    def device_wants_peace(self) -> None:
        self.device.disarm()

    @rule()
    def memory_is_mapped_anew(self) -> None:
        self.device.rebind(self.ring.layout, self.ring.memory.guest)

    @precondition(lambda self: not self.held)
    @rule()
    def another_device_takes_over(self) -> None:
        self.ring.base = self.device.base
        self.device = self.open_device(self.ring)

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "driver"):
            out = len(self.added) + len(self.published) + len(self.held) + len(self.used)
            assert self.driver.outstanding == out
            assert self.ring.memory.intact
