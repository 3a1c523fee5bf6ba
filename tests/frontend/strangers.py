"""Back-ends that nobody would write: they answer raw bytes with raw bytes, as they are told to."""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import trio
import trio.testing

from frontend.background import background
from vhostuser.transport import Channel
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.requests import HEADER_SIZE, FrontendRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from vhostuser.wire.requests import HeaderFlags

FEATURES = int(VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES)
PROTOCOL_FEATURES = int(
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.CONFIG
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)
NEED_REPLY = 8
Answer: TypeAlias = "Callable[[bytes, bool], bytes]"
"""From a request's payload, and whether it has need_reply, to the bytes that answer it."""


def reply(request: int, payload: bytes, flags: HeaderFlags | int = 5) -> bytes:
    """A message from a back-end."""
    return struct.pack("=III", request, flags, len(payload)) + payload


def number(request: int, value: int) -> bytes:
    """A reply with one number in it."""
    return reply(request, struct.pack("=Q", value))


@dataclass
class Stranger:
    """What a back-end says.

    Attributes:
        features: its answer to GET_FEATURES.
        protocol_features: to GET_PROTOCOL_FEATURES.
        config: what its configuration space holds; a question about more is refused.
        otherwise: its own way to answer some requests.
        pause: go to sleep between a header and its payload.
        heard: the requests that came, in order.
    """

    features: int = FEATURES
    protocol_features: int = PROTOCOL_FEATURES
    config: bytes = b""
    otherwise: dict[int, Answer] = field(default_factory=dict)
    pause: bool = False
    heard: list[FrontendRequest] = field(default_factory=list)

    def answer(self, request: FrontendRequest, payload: bytes, need_reply: bool) -> bytes:
        """The bytes to send back; none where nothing is to be said."""
        if request in self.otherwise:
            return self.otherwise[request](payload, need_reply)
        numbers = {
            FrontendRequest.GET_FEATURES: self.features,
            FrontendRequest.GET_PROTOCOL_FEATURES: self.protocol_features,
            FrontendRequest.GET_QUEUE_NUM: 2,
            FrontendRequest.GET_MAX_MEM_SLOTS: 8,
            FrontendRequest.GET_STATUS: 0,
        }
        if request in numbers:
            return number(request, numbers[request])
        if request == FrontendRequest.GET_CONFIG:
            return self._config(payload)
        return number(request, 0) if need_reply else b""

    def _config(self, payload: bytes) -> bytes:
        _, size, _ = struct.unpack_from("=III", payload)
        if size > len(self.config):
            return reply(FrontendRequest.GET_CONFIG, b"")
        return reply(FrontendRequest.GET_CONFIG, payload[:12] + self.config[:size])

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer until the front-end leaves."""
        async with stream:
            while header := await _exactly(stream, HEADER_SIZE):
                request, flags, size = struct.unpack("=III", header)
                self.heard.append(FrontendRequest(request))
                payload = await _exactly(stream, size)
                answer = self.answer(self.heard[-1], payload, bool(flags & NEED_REPLY))
                if answer == HANG_UP:
                    return
                if self.pause:
                    await stream.send_all(answer[:HEADER_SIZE])
                    await trio.testing.wait_all_tasks_blocked()
                    answer = answer[HEADER_SIZE:]
                await stream.send_all(answer)


HANG_UP = b"the end"


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some(size - len(data))
        if not piece:
            return b""
        data += piece
    return data


@asynccontextmanager
async def connected_to(stranger: Stranger) -> AsyncIterator[Channel]:
    """A channel to ``stranger``; whoever gets it closes it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    async with background() as nursery:
        nursery.start_soon(stranger.serve, trio.SocketStream(trio.socket.from_stdlib_socket(theirs)))
        yield Channel(ours)
