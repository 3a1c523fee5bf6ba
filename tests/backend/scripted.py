"""A front-end that says what a test tells it to, right or wrong, to a back-end at the other end of a real socket."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Self

import trio

from frontend.guest import GuestRam
from frontend.queue import Queue
from vhostuser.backend import serve_one
from vhostuser.fd import Fd, Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.protocol import Frame, FrontendProtocol
from vhostuser.transport import Channel, connect
from vhostuser.virtqueue.queue import RING_FEATURES
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import U64, VringAddrFlags, VringState
from vhostuser.wire.requests import FrontendRequest, Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from vhostuser.device import Device
    from vhostuser.memory.backends import MemoryBackend
    from vhostuser.transport.notifier import NotifierKind
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

FEATURES = V.VERSION_1 | V.INDIRECT_DESC | V.EVENT_IDX | V.PROTOCOL_FEATURES
PROTOCOL_FEATURES = P.MQ | P.REPLY_ACK | P.BACKEND_REQ | P.CONFIG | P.RESET_DEVICE | P.CONFIGURE_MEM_SLOTS | P.STATUS
QUEUE_SIZE = 16
RAM_SIZE = 1 << 20


def raw(
    request: int, payload: bytes = b"", *fds: Fd, ack: bool = False, flags: int = 1, size: int | None = None
) -> Frame:
    """Any message, as the bytes of its payload."""
    header = Header(request, HeaderFlags(flags | (HeaderFlags.NEED_REPLY if ack else 0)), len(payload))
    frame = Frame(header, payload, Fds.of(*fds))
    if size is not None:
        frame.header = Header(request, header.flags, size)
    return frame


class Script:
    """A front-end's end of a connection.

    Legal messages go through a `FrontendProtocol` (`ask`), all others as they are (`say`).

    Args:
        sock: connected to a back-end; owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.bare = sock.dup()
        """The same socket, for bytes that are no message."""
        self.channel = Channel(sock)
        self.protocol = FrontendProtocol()
        self._ram: GuestRam | None = None
        self.queues: dict[int, Queue] = {}

    @classmethod
    async def connect(cls, path: Path, *, retry_for: float = 0) -> Self:
        """Connect to whoever listens at ``path``, or soon will."""
        channel = await connect(path, retry_for=retry_for)
        sock = socket.socket(fileno=os.dup(channel.fileno()))
        channel.close()
        return cls(sock)

    def close(self) -> None:
        """Hang up, and give everything back."""
        self.hang_up()
        for queue in self.queues.values():
            queue.close()
        if self._ram is not None:
            self._ram.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hang_up(self) -> None:
        """Close the connection, and nothing else."""
        self.channel.close()
        self.bare.close()

    # --- messages ---

    async def ask(self, message: Message, *fds: Fd, ack: bool | None = None) -> Structure | None:
        """Send ``message``, wait for its answer if it has one; raises `RequestRefused` if that says no."""
        waiting = len(self.protocol.outstanding)
        await self.channel.send(self.protocol.request(message, Fds.of(*fds), ack=ack))
        if len(self.protocol.outstanding) == waiting:
            return None
        reply = self.protocol.receive(await self.channel.receive())
        reply.check()
        return reply.value

    async def number(self, message: Message) -> int:
        """The number that a question is answered with."""
        value = await self.ask(message)
        assert isinstance(value, U64)
        return value.value

    async def base(self, index: int = 0) -> int:
        """GET_VRING_BASE."""
        value = await self.ask(f.GetVringBase(index))
        assert isinstance(value, VringState)
        return value.num

    async def say(self, frame: Frame) -> None:
        """Send ``frame`` whatever it is."""
        await self.channel.send(frame)

    async def say_bytes(self, data: bytes) -> None:
        """Send ``data``, be it a message, a part of one or several."""
        with trio.socket.from_stdlib_socket(self.bare.dup()) as sock:
            while data:
                data = data[await sock.send(data) :]

    async def hear(self) -> Frame:
        """The next message, whatever it is."""
        return await self.channel.receive()

    async def refused(self) -> bool:
        """Whether the answer to what was said last is a refusal; False when the back-end hung up instead."""
        try:
            frame = await self.hear()
        except (trio.EndOfChannel, trio.BrokenResourceError):
            return False
        assert not frame.fds
        assert frame.header.flags == HeaderFlags.VERSION_1 | HeaderFlags.REPLY
        if frame.header.request == FrontendRequest.GET_CONFIG:
            assert frame.payload == b""
        else:
            assert U64.parse(frame.payload).value != 0
        return True

    async def hung_up(self) -> bool:
        """Wait for the end of the connection; False if a message comes instead."""
        try:
            frame = await self.hear()
        except (trio.EndOfChannel, trio.BrokenResourceError):
            return True
        frame.close()
        return False

    async def alive(self) -> bool:
        """Whether the back-end still answers, and in step."""
        question = f.GetFeatures()
        await self.say(raw(question.spec.request))
        return (await self.hear()).header.request == question.spec.request

    # --- the usual way up ---

    async def negotiate(self, features: int = FEATURES, protocol_features: P = PROTOCOL_FEATURES) -> None:
        """Agree on features, as far as they are offered."""
        offered = await self.number(f.GetFeatures())
        if features & V.PROTOCOL_FEATURES:
            possible = P(await self.number(f.GetProtocolFeatures()))
            await self.ask(f.SetProtocolFeatures(possible & protocol_features))
        await self.ask(f.SetOwner())
        await self.ask(f.SetFeatures(offered & features))

    @property
    def ram(self) -> GuestRam:
        """Guest memory; made when it is first looked at."""
        if self._ram is None:
            self._ram = GuestRam(MemoryBackendShm(size=RAM_SIZE))
        return self._ram

    def use_ram(self, *backends: MemoryBackend) -> None:
        """Make guest memory of these blocks."""
        self._ram = GuestRam(*backends)

    async def share_memory(self) -> None:
        """SET_MEM_TABLE."""
        await self.ask(f.SetMemTable(tuple(self.ram.regions)), *self.ram.duplicate_fds())

    def make_queue(
        self, index: int = 0, *, queue_size: int = QUEUE_SIZE, notifier: NotifierKind | None = None, base: int = 0
    ) -> Queue:
        """A ring in guest memory, of which the back-end knows nothing yet."""
        features = self.protocol.state.features
        queue = Queue(index, self.ram, queue_size=queue_size, features=features, notifier=notifier, base=base)
        if index in self.queues:
            self.queues[index].close()
        self.queues[index] = queue
        return queue

    async def configure(self, queue: Queue) -> None:
        """Say where ``queue`` lies and how large it is."""
        await self.ask(f.SetVringNum(queue.index, queue.queue_size))
        await self.ask(f.SetVringBase(queue.index, queue.base))
        await self.ask(address(queue))

    async def start(self, queue: Queue, *, enable: bool = True) -> None:
        """Configure and start ``queue``."""
        await self.configure(queue)
        await self.ask(f.SetVringCall.of(queue.index), queue.call_notifier.duplicate())
        await self.ask(f.SetVringKick.of(queue.index), queue.kick_consumer.duplicate())
        if enable and self.protocol.state.features & V.PROTOCOL_FEATURES:
            await self.ask(f.SetVringEnable(queue.index, 1))

    async def ready(self, *, queues: int = 1) -> Queue:
        """Everything: negotiated, memory shared, rings running; the first of them."""
        await self.negotiate()
        await self.share_memory()
        for index in range(queues):
            await self.start(self.make_queue(index))
        return self.queues[0]


def address(queue: Queue) -> f.SetVringAddr:
    """SET_VRING_ADDR for ``queue``."""
    parts = queue.desc_table.user_addr, queue.used_ring.user_addr, queue.avail_ring.user_addr
    return f.SetVringAddr(queue.index, VringAddrFlags(0), *parts, 0)


@asynccontextmanager
async def served(device: Device, *, ring_features: V = RING_FEATURES) -> AsyncIterator[Script]:
    """``device`` behind a socket, in this process; at the end the front-end hangs up and the back-end has to return."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_one, ring_features=ring_features), device, Channel(theirs))
        with Script(ours) as script:
            yield script


@asynccontextmanager
async def reaping(*queues: Queue) -> AsyncIterator[None]:
    """Somebody who hears from the device, for each of ``queues``."""
    async with trio.open_nursery() as nursery:
        for queue in queues:
            nursery.start_soon(queue.run)
        yield
        nursery.cancel_scope.cancel()
