"""`Channel`: frames over a unix socket, descriptors and all; whatever is cancelled, the stream stays in step.

Reading.  The socket is asked for exactly what the deframer wants next, so descriptors belong to their message by
construction (see `vhostuser.protocol.framing`).  Between the system call that takes bytes off the socket and the
deframer that keeps them nothing is awaited.  So a `receive` that is cancelled leaves a half message in the deframer,
and the next `receive` goes on from there: nothing is lost.

Writing cannot be undone in the same way.  Until the kernel has taken the first byte, cancelling `send` means that the
message was never sent.  After it, half a message is out and only its second half can put the stream back in step: the
rest is sent shielded from cancellation, with a deadline.  A peer that lets the deadline pass has a broken channel.

Half messages.  A peer may be silent between two messages for as long as it likes, inside one only for
``message_timeout`` seconds in all, however it spreads its bytes.  Only the time spent waiting for it counts, so it is
never blamed for our own pauses.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import struct
import sys
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypedDict

import trio

from vhostuser.errors import RemoteProtocolError
from vhostuser.protocol.framing import DEFAULT_MAX_FDS, DEFAULT_MAX_PAYLOAD, Deframer, Frame
from vhostuser.transport.ancillary import Received, receive_nowait, send_nowait
from vhostuser.wire.requests import HEADER_SIZE

if TYPE_CHECKING:
    from vhostuser.fd import Fds


DEFAULT_MESSAGE_TIMEOUT = 5.0
"""Seconds that a peer may take for the rest of a message."""

_CONNECTION_LOST = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN})
_LOST = "the connection is lost: {}"
_FDS_SECTION = "Communication"


class Direction(Enum):
    """Which way a frame went, seen from here."""

    SENT = "sent"
    RECEIVED = "received"


Observer: TypeAlias = Callable[[Direction, Frame], None]


class ChannelOptions(TypedDict, total=False):
    """What `Channel` takes besides its socket; everything that makes channels passes these on."""

    max_payload: int
    max_fds: int
    message_timeout: float
    observer: Observer | None


class PeerCredentials(NamedTuple):
    """Who is at the other end, as the kernel saw it when the connection was made."""

    pid: int
    uid: int
    gid: int


class Channel(trio.abc.AsyncResource):
    """Frames in both directions; one task may receive at a time, any number may send.

    Args:
        sock: a connected unix stream socket, trio's or the standard library's.  The channel owns it: the object given
            is detached.
        max_payload: largest payload to accept, in bytes.
        max_fds: most descriptors to accept with one message.
        message_timeout: seconds to wait, in all, for the rest of a message that has begun, in either direction.
        observer: called with each frame while it still holds its descriptors: a sent one once the kernel has taken
            it, a received one before `receive` returns.  It must not take or close them, and must not raise.
    """

    def __init__(
        self,
        sock: trio.socket.SocketType | socket.socket,
        *,
        max_payload: int = DEFAULT_MAX_PAYLOAD,
        max_fds: int = DEFAULT_MAX_FDS,
        message_timeout: float = DEFAULT_MESSAGE_TIMEOUT,
        observer: Observer | None = None,
    ) -> None:
        self._sock = socket.socket(fileno=sock.detach())
        self._sock.setblocking(False)
        self._max_fds = max_fds
        self._message_timeout = message_timeout
        self._observer = observer
        self._send_lock = trio.Lock()
        self._send_broken: str | None = None
        self._receive_broken: str | None = None
        self._receiving = False
        self._deframer = Deframer(max_payload=max_payload)
        self._begin_message()

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._sock.fileno() < 0

    def fileno(self) -> int:
        """The socket's number, still owned by the channel; -1 when closed."""
        return self._sock.fileno()

    async def send(self, frame: Frame) -> None:
        """Send one frame; its descriptors are the channel's from the call on, and closed whatever happens.

        Cancelled before the kernel took the first byte, nothing was sent.  Afterwards cancellation waits until the
        message is out.

        Raises:
            trio.BrokenResourceError: the peer is gone, or left a message half read for too long.
            trio.ClosedResourceError: this channel is closed.
            OSError: the kernel refuses this message (nothing was sent; the channel goes on).
        """
        with frame.fds:
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._send_lock.locked():
                await self._send_lock.acquire()
            else:
                self._send_lock.acquire_nowait()
            try:
                await self._send_whole(frame)
            finally:
                self._send_lock.release()
        # The turn that a checkpoint owes to other tasks comes last, while the peer is at work already.
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def receive(self) -> Frame:
        """The next frame; the caller owns its descriptors.

        Cancelling loses nothing: the next call goes on where this one stopped.

        Raises:
            trio.EndOfChannel: the peer closed the connection between two messages.
            RemoteProtocolError: it stopped inside a message, announced too large a payload, or sent more descriptors
                than we accept.  Close the channel.
            trio.BrokenResourceError: the connection failed, or a call before this one raised RemoteProtocolError.
            trio.ClosedResourceError: this channel is closed.
            trio.BusyResourceError: another task is receiving.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this channel")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            while (frame := self._receive_now()) is None:
                await self._wait_for_more()
        finally:
            self._receiving = False
        self._observe(Direction.RECEIVED, frame)
        return frame

    def close(self) -> None:
        """Close the socket and the descriptors of a half-read message; tasks in here get ClosedResourceError."""
        if self.closed:
            return
        if trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._sock)
        self._sock.close()
        self._deframer.close()

    async def aclose(self) -> None:
        """As `close`; for ``async with``."""
        self.close()
        await trio.lowlevel.checkpoint()

    def peer_credentials(self) -> PeerCredentials | None:
        """Process, user and group of the peer; None where the system has no SO_PEERCRED."""
        if sys.platform != "linux":
            return None
        layout = struct.Struct("3i")
        return PeerCredentials(
            *layout.unpack(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, layout.size))
        )

    def __repr__(self) -> str:
        if self.closed:
            return "<Channel closed>"
        states = [state for state in (self._send_broken, self._receive_broken) if state]
        return f"<Channel fd {self.fileno()}{_address(self._sock)}{''.join(f', broken: {state}' for state in states)}>"

    def _observe(self, direction: Direction, frame: Frame) -> None:
        if self._observer is None:
            return
        try:
            self._observer(direction, frame)
        except BaseException:
            frame.close()
            raise

    def _check_usable(self, broken: str | None) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this channel was closed")
        if broken:
            raise trio.BrokenResourceError(broken)

    # Sending

    async def _send_whole(self, frame: Frame) -> None:
        data = memoryview(frame.build())
        sent = await self._send_beginning(data, frame.fds)
        # Until the last byte is out, whatever ends this task leaves half a message behind.
        self._send_broken = f"a message of {len(data)} bytes was sent in part"
        self._observe(Direction.SENT, frame)
        frame.fds.close()
        if sent < len(data):
            await self._send_rest(data[sent:])
        self._send_broken = None

    async def _send_beginning(self, data: memoryview, fds: Fds) -> int:
        """Wait until the kernel takes the first byte, and with it the descriptors; bytes taken."""
        while True:
            self._check_usable(self._send_broken)
            try:
                return send_nowait(self._sock, data, fds.numbers())
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._sock)
            except OSError as error:
                _check_connection(error)
                raise

    async def _send_rest(self, data: memoryview) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._message_timeout) as scope:
            while data:
                await trio.lowlevel.wait_writable(self._sock)
                self._check_usable(None)
                try:
                    data = data[send_nowait(self._sock, data) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    _check_connection(error)
                    raise
        if scope.cancelled_caught:
            raise trio.BrokenResourceError(
                f"the peer left the last {len(data)} bytes of a message unread for {self._message_timeout:g} s"
            )

    # Receiving

    def _begin_message(self) -> None:
        self._bytes_received = 0
        self._fds_received = 0
        self._patience = self._message_timeout

    def _receive_now(self) -> Frame | None:
        """The next frame if all of it is here; otherwise keep what is, and None."""
        while True:
            self._check_usable(self._receive_broken)
            try:
                received = receive_nowait(self._sock, self._deframer.needed, self._max_fds)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in _CONNECTION_LOST:
                    self._abandon_message(_LOST.format(error.strerror))
                _check_connection(error)
                raise
            frame = self._take(received)
            if frame is not None:
                self._begin_message()
                return frame

    def _take(self, received: Received) -> Frame | None:
        try:
            self._check_received(received)
            self._bytes_received += len(received.data)
            self._fds_received += len(received.fds)
            return self._deframer.feed(received.data, received.fds)
        except RemoteProtocolError as error:
            received.fds.close()
            self._abandon_message(error.reason)
            raise

    def _check_received(self, received: Received) -> None:
        fds = self._fds_received + len(received.fds)
        if received.truncated:
            raise RemoteProtocolError(
                f"some of a message's file descriptors were lost (MSG_CTRUNC): found {fds}, limit {self._max_fds}; "
                f"or this process has no free ones",
                section=_FDS_SECTION,
            )
        if fds > self._max_fds:
            raise RemoteProtocolError(
                f"found {fds} file descriptors with one message, limit {self._max_fds}", section=_FDS_SECTION
            )
        if not received.data:
            if self._deframer.idle:
                raise trio.EndOfChannel("the peer closed the connection")
            raise RemoteProtocolError(f"the connection ended inside a message: {self._progress()}", section="Header")

    async def _wait_for_more(self) -> None:
        """Until there is something to read; inside a message, only as long as the peer has time left."""
        patience = math.inf if self._deframer.idle else max(0, self._patience)
        started = trio.current_time()
        try:
            with trio.move_on_after(patience) as scope:
                await trio.lowlevel.wait_readable(self._sock)
        finally:
            if patience != math.inf:
                self._patience -= trio.current_time() - started
        if scope.cancelled_caught:
            error = RemoteProtocolError(
                f"the peer stopped inside a message for {self._message_timeout:g} s: {self._progress()}"
            )
            self._abandon_message(error.reason)
            raise error

    def _progress(self) -> str:
        part = "its header" if self._bytes_received < HEADER_SIZE else "header and payload"
        return f"found {self._bytes_received} bytes of {part}, expected {self._bytes_received + self._deframer.needed}"

    def _abandon_message(self, reason: str) -> None:
        self._receive_broken = reason
        self._deframer.close()


def _check_connection(error: OSError) -> None:
    """Say "the peer is gone" in trio's words, if that is what ``error`` means."""
    if error.errno in _CONNECTION_LOST:
        raise trio.BrokenResourceError(_LOST.format(error.strerror)) from error


def _address(sock: socket.socket) -> str:
    """The path in the file system, if either end has one."""
    with contextlib.suppress(OSError):
        for name in (sock.getsockname(), sock.getpeername()):
            if name:
                return f" at {os.fsdecode(name)}"
    return ""
