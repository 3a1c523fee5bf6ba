"""Queues that record in an inflight area what they have taken, and take it up again after a crash.

A chain is recorded before the device sees it, and struck out after the driver has seen it come back.  What lies
between is done again by whoever gets the area next: twice, if need be, since the driver has heard of none of it.

Where such a queue stands is what the area says, whatever SET_VRING_BASE says: at its used position, and as much
further as is in flight.  The two formats are in ``recorded_split.py`` and ``recorded_packed.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from itertools import islice
from typing import TYPE_CHECKING

from vhostuser.virtqueue.chain import Chain
from vhostuser.virtqueue.device_side import DeviceSide
from vhostuser.virtqueue.ring import UnsupportedRing
from vhostuser.wire.inflight import VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.conformance.backends.area import Part

COUNTER_MASK = (1 << 64) - 1


class Recorded(DeviceSide):
    """What both formats have in common."""

    _part: Part
    _counter = 0

    def _open_part(self, part: Part) -> None:
        """Begin or go on with ``part``.

        Raises:
            UnsupportedRing: nobody can have left it like this.
        """
        header, self._part = part.header, part
        if header.version == 0:
            self._begin()
            header.desc_num, header.features = self._queue_size, 0
            header.version = VERSION  # last: until then nothing in it counts
        if header.version != VERSION or header.desc_num != self._queue_size:
            raise self._nonsense(f"version {header.version} for {header.desc_num} entries")
        self._recover()
        self._again = part.in_flight()
        self._counter = part.entries[self._again[-1]].counter if self._again else 0

    def _nonsense(self, what: str) -> UnsupportedRing:
        return UnsupportedRing(f"{self._name}: inflight area: found {what}, in a ring of {self._queue_size}")

    # --- chains in ---

    def _pop_into(self, chains: list[Chain], limit: int) -> None:
        while self._again and len(chains) < limit:
            chain = self._take_again(self._again[0])
            self._in_flight[chain.head] = chain
            chains.append(chain)
            del self._again[0]
        before, new = self._next_avail, list[Chain]()
        try:
            super()._pop_into(new, limit - len(chains))  # type: ignore[safe-super]  # the format's, which has one
        finally:
            for chain in new:
                self._record(chain, before)
                before += chain.entries
            chains += new

    def _count(self) -> int:
        self._counter = self._counter + 1 & COUNTER_MASK
        return self._counter

    # --- used elements out ---

    def _give_back(self, chains: Iterable[Chain]) -> bool:
        rest, wanted = iter(chains), False
        while batch := list(islice(rest, self._batch)):
            self._prepare(batch)
            wanted |= super()._give_back(batch)  # type: ignore[safe-super]
            self._settle(batch)
        return wanted

    # --- the format ---

    @property
    @abstractmethod
    def _batch(self) -> int:
        """How many chains may go back now, so that the driver sees all of them at once."""

    @abstractmethod
    def _begin(self) -> None:
        """Make the part that of a queue that has nothing in flight, but for its version."""

    @abstractmethod
    def _recover(self) -> None:
        """Finish what somebody was killed over."""

    @abstractmethod
    def _take_again(self, entry: int) -> Chain:
        """The chain that is in flight at ``entry``.

        Raises:
            Lie: it is none.
        """

    @abstractmethod
    def _record(self, chain: Chain, position: int) -> None:
        """A chain was taken, at ``position``."""

    @abstractmethod
    def _prepare(self, batch: Sequence[Chain]) -> None:
        """The driver is about to see these come back."""

    @abstractmethod
    def _settle(self, batch: Sequence[Chain]) -> None:
        """The driver has seen them."""
