"""What is at the other end of a front-end: a device's side of a ring, a back-end that says what it is told to."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from frontend.background import background
from frontend.bringup import bring_up
from frontend.connection import BackendGone, Frontend
from vhostuser.backend import serve_one
from vhostuser.protocol import BackendProtocol, Frame
from vhostuser.transport import Channel, channel_pair
from vhostuser.virtqueue.queue import RingLayout, open_device_queue
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from frontend.bringup import DeviceLink, Plan
    from frontend.guest import GuestRam
    from frontend.queue import Queue
    from vhostuser.device import Device
    from vhostuser.fd import Fds
    from vhostuser.transport import Observer
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

RING_FEATURES = int(VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC | VirtioFeature.EVENT_IDX)
OFFERED = RING_FEATURES | VirtioFeature.PROTOCOL_FEATURES
PROTOCOL_FEATURES = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG


class DeviceSide:
    """The device's side of a front-end's queue, in the same memory."""

    def __init__(self, queue: Queue, ram: GuestRam, features: int = RING_FEATURES) -> None:
        self._queue = queue
        parts = queue.desc_table.view, queue.avail_ring.view, queue.used_ring.view
        layout = RingLayout(queue.queue_size, *parts)
        self.ring = open_device_queue(layout, ram.memory, features, base=queue.base)

    def take(self) -> list[Chain]:
        return self.ring.pop(1024)

    def give_back(self, chains: Sequence[Chain]) -> None:
        self.ring.complete(chains)
        self._queue.call_notifier.notify()

    def claim(self, head: int, length: int, *, idx: int = 1) -> None:
        """Put one used element into the ring and set the index, whatever the truth is."""
        used = self._queue.used_ring.view
        used[4:12] = head.to_bytes(4, "little") + length.to_bytes(4, "little")
        used[2:4] = idx.to_bytes(2, "little")
        self._queue.call_notifier.notify()


class FarEnd:
    """A back-end's end of a connection: takes requests and answers them, or does not."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.protocol = BackendProtocol(features=OFFERED, protocol_features=PROTOCOL_FEATURES, num_queues=2)

    async def take(self) -> Message:
        """The next request."""
        frame = await self.channel.receive()
        message = self.protocol.receive(frame)
        frame.close()
        return message

    async def answer(self, count: int = 1) -> list[Message]:
        """Take requests and answer each as a good back-end would."""
        taken = []
        for _ in range(count):
            message = await self.take()
            taken.append(message)
            answer = self.protocol.answer(message) or self.protocol.ack()
            if answer is not None:
                await self.channel.send(answer)
        return taken

    async def reply(self, to: Message, value: Structure, fds: Fds | None = None) -> None:
        """Answer ``to`` with ``value``, right or wrong."""
        self.protocol.nack()  # as far as it knows, that was the answer
        await self.channel.send(response(to, value, fds))

    async def refuse(self, message: Message) -> None:
        """Answer a request that wants an acknowledgement with an error."""
        await self.reply(message, U64(1))


def response(to: Message, value: Structure, fds: Fds | None = None) -> Frame:
    payload = value.build()
    frame = Frame(Header(to.spec.request, HeaderFlags.VERSION_1 | HeaderFlags.REPLY, len(payload)), payload)
    if fds is not None:
        frame.fds = fds
    return frame


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Frontend, FarEnd]]:
    """A front-end whose answers are read, and what it talks to."""
    ours, theirs = channel_pair()
    async with theirs, Frontend(ours) as frontend, background() as nursery:
        nursery.start_soon(_run, frontend)
        yield frontend, FarEnd(theirs)


async def _run(frontend: Frontend) -> None:
    try:
        await frontend.run()
    except BackendGone:
        return  # whoever asks is told


@asynccontextmanager
async def negotiated() -> AsyncIterator[tuple[Frontend, FarEnd]]:
    """The same, with features agreed on."""
    async with connected() as (frontend, far_end), trio.open_nursery() as nursery:
        nursery.start_soon(far_end.answer, 4)
        await frontend.get_features()
        await frontend.get_protocol_features()
        await frontend.set_protocol_features(PROTOCOL_FEATURES)
        await frontend.set_features(OFFERED)
        yield frontend, far_end


@asynccontextmanager
async def linked(device: Device, plan: Plan, *, observer: Observer | None = None) -> AsyncIterator[Linked]:
    """``device`` served and brought up by ``plan``; it can be made to die."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    async with background() as nursery:
        backend: trio.CancelScope = await nursery.start(_serve, device, Channel(theirs))
        async with bring_up(Channel(ours, observer=observer), plan) as link:
            yield Linked(link, backend)


class Linked:
    """A device that is up, and a way to end its back-end."""

    def __init__(self, link: DeviceLink, backend: trio.CancelScope) -> None:
        self.link = link
        self.backend = backend


async def _serve(
    device: Device, channel: Channel, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await serve_one(device, channel)
