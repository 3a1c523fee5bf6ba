"""Frames over a unix socket for code that may block: a test that waits a few seconds at most, without trio."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Self

from vhostuser.errors import VhostUserError
from vhostuser.protocol.framing import DEFAULT_MAX_FDS, Deframer
from vhostuser.transport.ancillary import receive_nowait, send_nowait

if TYPE_CHECKING:
    import socket

    from vhostuser.fd import Fds
    from vhostuser.protocol.framing import Frame

MAX_PAYLOAD = 1 << 20
"""Bytes: a scripted peer wants to see what others would refuse."""


class PeerSilent(VhostUserError, TimeoutError):
    """The peer lives, and did not do in time what the test waits for."""


class PeerGone(VhostUserError, EOFError):
    """The peer closed the connection."""


class Line:
    """One end of a connection.

    Args:
        sock: a connected unix stream socket, owned from now on.
        timeout: seconds that the peer has for each message.
    """

    def __init__(self, sock: socket.socket, *, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._deframer = Deframer(max_payload=MAX_PAYLOAD)

    def send(self, frame: Frame) -> None:
        """Send a frame; its descriptors are closed here.

        Raises:
            PeerSilent: the peer does not read.
            PeerGone: it hung up.
        """
        self.send_bytes(frame.build(), frame.fds)

    def send_bytes(self, data: bytes, fds: Fds) -> None:
        """Send bytes as they are, the descriptors with the first; see `send`."""
        rest, numbers = memoryview(data), fds.numbers()
        until = time.monotonic() + self._timeout
        with fds:
            while rest:
                try:
                    rest = rest[send_nowait(self._sock, rest, numbers) :]
                    numbers = []
                except BlockingIOError:
                    self._wait(select.POLLOUT, until)
                except (BrokenPipeError, ConnectionResetError) as error:
                    raise PeerGone("the peer closed the connection") from error

    def receive(self) -> Frame:
        """The next frame; the caller owns its descriptors.

        Raises:
            PeerSilent: none came in time.
            PeerGone: the peer hung up.
            RemoteProtocolError: it announced too large a payload.
        """
        until = time.monotonic() + self._timeout
        while True:
            try:
                data, fds, _ = receive_nowait(self._sock, self._deframer.needed, DEFAULT_MAX_FDS)
            except BlockingIOError:
                self._wait(select.POLLIN, until)
                continue
            except ConnectionResetError as error:
                raise PeerGone("the peer closed the connection") from error
            if not data:
                inside = "" if self._deframer.idle else " inside a message"
                raise PeerGone(f"the peer closed the connection{inside}")
            if (frame := self._deframer.feed(data, fds)) is not None:
                return frame

    def close(self) -> None:
        """Hang up."""
        self._deframer.close()
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, event: int, until: float) -> None:
        wait_for(self._sock.fileno(), event, until, "a message" if event == select.POLLIN else "room to send")


def wait_for(fd: int, event: int, until: float, what: str) -> None:
    """Wait for a poll event.

    Args:
        fd: to be polled.
        event: of ``select.poll``.
        until: by ``time.monotonic``.
        what: to call it in the error.

    Raises:
        PeerSilent: it did not come.
    """
    poll = select.poll()
    poll.register(fd, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise PeerSilent(f"waited in vain for {what}")
