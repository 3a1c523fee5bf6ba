"""What the device's side of a ring is in every format: which chains it has, and that a lie ends it.

A format (``split_device.py``, ``packed_device.py``) adds where the parts lie (`_bind`), how chains come out of the ring
(`_pop_into`), how they go back (`_give_back`), and the waking.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from vhostuser.virtqueue.in_order import InOrder
from vhostuser.virtqueue.ring import BrokenQueue, Lie, UnsupportedRing
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vhostuser.memory.map import GuestMemory
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.virtqueue.ring import RingLayout

MAX_USED_LENGTH = (1 << 32) - 1
"""A chain may have one byte more than this field can say; less than the truth is legal."""


class DeviceSide(ABC):
    """A `vhostuser.virtqueue.queue.DeviceQueue`, but for the format.

    Args:
        name: the ring, for messages.
        layout: its parts.
        memory: where the chains' addresses lead.
        features: what was negotiated.
    """

    __slots__ = (
        "_event_idx",
        "_features",
        "_in_flight",
        "_in_order",
        "_lie",
        "_name",
        "_next_avail",
        "_next_used",
        "_queue_size",
        "_signalled_used",
    )

    _next_avail: int
    _next_used: int

    def __init__(self, name: str, layout: RingLayout, memory: GuestMemory, features: int) -> None:
        self._name = name
        self._features = features
        self._event_idx = bool(features & VirtioFeature.EVENT_IDX)
        self._in_order = InOrder(name) if features & VirtioFeature.IN_ORDER else None
        self._queue_size = layout.queue_size
        self._in_flight: dict[int, Chain] = {}
        self._lie: str | None = None
        self._signalled_used: int | None = None  # nobody has been notified yet: the first completion always does
        self.rebind(layout, memory)

    def rebind(self, layout: RingLayout, memory: GuestMemory) -> None:
        """See `vhostuser.virtqueue.queue.DeviceQueue.rebind`."""
        if layout.queue_size != self._queue_size:
            raise UnsupportedRing(f"{self._name}: resized from {self._queue_size} to {layout.queue_size} while open")
        self._bind(layout.cut(self._features), memory)

    @property
    def in_flight(self) -> int:
        """Chains popped and not given back yet; IN_ORDER holds those back that are completed before their turn."""
        return len(self._in_flight)

    def pop(self, limit: int) -> list[Chain]:
        """See `vhostuser.virtqueue.queue.DeviceQueue.pop`."""
        chains: list[Chain] = []
        try:
            if self._lie is not None:
                raise Lie(self._lie)
            self._pop_into(chains, limit)
        except Lie as lie:
            self._lie = str(lie)
            if not chains:
                raise BrokenQueue(self._name, self._lie) from None
        if self._in_order is not None:
            self._in_order.took(chains)
        return chains

    def complete(self, chains: Iterable[Chain]) -> bool:
        """See `vhostuser.virtqueue.queue.DeviceQueue.complete`."""
        return self._give_back(chains if self._in_order is None else self._in_order.due(chains))

    @abstractmethod
    def _bind(self, layout: RingLayout, memory: GuestMemory) -> None:
        """Go on with ``layout``, cut to size.

        Raises:
            UnsupportedRing: a part lies at an odd address.  Nothing has changed then.
        """

    @abstractmethod
    def _pop_into(self, chains: list[Chain], limit: int) -> None:
        """Fill ``chains`` with up to ``limit``, each of them in `_in_flight` from then on.

        Raises:
            Lie: the next one is none.
        """

    @abstractmethod
    def _give_back(self, chains: Iterable[Chain]) -> bool:
        """Write their used elements, in this order; see `complete`."""
