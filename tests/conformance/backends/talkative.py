"""A back-end that has much to say: ``python -m tests.conformance.backends.talkative SOCKET``.

Its configuration space changes with every request, and each ring that is enabled gets a host notifier, for which an
acknowledgement is awaited where there are any.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.extended import Extended, serve
from vhostuser.devices.rng import RngDevice
from vhostuser.errors import LocalProtocolError, RemoteProtocolError
from vhostuser.fd import Fds
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.protocol.reverse import BackendRequester
from vhostuser.transport.unix import adopt_channel
from vhostuser.wire.backend_messages import BackendVringHostNotifierMsg
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetBackendReqFd, SetVringEnable

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.transport.channel import Channel
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message

PAGE = 4096


class Fickle(RngDevice):
    """An entropy source with a configuration space that never stays the same."""

    @property
    def config(self) -> bytes:
        return bytes(8)

    async def process(self, queue: int, chain: Chain) -> None:
        """Entropy, and news."""
        await super().process(queue, chain)
        self.config_changed.set()


class Talkative(Extended):
    """Host notifiers beside the news about configuration space."""

    extra = ProtocolFeature.BACKEND_SEND_FD | ProtocolFeature.HOST_NOTIFIER
    _talk: Channel | None = None

    async def _act(self, message: Message, frame: Frame) -> Frame | None:
        match message:
            case SetBackendReqFd():
                self._hang_up()
                self._talk = adopt_channel(frame.fds[0].duplicate())
            case SetVringEnable(index, 1):
                self._nursery.start_soon(self._offer, index)
        return await super()._act(message, frame)

    async def _offer(self, index: int) -> None:
        channel, state = self._talk, self.protocol.state
        if channel is None:
            return
        requester = BackendRequester(state)
        try:
            with MemoryBackendShm(size=PAGE).allocate() as block, Fds.of(block.fd.duplicate()) as fds:
                await channel.send(requester.request(BackendVringHostNotifierMsg(index, PAGE, 0), fds))
            if state.reply_ack:
                requester.receive(await channel.receive())
        except LocalProtocolError:
            pass  # the front-end does not want any
        except (RemoteProtocolError, trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
            self._hang_up()

    def _hang_up(self) -> None:
        if self._talk is not None:
            self._talk.close()
            self._talk = None

    def _release(self) -> None:
        self._hang_up()
        super()._release()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        trio.run(serve, lambda: Talkative(Fickle()), sys.argv[1])
