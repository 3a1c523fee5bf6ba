"""A back-end for postcopy: ``python -m tests.conformance.backends.missing SOCKET``.

An entropy source whose pages come when they are needed.  Linux only, and for who may open ``/dev/userfaultfd``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import sys
from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.extended import Extended, serve
from vhostuser.devices.rng import RngDevice
from vhostuser.errors import RemoteProtocolError
from vhostuser.fd import Fd, Fds
from vhostuser.memory.map import UserAddr
from vhostuser.protocol.framing import Frame
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    PostcopyAdvise,
    PostcopyEnd,
    PostcopyListen,
    SetMemTable,
)
from vhostuser.wire.records import U64, Empty, MemoryRegion
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message

DEVICE = "/dev/userfaultfd"
_NEW, _API, _REGISTER = 0xAA00, 0xC018_AA3F, 0xC020_AA00
_API_VERSION, _MISSING = 0xAA, 1
ACKNOWLEDGEMENTS = (0, 8)
"""Bytes that a front-end may acknowledge a table with."""


def userfaultfd() -> Fd:
    """A new one, ready to register memory with.

    Raises:
        OSError: it is not allowed.
    """
    with Fd(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)) as device:
        fd = Fd(fcntl.ioctl(device.fileno(), _NEW, os.O_CLOEXEC | os.O_NONBLOCK))
    fcntl.ioctl(fd.fileno(), _API, struct.pack("=QQQ", _API_VERSION, 0, 0))
    return fd


class Missing(Extended):
    """ADVISE, LISTEN, END, and tables that are answered in between."""

    extra = ProtocolFeature.PAGEFAULT
    _faults: Fd | None = None
    _listening = _waiting = False

    async def _handle(self, frame: Frame) -> Frame | None:
        if self._waiting and frame.header.request == SetMemTable.spec.request:
            if len(frame.payload) not in ACKNOWLEDGEMENTS:
                raise RemoteProtocolError(f"found {len(frame.payload)} bytes, expected an acknowledgement")
            self._waiting = False
            return None
        return await super()._handle(frame)

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case PostcopyAdvise():
                self._forget()
                self._faults = userfaultfd()
                return self.protocol.reply(message, Empty(), Fds.of(self._faults.duplicate()))
            case PostcopyListen():
                self._listening = self._faults is not None
                return self.protocol.ack(error=int(not self._listening))
            case PostcopyEnd():
                self._forget()
                return self.protocol.reply(message, U64(0))
        answer = await super()._act(message, frame)
        if self._listening and isinstance(message, SetMemTable | AddMemReg):
            self._waiting = isinstance(message, SetMemTable)
            return _reply(self._registered(message))
        return answer

    def _registered(self, message: SetMemTable | AddMemReg) -> Message:
        if isinstance(message, AddMemReg):
            return AddMemReg(self._register(message.region))
        return SetMemTable(tuple(map(self._register, message.regions)))

    def _register(self, region: MemoryRegion) -> MemoryRegion:
        """Its pages are to be told of when they are missing; the same region at our own address."""
        assert self._faults is not None
        view = self.memory.user_view(UserAddr(region.user_addr), region.size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(view))
        fcntl.ioctl(self._faults.fileno(), _REGISTER, struct.pack("=QQQQ", address, region.size, _MISSING, 0))
        return MemoryRegion(region.guest_addr, region.size, address, region.mmap_offset)

    def _forget(self) -> None:
        self._listening = self._waiting = False
        if self._faults is not None:
            self._faults.close()
            self._faults = None

    def _release(self) -> None:
        self._forget()
        super()._release()


def _reply(message: Message) -> Frame:
    payload = message.build()
    return Frame(Header(message.spec.request, HeaderFlags.VERSION_1 | HeaderFlags.REPLY, len(payload)), payload)


if __name__ == "__main__":
    trio.run(serve, lambda: Missing(RngDevice()), sys.argv[1])
