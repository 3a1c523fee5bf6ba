"""The area in which a back-end records requests in flight, looked at and written by the case.

The document says which fields there are and when they change, but not how far one queue's part is from the next: here
it is rounded up to 64 bytes, as by all who are known.  For devices whose first queue takes requests that is no matter.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from vhostuser.conformance import Failure
from vhostuser.fd import Fd, Fds
from vhostuser.memory.backends import MemoryBackendMemfd
from vhostuser.wire.frontend_messages import GetInflightFd, SetInflightFd
from vhostuser.wire.inflight import (
    DescStatePacked,
    DescStateSplit,
    QueueRegionPacked,
    QueueRegionSplit,
    packed_region_size,
    split_region_size,
)
from vhostuser.wire.records import Inflight

if TYPE_CHECKING:
    from frontend.conformance.session import Session
    from vhostuser.wire.schema import Structure

S = TypeVar("S", bound="Structure")


@dataclass(eq=False)
class InflightArea:
    """The shared memory of GET_INFLIGHT_FD, or some of our own making.

    Attributes:
        fd: of the memory.
        mmap_size: bytes, as in the message.
        mmap_offset: where it begins in the file.
        queues: of how many queues.
        size: entries of each.
        packed: which of the two layouts.
        view: its bytes.
    """

    fd: Fd
    mmap_size: int
    mmap_offset: int
    queues: int
    size: int
    packed: bool
    view: memoryview

    # --- where it comes from ---

    @classmethod
    def made(cls, queues: int, size: int, *, packed: bool = False) -> Self:
        """New memory, all zeros: an area that nobody has used."""
        length = queues * (packed_region_size(size) if packed else split_region_size(size))
        length = -(-length // mmap.PAGESIZE) * mmap.PAGESIZE
        block = MemoryBackendMemfd(size=length, seal=False).allocate()
        return cls(block.fd, length, 0, queues, size, packed, block.view)

    @classmethod
    async def got(cls, session: Session, queues: int, size: int, *, packed: bool = False) -> Self:
        """GET_INFLIGHT_FD, whose answer has to bear memory that can be mapped.

        Raises:
            Failure: it does not.
        """
        await session.send(GetInflightFd(0, 0, queues, size))
        answer = await session.receive(what="the reply to GET_INFLIGHT_FD")
        with answer.fds:
            told = answer.parse(Inflight)
            if len(answer.fds) != 1 or not told.mmap_size:
                raise Failure(
                    f"GET_INFLIGHT_FD: found {len(answer.fds)} descriptors for {told.mmap_size} bytes, expected one"
                )
            fd = answer.fds[0].duplicate()
        return cls(fd, told.mmap_size, told.mmap_offset, told.num_queues, told.queue_size, packed, _mapped(fd, told))

    # --- for messages ---

    @property
    def message(self) -> SetInflightFd:
        """SET_INFLIGHT_FD that hands it over."""
        return SetInflightFd(self.mmap_size, self.mmap_offset, self.queues, self.size)

    async def share(self, session: Session) -> None:
        """SET_INFLIGHT_FD, which has to be accepted."""
        await session.tell(self.message, Fds.of(self.fd.duplicate()))

    # --- what stands in it ---

    @property
    def stride(self) -> int:
        """Bytes from one queue's part to the next, as those have it who say."""
        return packed_region_size(self.size) if self.packed else split_region_size(self.size)

    def header(self, queue: int = 0) -> QueueRegionSplit:
        """Of a split queue."""
        return self._read(QueueRegionSplit, queue * self.stride)

    def packed_header(self, queue: int = 0) -> QueueRegionPacked:
        """Of a packed queue."""
        return self._read(QueueRegionPacked, queue * self.stride)

    def entry(self, number: int, queue: int = 0) -> DescStateSplit:
        """The state of a split queue's descriptor."""
        return self._read(DescStateSplit, self._entry_at(number, queue))

    def packed_entry(self, number: int, queue: int = 0) -> DescStatePacked:
        """The state of a packed queue's descriptor."""
        return self._read(DescStatePacked, self._entry_at(number, queue))

    def in_flight(self, queue: int = 0) -> list[int]:
        """Heads that are recorded as in flight, oldest first."""
        entry = self.packed_entry if self.packed else self.entry
        found = [(state.counter, n) for n in range(self.size) if (state := entry(n, queue)).inflight]
        return [number for _, number in sorted(found)]

    def put(self, record: Structure, at: int) -> None:
        """Write a record at a byte."""
        data = record.build()
        self.view[at : at + len(data)] = data

    def put_header(self, record: QueueRegionSplit | QueueRegionPacked, queue: int = 0) -> None:
        """Write a queue's header."""
        self.put(record, queue * self.stride)

    def put_entry(self, number: int, record: DescStateSplit | DescStatePacked, queue: int = 0) -> None:
        """Write a descriptor's state."""
        self.put(record, self._entry_at(number, queue))

    def _entry_at(self, number: int, queue: int) -> int:
        header, state = (
            (QueueRegionPacked.wire_size(), DescStatePacked.wire_size())
            if self.packed
            else (QueueRegionSplit.wire_size(), DescStateSplit.wire_size())
        )
        return queue * self.stride + header + number * state

    def _read(self, kind: type[S], at: int) -> S:
        data = bytes(self.view[at : at + kind.wire_size()])
        if len(data) != kind.wire_size():
            raise Failure(f"inflight area: {len(self.view)} bytes, {kind.__name__} at {at} does not fit")
        return kind.parse(data)

    def close(self) -> None:
        """Close the descriptor; the mapping goes with the last view."""
        self.fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _mapped(fd: Fd, told: Inflight) -> memoryview:
    """The bytes that the answer speaks of.

    Raises:
        Failure: they are not in the file, or it cannot be mapped.
    """
    there = os.fstat(fd.fileno()).st_size
    if told.mmap_offset + told.mmap_size > there:
        raise Failure(f"inflight area: {told.mmap_size} bytes from {told.mmap_offset} on, the file has {there}")
    try:
        whole = mmap.mmap(fd.fileno(), told.mmap_offset + told.mmap_size)
    except (OSError, ValueError) as error:
        raise Failure(f"the inflight area cannot be mapped: {error}") from None
    return memoryview(whole)[told.mmap_offset :]
