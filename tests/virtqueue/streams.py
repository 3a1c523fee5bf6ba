"""Chains over given pieces of memory, of the class that the engine of the test makes."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from vhostuser.memory.map import GuestAddr, GuestMemory
from vhostuser.testing.rings import RingBuilder
from vhostuser.virtqueue import queue
from vhostuser.virtqueue.chain import Chain
from vhostuser.virtqueue.queue import Segment, open_device_queue
from vhostuser.wire.records import MemoryRegion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.virtqueue.chain import Reader, Writer

START = 0x10_0000


def chain_of(head: int, readable: Sequence[memoryview], writable: Sequence[memoryview]) -> Chain:
    """A chain of exactly these pieces."""
    if queue.ENGINE == "python":
        return Chain(head, list(readable), list(writable))
    # A compiled chain comes out of a ring.  Each piece is a region, touching the next; a buffer that spans them is cut
    # where they meet.
    pieces = [piece for piece in (*readable, *writable) if len(piece)]
    ends = accumulate(map(len, pieces), initial=START)
    memory = GuestMemory.of(
        *((MemoryRegion(addr, len(piece), addr, 0), piece) for addr, piece in zip(ends, pieces, strict=False))
    )
    read, write = sum(map(len, readable)), sum(map(len, writable))
    ring = RingBuilder(8)
    ring.chain(head, (Segment(GuestAddr(START), read), False), (Segment(GuestAddr(START + read), write), True))
    ring.offer(head)
    (chain,) = open_device_queue(ring.layout, memory, ring.features, base=0).pop(1)
    return chain


def reader_of(pieces: Sequence[memoryview]) -> Reader:
    """The stream of these pieces, to read."""
    return chain_of(0, pieces, []).readable


def writer_of(pieces: Sequence[memoryview]) -> Writer:
    """The stream of these pieces, to fill."""
    return chain_of(0, [], pieces).writable
