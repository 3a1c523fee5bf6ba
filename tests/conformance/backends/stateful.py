"""A back-end with device state: ``python -m tests.conformance.backends.stateful [--own-pipe] SOCKET``.

An entropy source that has more state than a pipe has room for.  It is moved beside the messages, through the pipe of
the front-end, or through one of its own when it is saved.
"""

from __future__ import annotations

import os
import sys
import zlib
from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.extended import Extended, serve
from vhostuser.devices.rng import RngDevice
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import CheckDeviceState, SetDeviceStateFd
from vhostuser.wire.records import DEVICE_STATE_NO_FD, U64, TransferDirection

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import Message

SIZE = 200_000
PIECE = 1 << 16
PATIENCE = 10.0
"""Seconds to wait for the front-end at CHECK_DEVICE_STATE."""


def state() -> bytes:
    """What is saved: anything, and a checksum of it."""
    body = bytes(range(256)) * (SIZE // 256)
    return body + zlib.crc32(body).to_bytes(4, "little")


def is_state(data: bytes) -> bool:
    """Whether `state` made it."""
    return zlib.crc32(data[:-4]).to_bytes(4, "little") == data[-4:] and len(data) == len(state())


class Stateful(Extended):
    """SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE."""

    extra = ProtocolFeature.DEVICE_STATE
    own_pipe = False
    _moved: trio.Event | None = None
    _good = False

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case SetDeviceStateFd(direction):
                return self._begin(message, direction, frame.fds[0].move())
            case CheckDeviceState():
                with trio.move_on_after(PATIENCE):
                    if self._moved is not None:
                        await self._moved.wait()
                return self.protocol.reply(message, U64(int(not self._good)))
        return await super()._act(message, frame)

    def _begin(self, message: SetDeviceStateFd, direction: int, theirs: Fd) -> Frame:
        self._moved, self._good = trio.Event(), False
        if direction == TransferDirection.SAVE and self.own_pipe:
            theirs.close()
            read_end, write_end = (Fd(number) for number in os.pipe())
            value, fds, ours = 0, Fds.of(read_end), write_end
        else:
            value, fds, ours = DEVICE_STATE_NO_FD, NO_FDS, theirs
        move = self._save if direction == TransferDirection.SAVE else self._load
        self._nursery.start_soon(move, trio.lowlevel.FdStream(ours.take()), self._moved)
        return self.protocol.reply(message, U64(value), fds)

    async def _save(self, pipe: trio.lowlevel.FdStream, moved: trio.Event) -> None:
        async with pipe:
            try:
                await pipe.send_all(state())
                self._good = True
            except trio.BrokenResourceError:
                pass  # nobody reads it: that is for CHECK_DEVICE_STATE to say
        moved.set()

    async def _load(self, pipe: trio.lowlevel.FdStream, moved: trio.Event) -> None:
        data = b""
        async with pipe:
            while len(data) <= SIZE and (piece := await pipe.receive_some(PIECE)):
                data += piece
        self._good = is_state(data)
        moved.set()


if __name__ == "__main__":
    Stateful.own_pipe = "--own-pipe" in sys.argv
    trio.run(serve, lambda: Stateful(RngDevice()), sys.argv[-1])
