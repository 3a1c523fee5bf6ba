"""A back-end with the features that hardly anybody has: ``python -m tests.conformance.backends.rare SOCKET``.

An entropy source with a dirty log, an IOMMU, notifications in messages, and Xen's memory regions.  It exists so that
the cases for these run for real: one front-end at a time, one thread, one chain after the other.
"""

from __future__ import annotations

import select
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.conformance.backends.rare_memory import AddressSpace, DirtyLog
from tests.conformance.backends.rare_ring import Ring
from vhostuser.errors import Hint, RemoteProtocolError, VhostUserError
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.framing import Frame
from vhostuser.protocol.rings import Notify
from vhostuser.testing.line import Line, PeerGone
from vhostuser.transport.notifier import EventConsumer, EventNotifier
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
    VringKick,
    XenSetMemTable,
)
from vhostuser.wire.records import U64, IotlbType, Opaque, VringState
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.fd import Fds
    from vhostuser.protocol.state import ProtocolState
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
MESSAGE_TIMEOUT = 2.0
LOOK_MS = 1
"""How often a ring without kick descriptor is looked at."""


class Backend:
    """One connection.

    Args:
        sock: connected; owned from now on.
    """

    Space: type[AddressSpace] = AddressSpace
    Log: type[DirtyLog] = DirtyLog
    Ring: type[Ring] = Ring
    """What it is made of, for those who want one that is broken."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock, self._line = sock, Line(sock, timeout=MESSAGE_TIMEOUT)
        self.protocol = BackendProtocol(features=FEATURES, protocol_features=PROTOCOL_FEATURES, num_queues=1)
        self.space = self.Space()
        self.ring = self.Ring(lambda: self.protocol.state, self.space, self.say)
        self.channel: Line | None = None

    @property
    def state(self) -> ProtocolState:
        """What the front-end has said."""
        return self.protocol.state

    def run(self) -> None:
        """Serve until the front-end hangs up, or breaks the protocol."""
        while True:
            ready = self._wait()
            if self.ring.kick is not None and self.ring.kick.fileno() in ready:
                self.kicked()
            if self._sock.fileno() in ready:
                self.message(self._line.receive())
            if self.state.rings[0].kick is Notify.POLL:
                self.ring.serve()

    def _wait(self) -> set[int]:
        """Descriptors at which something has happened."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if self.ring.kick is not None:
            poll.register(self.ring.kick.fileno(), select.POLLIN)
        polled = self.state.rings[0].running and self.state.rings[0].kick is Notify.POLL
        return {fd for fd, _ in poll.poll(LOOK_MS if polled else None)}

    def kicked(self) -> None:
        """The kick descriptor is readable."""
        assert self.ring.kick is not None
        self.ring.kick.drain()
        self.ring.serve()

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
        except VhostUserError as error:
            answer = self.protocol.nack()
            if answer is None:
                raise RemoteProtocolError(str(error)) from None
        self.answer(answer)

    def answer(self, frame: Frame | None) -> None:
        """Send an answer, if there is one."""
        if frame is not None:
            self._line.send(frame)

    def act(self, message: Message, fds: Fds) -> Frame | None:
        """What a message does; its answer."""
        ring = self.ring
        match message:
            case SetFeatures(features):
                ring.pause()
                self.space.translating = bool(features & VirtioFeature.ACCESS_PLATFORM)
            case SetMemTable(regions) | XenSetMemTable(regions):
                ring.pause()
                self.space.replace(regions, fds)
            case SetLogBase():
                ring.log = self.Log(message, fds[0])
                return self.protocol.reply(message, Opaque())
            case IotlbMsg():
                return self.translation(message)
            case SetBackendReqFd():
                self._use_channel(socket.socket(fileno=fds[0].take()))
            case SetVringAddr():
                ring.pause()
            case SetVringKick():
                ring.close(ring.kick)
                ring.kick = EventConsumer.adopt(fds[0].move()) if fds else None
            case VringKick():
                self.kicked_by_message()
                return self.protocol.ack()
            case SetVringCall():
                ring.close(ring.call)
                ring.call = EventNotifier.adopt(fds[0].move()) if fds else None
            case SetVringErr():
                ring.close(ring.err)
                ring.err = EventNotifier.adopt(fds[0].move(), tolerant=True) if fds else None
            case GetVringBase(index):
                return self.protocol.reply(message, VringState(index, ring.stop()))
        ring.serve()
        return self.protocol.ack()

    def kicked_by_message(self) -> None:
        """VRING_KICK."""
        self.ring.serve()

    def translation(self, message: IotlbMsg) -> Frame:
        """IOTLB_MSG."""
        self.translate(message)
        self.ring.asked.clear()
        self.ring.serve()
        return self.protocol.reply(message, U64(0))

    def translate(self, message: IotlbMsg) -> None:
        """Change an entry."""
        self.ring.pause()
        if message.type == IotlbType.UPDATE:
            self.space.update(message)
        else:
            self.space.invalidate(message)

    # --- the channel ---

    def say(self, message: Message) -> None:
        """Send a request on the channel, if there is one."""
        if self.channel is not None:
            payload = message.build()
            with suppress(PeerGone):
                self.channel.send(Frame(Header(message.spec.request, HeaderFlags.VERSION_1, len(payload)), payload))

    def _use_channel(self, sock: socket.socket) -> None:
        self._close_channel()
        self.channel = Line(sock, timeout=MESSAGE_TIMEOUT)

    def _close_channel(self) -> None:
        if self.channel is not None:
            self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ring.release()
        self.space.release()
        self._close_channel()
        self._line.close()
        del self.ring  # it knows us: going round in a circle, mappings would wait for the collector


def serve(listener: socket.socket, backend: type[Backend] = Backend) -> None:
    """Serve one front-end after the other, until the listener is shut down."""
    with suppress(OSError):
        while True:
            _serve_one(listener.accept()[0], backend)


def _serve_one(sock: socket.socket, backend: type[Backend]) -> None:
    with backend(sock) as one, suppress(VhostUserError):
        one.run()


def main(path: str) -> None:
    """Listen at ``path`` for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        serve(listener)


if __name__ == "__main__":
    main(sys.argv[1])
