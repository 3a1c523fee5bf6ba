"""A back-end that shares: ``python -m tests.conformance.backends.sharing SOCKET``.

The entropy source of `rare`, with three VIRTIO shared memory regions and an object: with its first request it maps,
exports and looks up; with every further one it unmaps and maps again.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.conformance.backends.rare import MESSAGE_TIMEOUT, Backend
from vhostuser.errors import VhostUserError
from vhostuser.fd import NO_FDS, Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.framing import Frame
from vhostuser.testing.line import Line
from vhostuser.wire.backend_messages import (
    BackendSharedObjectAdd,
    BackendSharedObjectLookup,
    BackendShmemMap,
    BackendShmemUnmap,
)
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import GetSharedObject, GetShmemConfig, ResetDevice
from vhostuser.wire.records import U64, Opaque, ShmemConfig, ShmemFlags
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message

FEATURES = VirtioFeature.VERSION_1 | VirtioFeature.RING_PACKED | VirtioFeature.PROTOCOL_FEATURES
PROTOCOL_FEATURES = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.BACKEND_SEND_FD
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.SHARED_OBJECT
    | ProtocolFeature.SHMEM
)
PAGE = 4096
SIZES = {0: 4 * PAGE, 1: PAGE, 7: 16 * PAGE}
OURS, THEIRS = bytes(range(16)), bytes(range(16, 32))
ANSWER = HeaderFlags.VERSION_1 | HeaderFlags.NEED_REPLY


class SharingProtocol(BackendProtocol):
    """What is answered here is not refused before."""

    effects_come_later = BackendProtocol.effects_come_later - {GetSharedObject, GetShmemConfig}


class Sharing(Backend):
    """One connection."""

    def __init__(self, line: Line, sock: socket.socket) -> None:
        super().__init__(line, sock)
        self.protocol = SharingProtocol(features=FEATURES, protocol_features=PROTOCOL_FEATURES, num_queues=1)
        self.block = MemoryBackendShm(size=PAGE).allocate()
        self.mapped: BackendShmemMap | None = None
        self.exported = False

    def run(self) -> None:
        with self.block:
            super().run()

    def act(self, message: Message, fds: Fds) -> Frame | None:
        match message:
            case GetShmemConfig():
                sizes = tuple(SIZES.get(number, 0) for number in range(256))
                return self.protocol.reply(message, ShmemConfig(len(SIZES), sizes))
            case GetSharedObject(uuid):
                found = Fds.of(self.block.fd.duplicate()) if self.exported and uuid == OURS else NO_FDS
                return self.protocol.reply(message, Opaque(b""), found)
            case ResetDevice():
                self.mapped = None
        return super().act(message, fds)

    def done(self, chain: Chain) -> None:
        super().done(chain)
        with suppress(VhostUserError):
            self.share()

    def share(self) -> None:
        """Say something about what is shared, if there is a channel."""
        if not self.exported:
            self.exported = self.told(BackendSharedObjectAdd(OURS), ProtocolFeature.SHARED_OBJECT)
            self.told(BackendSharedObjectLookup(THEIRS), ProtocolFeature.SHARED_OBJECT)
        if self.mapped is not None and self.told(self.unmapping(), ProtocolFeature.SHMEM):
            self.mapped = None
        if self.mapped is None:
            told = BackendShmemMap(7, 0, 2 * PAGE, PAGE, ShmemFlags.WRITE)
            fds = Fds.of(self.block.fd.duplicate())
            if self.told(told, ProtocolFeature.SHMEM | ProtocolFeature.BACKEND_SEND_FD, fds):
                self.mapped = told

    def unmapping(self) -> BackendShmemUnmap:
        """Of what is mapped."""
        assert self.mapped is not None
        return BackendShmemUnmap(self.mapped.shmid, 0, self.mapped.shm_offset, self.mapped.len, ShmemFlags(0))

    def told(self, message: Message, needs: ProtocolFeature, fds: Fds = NO_FDS) -> bool:
        """Ask the front-end for something, and wait for its answer where there is one; whether it was done."""
        with fds:
            negotiated = self.protocol.state.protocol_features
            if self.channel is None or needs & ~negotiated:
                return False
            payload = message.build()
            asks = bool(negotiated & ProtocolFeature.REPLY_ACK)
            flags = ANSWER if asks else HeaderFlags.VERSION_1
            self.channel.send(Frame(Header(message.spec.request, flags, len(payload)), payload, fds))
        if not asks and not isinstance(message, BackendSharedObjectLookup):
            return True
        answer = self.channel.receive()
        with answer.fds:
            return U64.parse(answer.payload).value == 0


def main(path: str) -> None:
    """Serve one front-end after the other."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            sock, _ = listener.accept()
            with Line(sock, timeout=MESSAGE_TIMEOUT) as line, suppress(VhostUserError):
                Sharing(line, sock).run()


if __name__ == "__main__":
    main(sys.argv[1])
