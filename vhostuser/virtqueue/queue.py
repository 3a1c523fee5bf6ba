"""The two sides of a virtqueue, behind one interface each for every ring format and engine.

Everything moves in batches: a call may cost one look at a shared index, one fence and one decision about waking the
peer, whether it moves one chain or a hundred.

The loop of a device, without its waiting::

    queue.disarm()
    while chains := queue.pop(limit):
        ...                                   # readable in, writable out
        if queue.complete(chains):
            call.notify()
    if not queue.arm():
        await kick.wait()                     # and again

A driver's is the mirror of it: ``add`` and ``publish`` out, ``reap`` back, ``arm`` before it sleeps on the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from vhostuser.virtqueue.engine import ENGINE
from vhostuser.virtqueue.engine.classes import device_class, driver_class
from vhostuser.virtqueue.ring import (
    PUBLISH_EVERY,
    RING_FEATURES,
    BrokenQueue,
    PartSizes,
    QueueFull,
    RingLayout,
    Segment,
    UnsupportedRing,
    Used,
    check_features,
    initial_base,
)
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vhostuser.memory.map import GuestMemory
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.engine import Engine
    from vhostuser.virtqueue.indirect import IndirectTables

__all__ = [
    "ENGINE",
    "PUBLISH_EVERY",
    "RING_FEATURES",
    "BrokenQueue",
    "DeviceQueue",
    "DriverQueue",
    "PartSizes",
    "QueueFull",
    "RingLayout",
    "Segment",
    "UnsupportedRing",
    "Used",
    "initial_base",
    "open_device_queue",
    "open_driver_queue",
]

Token = TypeVar("Token")


class DeviceQueue(Protocol):
    """The device's side: chains in, used elements out.  Not for two threads at once."""

    def pop(self, limit: int) -> list[Chain]:
        """Take up to ``limit`` chains that the driver made available.

        Returns:
            The chains in the driver's order; they are in flight until `complete` gets them.  Empty: nothing there.

        Raises:
            BrokenQueue: the driver broke a rule of the ring.  Good chains in front of the lie are returned first,
                and the next call raises; from then on every call does.  `complete` still works.
        """

    def complete(self, chains: Iterable[Chain]) -> bool:
        """Give chains back, in any order; the used length of each is ``chain.written``.

        Returns:
            True when the driver wants a used buffer notification for these.

        Raises:
            ValueError: a chain is not in flight here.  Those before it have been given back.
        """

    def arm(self) -> bool:
        """Ask the driver for kicks.

        Returns:
            True when there is something to pop already (or an error to hear of): do not sleep.
        """

    def disarm(self) -> None:
        """Tell the driver that kicks are a waste now.  A hint: it may kick all the same."""

    def rebind(self, layout: RingLayout, memory: GuestMemory) -> None:
        """Go on in other memory, as after SET_MEM_TABLE or SET_VRING_ADDR; positions stay.

        Chains in flight keep the memory they were popped from; their used elements go to the new ring.

        Raises:
            UnsupportedRing: the ring has another size, or a part is too short.  Nothing has changed then.
        """

    @property
    def base(self) -> int:
        """Where the ring stands, as GET_VRING_BASE wants it; the whole truth only when nothing is in flight."""

    @property
    def in_flight(self) -> int:
        """Chains popped and not completed yet."""


class DriverQueue(Protocol[Token]):
    """The driver's side: chains out, used elements back.  Not for two threads at once."""

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment], token: Token) -> None:
        """Write one chain into the ring; the device sees it after `publish`.

        Args:
            readable: what the device reads, in order.
            writable: what it fills; at least one segment in all, none of them empty.
            token: comes back from `reap`.  The segments' memory belongs to the device until then.

        Raises:
            QueueFull: not enough descriptors are free now.
            ValueError: this chain can never be added.
        """

    def publish(self) -> bool:
        """Let the device see what was added.

        Returns:
            True when the device wants a kick for it.
        """

    def reap(self, limit: int) -> list[Used[Token]]:
        """Take up to ``limit`` chains that the device has used, in the order it used them.

        Raises:
            BrokenQueue: the device named a chain that is not out, more bytes than offered, or moved an index too
                far.  Good ones in front of the lie are returned first; from then on every call raises.
        """

    def arm(self) -> bool:
        """Ask the device for notifications.

        Returns:
            True when there is something to reap already (or an error to hear of): do not sleep.
        """

    def disarm(self) -> None:
        """Tell the device that notifications are a waste now.  A hint: it may notify all the same."""

    @property
    def free(self) -> int:
        """Descriptors that `add` can still take; with indirect tables, that many chains."""

    @property
    def outstanding(self) -> int:
        """Chains added and not reaped yet."""


def open_device_queue(
    layout: RingLayout,
    memory: GuestMemory,
    features: int,
    *,
    base: int,
    queue_index: int | None = None,
    engine: Engine | None = None,
) -> DeviceQueue:
    """The device's side of a ring that a driver has prepared.

    Args:
        layout: the parts of the ring.
        memory: where the chains' addresses lead, a `GuestMemory`.
        features: what was acknowledged with SET_FEATURES; RING_PACKED among them chooses the format.
        base: where the ring stands (SET_VRING_BASE).
        queue_index: for messages.
        engine: who drives it, if not the engine of this process; for tests and measurements.

    Raises:
        UnsupportedRing: the format, the size, or a base that is not in the ring.
    """
    check_features(features)
    device = device_class(engine or ENGINE, packed=bool(features & VirtioFeature.RING_PACKED))
    return device(layout, memory, features, base=base, queue_index=queue_index)


def open_driver_queue(
    layout: RingLayout,
    features: int,
    *,
    indirect: IndirectTables | None = None,
    base: int | None = None,
    queue_index: int | None = None,
    engine: Engine | None = None,
) -> DriverQueue[Any]:
    """The driver's side of a ring that no device looks at yet; prepares the memory of all three parts.

    Args:
        layout: the parts of the ring.
        features: what was acknowledged with SET_FEATURES; RING_PACKED among them chooses the format.
        indirect: tables to use, if INDIRECT_DESC is among them, for chains of more than one segment.
        base: where to begin, `initial_base` unless given; the same number goes to the device with SET_VRING_BASE.
        queue_index: for messages.
        engine: who drives it, if not the engine of this process; for tests and measurements.

    Raises:
        UnsupportedRing: the format, the size, a base at which no empty ring stands, or tables too small.
    """
    check_features(features)
    base = initial_base(features) if base is None else base
    driver = driver_class(engine or ENGINE, packed=bool(features & VirtioFeature.RING_PACKED))
    return driver(layout, features, indirect=indirect, base=base, queue_index=queue_index)
