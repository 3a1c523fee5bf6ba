"""Driver and device against a model: whatever happens in whatever order, no chain and no wake-up is lost.

The model is three lists of requests (added, published, with the device) and who sleeps.  A side may sleep when arming
found nothing to do; from then on only the other side's notification wakes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vhostuser.testing.packed_rings import build_ring
from vhostuser.virtqueue.queue import DeviceQueue, DriverQueue, QueueFull, Segment
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.packed import Position

if TYPE_CHECKING:
    from vhostuser.testing.rings import BuiltRing
    from vhostuser.virtqueue.chain import Chain

PIECE = 16


@dataclass(eq=False)
class Request:
    """What was asked, and what shall come back."""

    question: bytes
    room: int
    answer_at: list[Segment]
    descriptors: int
    answer: bytes = b""


class Place(NamedTuple):
    """A ring that is to be opened."""

    format: VirtioFeature
    queue_size: int
    base: int


@st.composite
def packed_places(draw: st.DrawFn) -> Place:
    """Any small size, at any entry, in either lap, with nothing in flight."""
    queue_size = draw(st.integers(1, 11))
    place = int(Position(draw(st.integers(0, queue_size - 1)), draw(st.booleans())))
    return Place(VirtioFeature.RING_PACKED, queue_size, place | place << 16)


split_places = st.builds(
    Place,
    st.just(VirtioFeature(0)),
    st.sampled_from([8, 8, 1, 2, 16]),
    st.one_of(st.integers(0, 65535), st.integers(65520, 65535)),
)
places = st.one_of(split_places, packed_places())


class Ring(RuleBasedStateMachine):
    """One ring: split with eight entries or a few, packed with any small number of them."""

    ring: BuiltRing
    driver: DriverQueue[Request]
    device: DeviceQueue

    @initialize(place=places, events=st.booleans(), indirect=st.booleans())
    def open(self, place: Place, events: bool, indirect: bool) -> None:
        self.size = place.queue_size
        features = VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC | place.format
        self.ring = build_ring(
            self.size, int(features | VirtioFeature.EVENT_IDX) if events else int(features), base=place.base
        )
        self.tables = min(3, self.size) if indirect else 0
        self.driver = self.ring.open_driver(indirect=self.tables)
        self.device = self.ring.open_device()
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

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        order = data.draw(st.permutations(self.held))
        chosen = order[: data.draw(st.integers(1, len(order)))]
        for chain, request in chosen:
            request.answer = data.draw(st.binary(max_size=request.room))
            chain.writable.write(request.answer)
        call = self.device.complete(chain for chain, _ in chosen)
        if self.driver_sleeps:
            assert call, "the driver sleeps, has completions, and is not called"
        if call:
            self.driver_sleeps = False
        self.used += [request for _, request in chosen]
        self.held = [pair for pair in self.held if pair not in chosen]

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
        self.device = self.ring.open_device()

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "driver"):
            out = len(self.added) + len(self.published) + len(self.held) + len(self.used)
            assert self.driver.outstanding == out
            assert self.ring.memory.intact


TestRing = Ring.TestCase
TestRing.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
