"""Giving back in the order of taking: what IN_ORDER asks of a device (virtio 1.3, 2.7.9 and 2.8.8).

A device finishes its requests in whatever order suits it.  With IN_ORDER the driver must not see that: a chain that is
done before its turn waits here until those in front of it are done too.  Nothing else waits.  The device goes on
working on all of them at once, only the news of a fast request is held back behind a slow one, as the standard demands.

The standard lets a device write one used element for several chains, that of the last one.  The driver then takes
those in front of it to be used "completely": every byte of their writable parts written.  That is not true of a read
that failed or a packet shorter than its buffer, and saves little, so our devices write the element of every chain,
each with its true length.  Our drivers understand both.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from vhostuser.virtqueue.ring import not_in_flight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vhostuser.virtqueue.chain import Chain


class InOrder:
    """Chains in the order in which they were taken, until each has had its turn.

    Args:
        name: the ring, for messages.
    """

    __slots__ = ("_done", "_line", "_name")

    def __init__(self, name: str) -> None:
        self._name = name
        self._line: deque[Chain] = deque()
        self._done: dict[Chain, bool] = {}  # for each chain in the line

    def took(self, chains: Iterable[Chain]) -> None:
        """These came out of the ring, in this order, after all others."""
        self._line.extend(chains)
        self._done.update(dict.fromkeys(chains, False))

    def due(self, chains: Iterable[Chain]) -> Iterator[Chain]:
        """The chains whose turn it is, one by one, while one after the other of ``chains`` is done.

        Raises:
            ValueError: a chain is done already, or was never taken.  The others are not touched by it.
        """
        line, done = self._line, self._done
        for chain in chains:
            if done.get(chain, True):
                raise not_in_flight(self._name, chain)
            done[chain] = True
            while line and done[line[0]]:
                del done[line[0]]
                yield line.popleft()
