"""A back-end that shares: ``python -m tests.conformance.backends.sharing SOCKET``.

An entropy source with three VIRTIO shared memory regions and an object.  With its first request it exports the object,
looks up another and maps; with each further one it unmaps and maps again.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.extended import Extended, serve
from vhostuser.devices.rng import RngDevice
from vhostuser.errors import LocalProtocolError, RemoteProtocolError
from vhostuser.fd import NO_FDS, Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.protocol.reverse import BackendRequester
from vhostuser.transport.unix import adopt_channel
from vhostuser.wire.backend_messages import (
    BackendSharedObjectAdd,
    BackendSharedObjectLookup,
    BackendShmemMap,
    BackendShmemUnmap,
)
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetSharedObject, GetShmemConfig, ResetDevice, SetBackendReqFd
from vhostuser.wire.records import Opaque, ShmemConfig, ShmemFlags

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vhostuser.protocol.framing import Frame
    from vhostuser.transport.channel import Channel
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message

PAGE = 4096
SIZES = {0: 4 * PAGE, 1: PAGE, 7: 16 * PAGE}
OURS, THEIRS = bytes(range(16)), bytes(range(16, 32))
WAITS = 0.5
"""Seconds for an answer on the channel."""


class Sharer(RngDevice):
    """An entropy source that has something to say before each request."""

    say: Callable[[], Awaitable[None]]

    async def process(self, queue: int, chain: Chain) -> None:
        """Say it, then entropy."""
        await self.say()
        await super().process(queue, chain)


class Sharing(Extended):
    """Shared objects and shared memory."""

    extra = ProtocolFeature.BACKEND_SEND_FD | ProtocolFeature.SHARED_OBJECT | ProtocolFeature.SHMEM
    _channel: Channel | None = None

    def __init__(self) -> None:
        self.sharer = Sharer()
        super().__init__(self.sharer)
        self.sharer.say = self._share
        self._turn = trio.Lock()
        self._block = MemoryBackendShm(size=PAGE).allocate()
        self._mapped: BackendShmemMap | None = None
        self._exported = False

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case GetShmemConfig():
                sizes = tuple(SIZES.get(number, 0) for number in range(256))
                return self.protocol.reply(message, ShmemConfig(len(SIZES), sizes))
            case GetSharedObject(uuid):
                found = self._fds() if self._exported and uuid == OURS else NO_FDS
                return self.protocol.reply(message, Opaque(b""), found)
            case SetBackendReqFd():
                self._hang_up()
                self._channel = adopt_channel(frame.fds[0].duplicate())
            case ResetDevice():
                self._mapped = None
        return await super()._act(message, frame)

    async def _share(self) -> None:
        """What is said with a request, one request after the other."""
        async with self._turn:
            if not self._exported:
                self._exported = await self._told(BackendSharedObjectAdd(OURS))
                await self._told(BackendSharedObjectLookup(THEIRS))
            if (old := self._mapped) is not None:
                unmapping = BackendShmemUnmap(old.shmid, 0, old.shm_offset, old.len, ShmemFlags(0))
                if await self._told(unmapping):
                    self._mapped = None
            mapping = BackendShmemMap(7, 0, 2 * PAGE, PAGE, ShmemFlags.WRITE)
            if self._mapped is None and await self._told(mapping, self._fds()):
                self._mapped = mapping

    async def _told(self, message: Message, fds: Fds = NO_FDS) -> bool:
        """Ask the front-end for something; whether it was done, as far as that is known."""
        with fds:
            if self._channel is None:
                return False
            requester = BackendRequester(self.protocol.state)
            try:
                await self._channel.send(requester.request(message, fds))
            except LocalProtocolError:
                return False  # the front-end does not want it
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._hang_up()
                return False
        return not requester.outstanding or await self._answered(requester, self._channel)

    async def _answered(self, requester: BackendRequester, channel: Channel) -> bool:
        with trio.move_on_after(WAITS):
            try:
                reply = requester.receive(await channel.receive())
            except (RemoteProtocolError, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
                self._hang_up()
                return False
            reply.fds.close()
            return not reply.error
        self._hang_up()  # what it says later would be taken for an answer to something else
        return False

    def _fds(self) -> Fds:
        return Fds.of(self._block.fd.duplicate())

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _release(self) -> None:
        self._hang_up()
        del self.sharer.say  # no circle: the mapping goes away with the last view of it, and not some time later
        self._block.close()
        super()._release()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        trio.run(serve, Sharing, sys.argv[1])
