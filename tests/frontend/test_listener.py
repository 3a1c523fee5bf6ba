"""What a front-end hears on the backend channel."""

from __future__ import annotations

import logging
import struct

import pytest
import trio
import trio.testing

from frontend.listener import BackendListener
from tests.protocol.helpers import request
from vhostuser.errors import VhostUserError
from vhostuser.fd import NO_FDS
from vhostuser.protocol import Frame, ProtocolState
from vhostuser.transport import Channel, adopt_channel
from vhostuser.wire.backend_messages import BackendConfigChangeMsg, BackendSharedObjectAdd
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags


def agreed() -> ProtocolState:
    protocol = ProtocolFeature.BACKEND_REQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG
    protocol |= ProtocolFeature.SHARED_OBJECT
    return ProtocolState(
        offered_features=VirtioFeature.PROTOCOL_FEATURES,
        features=VirtioFeature.PROTOCOL_FEATURES,
        offered_protocol_features=protocol,
        protocol_features=protocol,
    )


class Ear:
    """A listener that runs, the back-end's end of its channel, and what it heard."""

    def __init__(self, nursery: trio.Nursery, error: VhostUserError | None = None) -> None:
        self.heard = 0
        self._error = error
        listener, fd = BackendListener.open(agreed(), self._changed)
        self.channel: Channel = adopt_channel(fd)
        self.done = trio.Event()
        nursery.start_soon(self._run, listener)

    async def _run(self, listener: BackendListener) -> None:
        await listener.run()
        self.done.set()

    async def _changed(self) -> None:
        self.heard += 1
        if self._error is not None:
            raise self._error

    async def answer(self) -> int:
        frame = await self.channel.receive()
        return U64.parse(frame.payload).value


async def test_a_change_of_configuration_is_acted_on_and_acknowledged() -> None:
    async with trio.open_nursery() as nursery:
        ear = Ear(nursery)
        async with ear.channel:
            await ear.channel.send(request(BackendConfigChangeMsg()))
            await ear.channel.send(request(BackendConfigChangeMsg(), ack=True))
            assert await ear.answer() == 0
            await trio.testing.wait_all_tasks_blocked()
            assert ear.heard == 2


async def test_what_cannot_be_carried_out_is_refused_and_the_channel_stays() -> None:
    async with trio.open_nursery() as nursery:
        ear = Ear(nursery)
        async with ear.channel:
            await ear.channel.send(request(BackendSharedObjectAdd(bytes(16)), ack=True))
            assert await ear.answer() != 0
            await ear.channel.send(Frame(Header(99, HeaderFlags.VERSION_1 | HeaderFlags.NEED_REPLY, 0), b"", NO_FDS))
            assert await ear.answer() != 0
            await ear.channel.send(request(BackendSharedObjectAdd(bytes(16))))  # no answer can say no to this
            await ear.channel.send(request(BackendConfigChangeMsg(), ack=True))
            assert await ear.answer() == 0
            await trio.testing.wait_all_tasks_blocked()
            assert ear.heard == 1


@pytest.mark.parametrize("data", [struct.pack("=III", 2, 2, 0), struct.pack("=III", 2, 1, 1 << 30), bytes(3)])
async def test_a_backend_that_breaks_the_protocol_loses_this_channel(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with trio.open_nursery() as nursery:
        ear = Ear(nursery)
        with caplog.at_level(logging.WARNING, "frontend.listener"):
            sock = trio.socket.fromfd(ear.channel.fileno(), trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
            with sock:
                await sock.send(data)
            await ear.channel.aclose()
            await ear.done.wait()
    assert "closing the backend channel: " in caplog.text


async def test_a_backend_that_hangs_up_is_no_news() -> None:
    async with trio.open_nursery() as nursery:
        ear = Ear(nursery)
        await ear.channel.aclose()
        await ear.done.wait()
    assert ear.heard == 0


async def test_a_configuration_that_cannot_be_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with trio.open_nursery() as nursery:
        ear = Ear(nursery, VhostUserError("it is gone"))
        async with ear.channel:
            await ear.channel.send(request(BackendConfigChangeMsg()))
            await trio.testing.wait_all_tasks_blocked()
    assert "configuration space could not be read again: it is gone" in caplog.text
