"""What a back-end has to say of its own accord, on the channel of SET_BACKEND_REQ_FD.

So far that is one thing: the configuration space changed.  It is said without asking for an acknowledgement, so
nothing here ever waits for the front-end; a front-end that answers a back-end's request may first send messages on
the main channel, and waiting for it there and here at once would stop both for ever.

A device all of whose rings are stopped is suspended and must keep silent, so news is kept until a ring runs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from vhostuser.device import Signal
from vhostuser.errors import LocalProtocolError
from vhostuser.protocol.reverse import BackendRequester
from vhostuser.transport.unix import adopt_channel
from vhostuser.wire.backend_messages import BackendConfigChangeMsg

if TYPE_CHECKING:
    from vhostuser.fd import Fd
    from vhostuser.protocol.backend import BackendProtocol
    from vhostuser.transport.channel import Channel

log = logging.getLogger("vhostuser.backend")


class ConfigNotifier:
    """Tells the front-end that configuration space changed, when it may be told.

    Args:
        protocol: says which features are in force, and whether the device is suspended.
    """

    def __init__(self, protocol: BackendProtocol) -> None:
        self._protocol = protocol
        self._channel: Channel | None = None
        self._resumed = Signal()

    def use(self, fd: Fd) -> None:
        """Send on this socket from now on; it is owned here, and a former one is closed."""
        self.close()
        self._channel = adopt_channel(fd)

    def resume(self) -> None:
        """A ring may have started: the device is not suspended any more."""
        self._resumed.set()

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def run(self, changed: Signal) -> None:
        """Tell each change, until cancelled."""
        while True:
            await changed.wait()
            while self._protocol.state.suspended:
                await self._resumed.wait()
            await self._tell()

    async def _tell(self) -> None:
        if self._channel is None:
            log.info("configuration space changed; the front-end gave no channel to tell it so")
            return
        try:
            frame = BackendRequester(self._protocol.state).request(BackendConfigChangeMsg(), ack=False)
            await self._channel.send(frame)
        except LocalProtocolError as error:
            log.info("configuration space changed; the front-end cannot be told: %s", str(error))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            log.info("configuration space changed; the front-end closed its channel: %s", str(error))
