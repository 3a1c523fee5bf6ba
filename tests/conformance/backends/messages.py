"""Devices with messages of their own: ``python -m tests.conformance.backends.messages card|keys|disk SOCKET``.

A network card that is told its MTU and drops what it sends, a crypto device that knows one cipher and never uses it,
and a disk whose write cache mode can be written.
"""

from __future__ import annotations

import struct
import sys
from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.extended import Extended, serve
from vhostuser.device import ConfigError, Device
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import CloseCryptoSession, CreateCryptoSession, NetSetMtu, SendRarp
from vhostuser.wire.records import CryptoSession
from vhostuser.wire.virtio.blk import BlkConfig, BlkFeature, BlkHeader, BlkStatus, BlkType
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetFeature

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message

CIPHER_AT = 8
AES_CBC = 3
OPERATION = struct.Struct("<IIQII")
INVALID_SESSION = 4
MTUS = range(68, 65536)


class Card(Device):
    """A network card: two queues, and a cable that leads nowhere."""

    type = DeviceType.NET

    def __init__(self) -> None:
        super().__init__(features=NetFeature.MTU, num_queues=2)

    async def process(self, queue: int, chain: Chain) -> None:
        """Drop what is sent; receive nothing."""
        if queue == 0:
            await trio.sleep_forever()


class CardBackend(Extended):
    """RARP and MTU."""

    extra = ProtocolFeature.RARP | ProtocolFeature.MTU

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case NetSetMtu(mtu):
                return self.protocol.ack(error=int(mtu not in MTUS))
            case SendRarp():
                return self.protocol.ack()
        return await super()._act(message, frame)


class Keys(Device):
    """A crypto device: it looks whether a session is there, and returns zeros."""

    type = DeviceType.CRYPTO

    def __init__(self) -> None:
        super().__init__()
        self.sessions: set[int] = set()
        self.made = 0

    async def process(self, queue: int, chain: Chain) -> None:
        """Zeros and a status."""
        session = OPERATION.unpack(chain.readable.read(OPERATION.size))[2]
        room = chain.writable.remaining - 1
        chain.writable.write(bytes(room) + bytes([0 if session in self.sessions else INVALID_SESSION]))


class KeysBackend(Extended):
    """CREATE_CRYPTO_SESSION and CLOSE_CRYPTO_SESSION."""

    extra = ProtocolFeature.CRYPTO_SESSION
    device: Keys

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case CreateCryptoSession(raw):
                (cipher,) = struct.unpack_from("=I", raw, CIPHER_AT)
                told = CryptoSession.parse(raw)
                return self.protocol.reply(message, CryptoSession(told.op_code, told.parameters, self._create(cipher)))
            case CloseCryptoSession(session):
                known = session in self.device.sessions
                self.device.sessions.discard(session)
                return self.protocol.ack(error=int(not known))
        return await super()._act(message, frame)

    def _create(self, cipher: int) -> int:
        if cipher != AES_CBC:
            return -1
        self.device.made += 1
        self.device.sessions.add(self.device.made)
        return self.device.made


class Disk(Device):
    """A disk of eight sectors that nobody can read; what matters is its configuration space."""

    type = DeviceType.BLOCK

    def __init__(self) -> None:
        super().__init__(features=BlkFeature.CONFIG_WCE | BlkFeature.FLUSH | BlkFeature.BLK_SIZE)
        self.writeback = 1

    @property
    def config(self) -> bytes:
        return BlkConfig(capacity=8, blk_size=512, writeback=self.writeback).build()

    def write_config(self, offset: int, data: bytes) -> None:
        """One byte can be written."""
        if (offset, len(data)) != (32, 1):
            raise ConfigError(f"{len(data)} bytes at {offset}")
        self.writeback = data[0]

    def reset(self) -> None:
        """As it came out of the box."""
        self.writeback = 1

    async def process(self, queue: int, chain: Chain) -> None:
        """Its name, for who asks for it."""
        kind = BlkHeader.parse(chain.readable.read(16)).type
        room = chain.writable.remaining - 1
        status = BlkStatus.OK if kind == BlkType.GET_ID else BlkStatus.UNSUPP
        chain.writable.write(b"example".ljust(room, b"\0")[:room] + bytes([status]))


class DiskBackend(Extended):
    """Nothing more than the usual."""

    extra = ProtocolFeature(0)


KINDS = {"card": (CardBackend, Card), "keys": (KeysBackend, Keys), "disk": (DiskBackend, Disk)}


def main(kind: str, path: str) -> None:
    """Serve one of them."""
    backend, device = KINDS[kind]
    trio.run(serve, lambda: backend(device()), path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
