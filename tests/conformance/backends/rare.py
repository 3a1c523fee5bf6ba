"""A back-end with the features that hardly anybody has: ``python -m tests.conformance.backends.rare SOCKET``.

An entropy source with a dirty log, an IOMMU, notifications in messages, and Xen's memory regions.  It exists so that
the cases for these run for real: one front-end at a time, one thread, one chain after the other.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.conformance.backends.rare_memory import AddressSpace, BadEntry, DirtyLog, Miss
from vhostuser.errors import Hint, RemoteProtocolError, VhostUserError
from vhostuser.memory.map import GuestAddressError
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.framing import Frame
from vhostuser.protocol.rings import Notify
from vhostuser.testing.line import Line, PeerGone
from vhostuser.transport.notifier import EventConsumer, EventNotifier, PeerClosed
from vhostuser.virtqueue.queue import BrokenQueue, DeviceQueue, RingLayout, open_device_queue
from vhostuser.wire.backend_messages import BackendIotlbMsg, BackendVringCall, BackendVringErr
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetVringBase,
    IotlbMsg,
    SetBackendReqFd,
    SetFeatures,
    SetLogBase,
    SetMemTable,
    SetVringAddr,
    SetVringCall,
    SetVringErr,
    SetVringKick,
    XenSetMemTable,
)
from vhostuser.wire.records import U64, IotlbPermission, IotlbType, Opaque, VringAddrFlags, VringState
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.fd import Fds
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message

FEATURES = (
    VirtioFeature.VERSION_1
    | VirtioFeature.INDIRECT_DESC
    | VirtioFeature.EVENT_IDX
    | VirtioFeature.RING_PACKED
    | VirtioFeature.ACCESS_PLATFORM
    | VirtioFeature.LOG_ALL
    | VirtioFeature.PROTOCOL_FEATURES
)
PROTOCOL_FEATURES = (
    ProtocolFeature.MQ
    | ProtocolFeature.LOG_SHMFD
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.INBAND_NOTIFICATIONS
    | ProtocolFeature.XEN_MMAP
    | ProtocolFeature.GPA_ADDRESSES
)
ANY = IotlbPermission.READ | IotlbPermission.WRITE
MESSAGE_TIMEOUT = 2.0
LOOK_MS = 1
"""How often a ring without kick descriptor is looked at."""


class Ring:
    """One ring: its descriptors, and its queue while it runs."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.queue: DeviceQueue | None = None
        self.broken = False
        self.kick: EventConsumer | None = None
        self.call: EventNotifier | None = None
        self.err: EventNotifier | None = None

    def close(self) -> None:
        """Let go of everything."""
        self.queue = None
        for end in filter(None, (self.kick, self.call, self.err)):
            end.close()
        self.kick = self.call = self.err = None


class Backend:
    """One connection."""

    def __init__(self, line: Line, sock: socket.socket) -> None:
        self.line, self.sock = line, sock
        self.protocol = BackendProtocol(features=FEATURES, protocol_features=PROTOCOL_FEATURES, num_queues=1)
        self.space = AddressSpace()
        self.log: DirtyLog | None = None
        self.ring = Ring(0)
        self.bases: int | None = None
        self.channel: Line | None = None
        self.asked: set[int] = set()

    @property
    def state(self) -> Any:
        """What the protocol knows of the ring."""
        return self.protocol.state.rings[0]

    def run(self) -> None:
        """Until the front-end hangs up."""
        try:
            while True:
                poll = select.poll()
                poll.register(self.sock, select.POLLIN)
                if self.ring.kick is not None:
                    poll.register(self.ring.kick.fileno(), select.POLLIN)
                polled = self.state.running and self.state.kick is Notify.POLL
                ready = dict(poll.poll(LOOK_MS if polled else None))
                if self.ring.kick is not None and self.ring.kick.fileno() in ready:
                    self.ring.kick.drain()
                if self.sock.fileno() in ready:
                    self.message(self.line.receive())
                self.serve()
        finally:
            self.ring.close()
            if self.channel is not None:
                self.channel.close()

    # --- messages ---

    def message(self, frame: Frame) -> None:
        """Act on one, and answer it."""
        try:
            message = self.protocol.receive(frame)
            with frame.fds:
                answer = self.protocol.answer(message) or self.act(message, frame.fds)
        except RemoteProtocolError as error:
            if error.hint is Hint.CLOSE:
                raise
            answer = self.protocol.nack()
        except (BadEntry, VhostUserError, OSError) as error:
            answer = self.protocol.nack()
            if answer is None:
                raise RemoteProtocolError(str(error)) from None
        if answer is not None:
            self.line.send(answer)

    def act(self, message: Message, fds: Fds) -> Frame | None:
        """What a message does."""
        ring = self.ring
        match message:
            case SetFeatures(features):
                self.space.translating = bool(features & VirtioFeature.ACCESS_PLATFORM)
                self.pause()
            case SetMemTable(regions) | XenSetMemTable(regions):
                self.pause()
                self.space.replace(regions, fds)
            case SetLogBase():
                self.log = DirtyLog(message, fds[0]) if fds else None
                return self.protocol.reply(message, Opaque())
            case IotlbMsg(type=kind):
                self.asked.clear()
                self.pause()
                (self.space.update if kind == IotlbType.UPDATE else self.space.invalidate)(message)
                return self.protocol.reply(message, U64(0))
            case SetBackendReqFd():
                self.channel = Line(socket.socket(fileno=fds[0].take()), timeout=MESSAGE_TIMEOUT)
            case SetVringAddr():
                self.pause()
            case SetVringKick():
                ring.kick = EventConsumer.adopt(fds[0].move()) if fds else None
            case SetVringCall():
                ring.call = EventNotifier.adopt(fds[0].move()) if fds else None
            case SetVringErr():
                ring.err = EventNotifier.adopt(fds[0].move(), tolerant=True) if fds else None
            case GetVringBase(index):
                self.pause()
                base, self.bases = self.base(), None
                ring.kick = ring.call = None
                ring.broken = False
                return self.protocol.reply(message, VringState(index, base))
        self.serve()
        return self.protocol.ack()

    # --- the ring ---

    def base(self) -> int:
        """Where it stands."""
        return self.state.base if self.bases is None else self.bases

    def pause(self) -> None:
        """What was found out of its addresses may be wrong now."""
        if self.ring.queue is not None:
            self.bases = self.ring.queue.base
            self.ring.queue = None

    def serve(self) -> None:
        """Do all that is in the ring, as far as addresses are known."""
        if not self.state.running or self.ring.broken:
            return
        try:
            while chains := self.pop():
                self.done(chains[0])
        except Miss as miss:
            self.ask(miss.iova)
        except (BrokenQueue, GuestAddressError):
            self.ring.broken = True
            self.tell(self.ring.err, BackendVringErr(0))

    def pop(self) -> list[Chain]:
        """The next chain, if there is one."""
        queue = self.ring.queue = self.ring.queue or self.open()
        self.space.seen.clear()
        while not (chains := queue.pop(1)) and queue.arm():
            pass
        return chains

    def open(self) -> DeviceQueue:
        """The queue where the front-end says it is."""
        features, state = self.protocol.state.features, self.state
        sizes = RingLayout.sizes(state.size, features)
        layout = RingLayout(
            state.size,
            self.space.part(state.addr.descriptor, sizes.descriptor),
            self.space.part(state.addr.available, sizes.driver),
            self.space.part(state.addr.used, sizes.device),
        )
        memory: Any = self.space
        return open_device_queue(layout, memory, features, base=self.base(), engine="python")

    def done(self, chain: Chain) -> None:
        """Fill a chain with entropy, mark what was written, and give it back."""
        size = chain.writable.remaining
        with suppress(TypeError):  # an entry that is for reading only: nothing is written, and that is said
            chain.writable.write(os.urandom(size))
        self.mark(size)
        assert self.ring.queue is not None
        if self.ring.queue.complete([chain]):
            self.tell(self.ring.call, BackendVringCall(0))

    def mark(self, size: int) -> None:
        """Mark the last ``size`` bytes that the space was asked for, which are the writable ones, and the used ring."""
        if self.log is None or not self.protocol.state.features & VirtioFeature.LOG_ALL:
            return
        seen = iter(reversed(self.space.seen))
        while size > 0:
            addr, length = next(seen)
            self.log.mark(addr, length)
            size -= length
        addr = self.state.addr
        if addr.flags & VringAddrFlags.LOG:
            assert self.ring.queue is not None
            self.log.mark(addr.log, RingLayout.sizes(self.state.size, 0).device)
            if self.protocol.state.features & VirtioFeature.RING_PACKED:
                self.log.mark(self.space.guest_addr(addr.descriptor), 16 * self.state.size)

    # --- what it says ---

    def ask(self, iova: int) -> None:
        """A miss, once."""
        if iova not in self.asked:
            self.asked.add(iova)
            self.say(BackendIotlbMsg(iova, 0, 0, ANY, IotlbType.MISS))

    def tell(self, end: EventNotifier | None, message: Message) -> None:
        """Signal a descriptor, or send a message where there is none."""
        if end is not None:
            with suppress(PeerClosed):
                end.notify()
        elif self.protocol.state.protocol_features & ProtocolFeature.INBAND_NOTIFICATIONS:
            self.say(message)

    def say(self, message: Message) -> None:
        """Send a request on the channel, if there is one."""
        if self.channel is not None:
            payload = message.build()
            with suppress(PeerGone):
                self.channel.send(Frame(Header(message.spec.request, HeaderFlags.VERSION_1, len(payload)), payload))


def main(path: str) -> None:
    """Serve one front-end after the other."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            sock, _ = listener.accept()
            with Line(sock, timeout=MESSAGE_TIMEOUT) as line, suppress(VhostUserError):
                Backend(line, sock).run()


if __name__ == "__main__":
    main(sys.argv[1])
