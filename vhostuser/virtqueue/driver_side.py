"""What the driver's side of a ring is in every format: which chains are out, and what a device may say of them.

A format (``split_driver.py``, ``packed_driver.py``) adds descriptors, the store that makes them visible (`_expose`),
how used elements are read (`_reap_into`), and the waking.

**IN_ORDER.**  The device may name one chain and mean all in front of it as well (virtio 1.3, 2.7.9 and 2.8.8).  So with
it chains stand in a line, a used element is worth a batch of them, and those that it does not name count as filled to
the last byte.  A batch may be longer than what the caller has room for; then the rest of it waits in `_batch`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from vhostuser.virtqueue.ring import BrokenQueue, Lie, make_used
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.virtqueue.indirect import IndirectTables
    from vhostuser.virtqueue.ring import Used

Token = TypeVar("Token")


@dataclass(slots=True)
class Record(Generic[Token]):
    """What we know about a chain that is out; nothing that the device can write to says it again.

    Attributes:
        token: whose it is.
        writable: bytes offered to the device.
        entries: how much of the ring it takes.
        descriptors: which those are, in a split ring.
    """

    token: Token
    writable: int
    entries: int
    descriptors: Sequence[int] = ()


class DriverSide(ABC, Generic[Token]):
    """A `vhostuser.virtqueue.queue.DriverQueue`, but for the format.

    Args:
        name: the ring, for messages.
        queue_size: its entries.
        features: what was negotiated.
        indirect: tables to use, if INDIRECT_DESC is among them.
    """

    __slots__ = (
        "_added",
        "_batch",
        "_event_idx",
        "_indirect",
        "_lie",
        "_line",
        "_name",
        "_published",
        "_queue_size",
    )

    def __init__(self, name: str, queue_size: int, features: int, indirect: IndirectTables | None) -> None:
        self._name = name
        self._queue_size = queue_size
        self._event_idx = bool(features & VirtioFeature.EVENT_IDX)
        self._indirect = indirect if features & VirtioFeature.INDIRECT_DESC else None
        if self._indirect is not None:
            self._indirect.check(queue_size)
        self._added: dict[int, Record[Token]] = {}
        self._published: dict[int, Record[Token]] = {}
        self._line: deque[int] | None = deque() if features & VirtioFeature.IN_ORDER else None
        self._batch: tuple[int, int] | None = None  # the chain that ends it, and its used length
        self._lie: str | None = None

    @property
    def outstanding(self) -> int:
        """Chains added and not reaped yet."""
        return len(self._added) + len(self._published)

    def publish(self) -> bool:
        """See `vhostuser.virtqueue.queue.DriverQueue.publish`."""
        if not self._added:
            return False
        if self._line is not None:
            self._line.extend(self._added)
        self._published.update(self._added)
        self._added.clear()
        return self._expose()

    def reap(self, limit: int) -> list[Used[Token]]:
        """See `vhostuser.virtqueue.queue.DriverQueue.reap`."""
        reaped: list[Used[Token]] = []
        try:
            if self._lie is not None:
                raise Lie(self._lie)
            if self._line is None:
                self._reap_into(reaped, limit)
            else:
                self._reap_in_order(self._line, reaped, limit)
        except Lie as lie:
            self._lie = str(lie)
            if not reaped:
                raise BrokenQueue(self._name, self._lie) from None
        return reaped

    def _reap_in_order(self, line: deque[int], reaped: list[Used[Token]], limit: int) -> None:
        while len(reaped) < limit:
            if self._batch is None:
                self._batch = self._next_batch(line)
            if self._batch is None:
                return
            head, length = self._batch
            oldest = line.popleft()
            record = self._published.pop(oldest)
            if oldest == head:
                self._batch = None
            else:
                length = record.writable
            self._take_back(oldest, record)
            reaped.append(make_used((record.token, length)))

    def _untrue(self, what: str, head: int, length: int) -> Lie:
        """What is wrong with an element ``what`` that says that ``length`` bytes of chain ``head`` were written."""
        record = self._published.get(head)
        if record is None:
            return Lie(f"{what} names chain {head}, which is not outstanding")
        return Lie(f"{what} says {length} bytes written to chain {head}, which offered {record.writable}")

    @abstractmethod
    def _expose(self) -> bool:
        """Let the device see what was added; see `publish`."""

    @abstractmethod
    def _reap_into(self, reaped: list[Used[Token]], limit: int) -> None:
        """Fill ``reaped`` with up to ``limit`` chains, each named by a used element of its own.

        Raises:
            Lie: what the next one says cannot be.
        """

    @abstractmethod
    def _next_batch(self, line: deque[int]) -> tuple[int, int] | None:
        """The last chain of the next batch and its used length; None: the device has written no more.

        Raises:
            Lie: what it says cannot be.
        """

    @abstractmethod
    def _take_back(self, head: int, record: Record[Token]) -> None:
        """Go past one chain that was used; what it took is free again."""
