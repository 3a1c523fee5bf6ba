"""A front-end for tests of back-ends: every message by hand or the usual ones in a row, shared memory, and rings.

It blocks, and gives up after a few seconds; no event loop is needed::

    frontend.negotiate()
    frontend.share_memory()
    ring = frontend.open_ring(0)
    assert ring.request(writable=[16]).length == 16

What the protocol forbids it does not send; `Line` does, and is there as ``frontend.line``.
"""

from __future__ import annotations

import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from vhostuser.fd import NO_FDS, Fds
from vhostuser.memory.address import address_of
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.memory.map import GuestAddr
from vhostuser.protocol.frontend import FrontendProtocol
from vhostuser.testing.line import Line, wait_for
from vhostuser.transport.notifier import event_pair
from vhostuser.virtqueue.queue import RingLayout, Segment, initial_base, open_driver_queue
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetFeatures,
    GetProtocolFeatures,
    SetFeatures,
    SetMemTable,
    SetOwner,
    SetProtocolFeatures,
    SetVringAddr,
    SetVringBase,
    SetVringCall,
    SetVringEnable,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.records import U64, MemoryRegion, VringAddrFlags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.memory.backends import MemoryBlock
    from vhostuser.protocol.frontend import Reply
    from vhostuser.transport.notifier import EventConsumer, EventNotifier
    from vhostuser.virtqueue.queue import DriverQueue
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

    S = TypeVar("S", bound=Structure)

FIRST_ADDR = 1 << 20
"""Guest address of the memory: not 0, and not where it lies in this process."""
ALIGNMENT = 64
VIRTIO_FEATURES = VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES
PROTOCOL_FEATURES = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG


@dataclass(frozen=True)
class Completed:
    """What became of a chain.

    Attributes:
        length: bytes that the device says it wrote.
        data: the whole of each writable buffer.
    """

    length: int
    data: list[bytes]


class ScriptedMemory:
    """Shared memory of one region, given out piece by piece and never taken back."""

    def __init__(self, size: int) -> None:
        self.block: MemoryBlock = MemoryBackendShm(size=size).allocate()
        self._used = 0

    @property
    def region(self) -> MemoryRegion:
        """As a memory table has it."""
        view = self.block.view
        return MemoryRegion(FIRST_ADDR, view.nbytes, address_of(view), self.block.mmap_offset)

    def piece(self, size: int) -> tuple[GuestAddr, memoryview]:
        """New room: where it is for the guest, and its bytes.

        Raises:
            MemoryError: there is none left.
        """
        at = self._used
        if at + size > self.block.view.nbytes:
            raise MemoryError(f"{size} bytes wanted, {self.block.view.nbytes - at} are left: share more memory")
        self._used = -(-(at + size) // ALIGNMENT) * ALIGNMENT
        return GuestAddr(FIRST_ADDR + at), self.block.view[at : at + size]


class ScriptedRing:
    """A running ring: the driver's side, with its kick and call.

    Attributes:
        queue: the driver's side, to add chains by hand.
    """

    def __init__(
        self,
        queue: DriverQueue[Any],
        memory: ScriptedMemory,
        kick: EventNotifier,
        call: EventConsumer,
        *,
        timeout: float,
    ) -> None:
        self.queue = queue
        self._memory, self._kick, self._call, self._timeout = memory, kick, call, timeout

    def request(self, readable: Sequence[bytes] = (), writable: Sequence[int] = ()) -> Completed:
        """Have one chain done.

        Args:
            readable: what the device reads.
            writable: the sizes of what it fills.

        Raises:
            PeerSilent: the device did not give it back in time.
            BrokenQueue: it gave back something else.
        """
        asked = [self._filled(data) for data in readable]
        rooms = [self._memory.piece(size) for size in writable]
        self.queue.add(asked, [Segment(addr, view.nbytes) for addr, view in rooms], object())
        if self.queue.publish():
            self._kick.notify()
        return Completed(self._done(), [bytes(view) for _, view in rooms])

    def close(self) -> None:
        """Close kick and call; the back-end is not told."""
        self._kick.close()
        self._call.close()

    def _filled(self, data: bytes) -> Segment:
        addr, view = self._memory.piece(len(data))
        view[:] = data
        return Segment(addr, len(data))

    def _done(self) -> int:
        until = time.monotonic() + self._timeout
        while not (used := self.queue.reap(1)):
            if not self.queue.arm():
                wait_for(self._call.fileno(), select.POLLIN, until, "a chain to come back")
                self._call.drain()
        return used[0].length


class ScriptedFrontend:
    """A front-end that does what a test says.

    Args:
        sock: connected to the back-end, owned from now on.
        timeout: seconds that the back-end has for each answer.

    Attributes:
        line: the connection, for what no front-end should send.
        protocol: the rules, and what has been negotiated.
        features: virtio features in force.
        protocol_features: protocol features in force.
    """

    def __init__(self, sock: socket.socket, *, timeout: float = 5.0) -> None:
        self.line = Line(sock, timeout=timeout)
        self.protocol = FrontendProtocol()
        self.features = VirtioFeature(0)
        self.protocol_features = ProtocolFeature(0)
        self._timeout = timeout
        self._memory: ScriptedMemory | None = None
        self._rings: list[ScriptedRing] = []

    @classmethod
    def connect(cls, path: str, *, timeout: float = 5.0) -> Self:
        """A front-end of the back-end that listens at ``path``.

        Raises:
            OSError: nobody does.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect(path)
        except BaseException:
            sock.close()
            raise
        return cls(sock, timeout=timeout)

    # --- messages ---

    def call(self, message: Message, fds: Fds = NO_FDS, *, ack: bool | None = None) -> Reply | None:
        """Send a message and wait for its answer, if there is to be one.

        Args:
            message: what to send.
            fds: go with it; owned and closed here.
            ack: ask for an acknowledgement; by default wherever it is possible.

        Returns:
            The answer, whose descriptors the caller owns; None if there is none.

        Raises:
            RequestRefused: the back-end will not.
            LocalProtocolError: the protocol forbids it now; nothing was sent.
            RemoteProtocolError: what came is no answer to this.
            PeerSilent: no answer came.
            PeerGone: the back-end hung up.
        """
        before = len(self.protocol.outstanding)
        with fds:
            self.line.send(self.protocol.request(message, fds, ack=ack))
        if len(self.protocol.outstanding) == before:
            return None
        reply = self.protocol.receive(self.line.receive())
        reply.check()
        return reply

    def ask(self, message: Message, kind: type[S]) -> S:
        """As `call`, for a question: the payload of its reply; descriptors are closed.

        Raises:
            TypeError: the question has no such reply.
        """
        reply = self.call(message)
        value = None if reply is None else reply.value
        if reply is not None:
            reply.fds.close()
        if not isinstance(value, kind):
            raise TypeError(f"{message.spec.name}: found {value!r}, expected {kind.__name__}")
        return value

    # --- the usual order ---

    def negotiate(
        self,
        features: int = VIRTIO_FEATURES,
        protocol_features: ProtocolFeature = PROTOCOL_FEATURES,
    ) -> None:
        """Acknowledge these features, as far as they are offered."""
        offered = VirtioFeature(self.ask(GetFeatures(), U64).value)
        if offered & features & VirtioFeature.PROTOCOL_FEATURES:
            found = ProtocolFeature(self.ask(GetProtocolFeatures(), U64).value)
            self.protocol_features = found & protocol_features
            self.call(SetProtocolFeatures(self.protocol_features), ack=False)
        self.call(SetOwner())
        self.features = offered & features
        self.call(SetFeatures(self.features))

    def share_memory(self, size: int = 1 << 20) -> ScriptedMemory:
        """SET_MEM_TABLE with one new region of ``size`` bytes; for one that was shared before, it is too late then."""
        memory = ScriptedMemory(size)
        self._forget_memory()
        self._memory = memory
        self.call(SetMemTable((memory.region,)), Fds.of(memory.block.fd.duplicate()))
        return memory

    def open_ring(self, index: int = 0, *, queue_size: int = 16) -> ScriptedRing:
        """Set up ring ``index`` in the shared memory, start and enable it; packed if that was negotiated.

        Raises:
            RuntimeError: no memory is shared.
        """
        if self._memory is None:
            raise RuntimeError("no memory is shared: call share_memory() first")
        sizes = RingLayout.sizes(queue_size, self.features)
        parts = [self._memory.piece(size)[1] for size in sizes]
        queue = open_driver_queue(RingLayout(queue_size, *parts), self.features, queue_index=index)
        desc, driver, device = map(address_of, parts)
        kick, kicked = event_pair()
        caller, call = event_pair()
        ring = ScriptedRing(queue, self._memory, kick, call, timeout=self._timeout)
        self._rings.append(ring)
        with kicked, caller:
            self.call(SetVringNum(index, queue_size))
            self.call(SetVringBase(index, initial_base(self.features)))
            self.call(SetVringAddr(index, VringAddrFlags(0), desc, device, driver, 0))
            self.call(SetVringCall.of(index, no_fd=False), Fds.of(caller.take_fd()))
            self.call(SetVringKick.of(index, no_fd=False), Fds.of(kicked.take_fd()))
        if self.features & VirtioFeature.PROTOCOL_FEATURES:
            self.call(SetVringEnable(index, 1))
        return ring

    # --- the end ---

    def close(self) -> None:
        """Hang up, and close all that was shared."""
        self.line.close()
        while self._rings:
            self._rings.pop().close()
        self._forget_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _forget_memory(self) -> None:
        if self._memory is not None:
            self._memory.block.close()
            self._memory = None
