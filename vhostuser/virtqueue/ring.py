"""What every ring format and both sides share: where the parts lie, what is put in and got out, what can go wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from vhostuser.errors import VhostUserError
from vhostuser.memory.ordering import FENCE_IS_FULL
from vhostuser.memory.words import NATIVE_IS_LITTLE, words
from vhostuser.wire import packed
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.split import MAX_QUEUE_SIZE, avail_ring_size, desc_table_size, used_ring_size

if TYPE_CHECKING:
    from vhostuser.memory.map import GuestAddr
    from vhostuser.virtqueue.chain import Chain

T = TypeVar("T")

PUBLISH_EVERY = 16
"""Completions per store of used.idx.  A driver that sleeps then works beside us instead of after us: half as fast
again at 32 requests in flight as one store a batch."""

INDEX_MASK = 0xFFFF
"""Ring indices run free and wrap here, whatever the queue size (virtio 1.3, 2.7.6 and 2.7.8)."""

RING_FEATURES = (
    VirtioFeature.VERSION_1
    | VirtioFeature.INDIRECT_DESC
    | (VirtioFeature.EVENT_IDX if FENCE_IS_FULL else VirtioFeature(0))
)
"""What the rings of this package can do, here: what a back-end may offer and a front-end may accept.

So are three more, which have to be asked for.  RING_PACKED: user-mode Linux accepts it and then begins every ring at a
base that a packed ring cannot begin at.  IN_ORDER: it makes the news of every request wait for the slowest in front of
it, which a driver that takes whatever it is offered (DPDK's) has not thought about.  RING_RESET: no message says that
one queue is reset.  QEMU stops the ring with GET_VRING_BASE and sets it up anew, which any back-end can do, but for its
network device only; with its others, disks among them, the guest would reset a ring that goes on here.
"""

_EVENT_WORD = 2


class UnsupportedRing(VhostUserError, ValueError):
    """A ring that this code cannot drive: its format, its size, or parts too short for its size."""


class BrokenQueue(VhostUserError):
    """The peer wrote something into the ring that no correct peer writes; nothing in it can be trusted any more.

    Attributes:
        ring: which ring, ``split ring 2`` or ``split ring`` when nobody gave it a number.
        reason: what the peer did.
    """

    def __init__(self, ring: str, reason: str) -> None:
        super().__init__(f"{ring}: {reason}")
        self.ring = ring
        self.reason = reason


class Lie(Exception):
    """The peer broke a rule of the ring; the text says how.  Whoever meets it makes it a `BrokenQueue`."""


class QueueFull(VhostUserError):
    """Not enough free descriptors for this chain now; they come back with `DriverQueue.reap`."""


class Segment(NamedTuple):
    """A piece of a buffer as the driver states it: a guest address and bytes."""

    addr: GuestAddr
    length: int


class Used(NamedTuple, Generic[T]):
    """A chain that came back: the token it was added with, and how many bytes the device wrote from its start."""

    token: T
    length: int


make_used: Any = partial(tuple.__new__, Used)
"""`Used` out of a pair of both, without the constructor in Python that named tuples have: 0.3 µs instead of 0.5."""


class PartSizes(NamedTuple):
    """Bytes of the three parts of a ring."""

    descriptor: int
    driver: int
    device: int


@dataclass(frozen=True, slots=True)
class RingLayout:
    """Where the three parts of a ring lie: views of shared memory, already known to be inside it.

    The names are those of virtio 1.3, 2.6.  For a split ring they are the descriptor table, the available ring and the
    used ring; for a packed ring the descriptor ring, and the event suppression of driver and device.  Views may be
    longer than needed.
    """

    queue_size: int
    descriptor: memoryview
    driver: memoryview
    device: memoryview

    @staticmethod
    def sizes(queue_size: int, features: int) -> PartSizes:
        """How many bytes of each part a ring of ``queue_size`` entries uses, with ``features`` (2.7 and 2.8).

        The event words of a split ring are counted only with EVENT_IDX: without it a peer need not have mapped them.

        Raises:
            UnsupportedRing: ``queue_size`` is out of range, or is no power of two and the ring is split.
        """
        if features & VirtioFeature.RING_PACKED:
            return _packed_sizes(queue_size)
        return _split_sizes(queue_size, 0 if features & VirtioFeature.EVENT_IDX else _EVENT_WORD)

    def cut(self, features: int) -> RingLayout:
        """The same ring with each part cut to what a ring with ``features`` may touch.

        Raises:
            UnsupportedRing: a part is too short, or the size is wrong.
        """
        sizes = self.sizes(self.queue_size, features)
        parts = (self.descriptor, self.driver, self.device)
        for name, part, size in zip(PartSizes._fields, parts, sizes, strict=True):
            if len(part) < size:
                raise UnsupportedRing(f"{name} area: {len(part)} bytes, a queue of {self.queue_size} needs {size}")
        return RingLayout(self.queue_size, *(part[:size] for part, size in zip(parts, sizes, strict=True)))


def _split_sizes(queue_size: int, absent: int) -> PartSizes:
    if not 0 < queue_size <= MAX_QUEUE_SIZE or queue_size & (queue_size - 1):
        raise UnsupportedRing(f"queue size {queue_size} is not a power of two from 1 to {MAX_QUEUE_SIZE}")
    driver, device = avail_ring_size(queue_size), used_ring_size(queue_size)
    return PartSizes(desc_table_size(queue_size), driver - absent, device - absent)


def _packed_sizes(queue_size: int) -> PartSizes:
    if not 0 < queue_size <= packed.MAX_QUEUE_SIZE:
        raise UnsupportedRing(f"queue size {queue_size} is not from 1 to {packed.MAX_QUEUE_SIZE}")
    events = packed.EVENT_SUPPRESSION_SIZE
    return PartSizes(packed.desc_ring_size(queue_size), events, events)


def initial_base(features: int) -> int:
    """The base of a ring that nobody has used yet (SET_VRING_BASE)."""
    return int(packed.INITIAL_BASE) if features & VirtioFeature.RING_PACKED else 0


def check_features(features: int) -> None:
    """Refuse ring features that nobody here implements.

    Raises:
        UnsupportedRing: with the name of the feature.
    """
    if features & VirtioFeature.EVENT_IDX and not FENCE_IS_FULL:
        raise UnsupportedRing("no full memory fence on this machine: do not negotiate EVENT_IDX (try libatomic)")
    if not NATIVE_IS_LITTLE:
        raise UnsupportedRing("rings are little-endian (virtio 1.3, 1.4) and this host is not")


def ring_words(part: memoryview) -> memoryview:
    """A part of a ring as 16-bit words, as `vhostuser.memory.words.words` has them.

    Raises:
        UnsupportedRing: it lies at an odd address (2.7 demands an even one, or more).
    """
    try:
        return words(part)
    except ValueError as error:
        raise UnsupportedRing(f"ring at an odd address: {error}") from error


def not_in_flight(name: str, chain: Chain) -> ValueError:
    """What somebody hears who gives a chain back that ring ``name`` has not lent him."""
    return ValueError(f"{name}: {chain!r} is not in flight: completed before, or from elsewhere")


def ring_name(ring_format: str, queue_index: int | None) -> str:
    """How errors call a ring."""
    return f"{ring_format} ring" if queue_index is None else f"{ring_format} ring {queue_index}"
