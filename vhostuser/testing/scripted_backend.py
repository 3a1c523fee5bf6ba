"""A back-end for tests of front-ends: it listens, and a function says what it answers.

The function runs on a thread, so that the front-end under test may block, be asynchronous, or be another program::

    def script(peer):
        peer.until(SetFeatures)     # answers all before it as a good back-end does
        peer.refuse()               # this one not
        peer.run()                  # and the rest again

    backend = ScriptedBackend(path, script)
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

from vhostuser.fd import NO_FDS
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.testing.line import Line, PeerGone, PeerSilent
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import GetConfig, GetVringBase
from vhostuser.wire.records import Config, VringState

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vhostuser.fd import Fds
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

    M = TypeVar("M", bound=Message)

FEATURES = (
    VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC | VirtioFeature.EVENT_IDX | VirtioFeature.PROTOCOL_FEATURES
)
PROTOCOL_FEATURES = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG


class ScriptedPeer:
    """The back-end's end of one connection.

    Args:
        line: the connection.
        protocol: what is offered, and the rules.
        config: configuration space.

    Attributes:
        line: for what no back-end should send.
        taken: all requests so far.
        fds: what came with the last one; closed when the next is taken.
    """

    def __init__(self, line: Line, protocol: BackendProtocol, config: bytes) -> None:
        self.line, self.protocol = line, protocol
        self.taken: list[Message] = []
        self.fds: Fds = NO_FDS
        self._config = config

    def take(self) -> Message:
        """The next request, unanswered; see `Line.receive`.

        Raises:
            RemoteProtocolError: the front-end broke the protocol.
        """
        self.fds.close()
        frame = self.line.receive()
        self.fds = frame.fds
        message = self.protocol.receive(frame)
        self.taken.append(message)
        return message

    def answer(self) -> None:
        """Answer the last request as a good back-end does: with what it asks for, or that it is done.

        Raises:
            LocalProtocolError: there is no telling what would be a good answer: `reply` has one of your own.
            RemoteProtocolError: only closing the connection would be one.
        """
        message = self.taken[-1]
        answer = self.protocol.answer(message) or self.protocol.refusal(message)
        if answer is None:
            value = self._value(message)
            answer = self.protocol.ack() if value is None else self.protocol.reply(message, value)
        self._send(answer)

    def reply(self, value: Structure, fds: Fds = NO_FDS) -> None:
        """Answer the last request with this payload; ``fds`` are owned and closed here."""
        self._send(self.protocol.reply(self.taken[-1], value, fds))

    def refuse(self) -> None:
        """Refuse the last request, if there is an answer that can say so."""
        self._send(self.protocol.nack())

    def until(self, kind: type[M]) -> M:
        """Answer all requests up to the next ``kind``, which is returned without an answer."""
        while not isinstance(message := self.take(), kind):
            self.answer()
        return message

    def run(self) -> list[Message]:
        """Answer the last request, if nobody has, and all others until the front-end hangs up; all that were taken."""
        with contextlib.suppress(PeerGone):
            while True:
                self.take()
                self.answer()
        return self.taken

    def _send(self, answer: Frame | None) -> None:
        if answer is not None:
            self.line.send(answer)

    def _value(self, message: Message) -> Structure | None:
        match message:
            case GetVringBase(index):
                return VringState(index, 0)
            case GetConfig(offset, size, flags):
                return Config(offset, size, flags, self._config[offset : offset + size].ljust(size, b"\0"))
        return None


class ScriptedBackend:
    """Listens at ``path`` for one front-end, and runs ``script`` with it on a thread.

    Args:
        path: where; at most a hundred bytes.
        script: gets a `ScriptedPeer`; what it returns, or raises, comes out of `join`.
        timeout: seconds that the front-end has for each message, and to connect.
        features: virtio features to offer.
        protocol_features: protocol features to offer.
        num_queues: rings that there are.
        config: configuration space.
    """

    def __init__(
        self,
        path: str | Path,
        script: Callable[[ScriptedPeer], Any],
        *,
        timeout: float = 5.0,
        features: int = FEATURES,
        protocol_features: ProtocolFeature = PROTOCOL_FEATURES,
        num_queues: int = 1,
        config: bytes = bytes(64),
    ) -> None:
        self.path = str(path)
        self._script, self._timeout, self._config = script, timeout, config
        self._protocol = BackendProtocol(features=features, protocol_features=protocol_features, num_queues=num_queues)
        self._result: Any = None
        self._error: BaseException | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(self.path)
            self._listener.listen(1)
        except BaseException:
            self._listener.close()
            raise
        self._stop: tuple[int, ...] = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"scripted back-end at {self.path}")
        self._thread.start()

    def join(self) -> Any:
        """Wait for the script's end: what it returned.

        Raises:
            PeerSilent: no front-end came, or it did not go on.
            BaseException: whatever the script raised.
        """
        self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result

    def close(self) -> None:
        """Stop waiting for a front-end, wait for the script's end, and remove the socket; an error that nobody has
        been told of yet is raised."""
        if self._stop:
            os.write(self._stop[1], b"x")
            self._thread.join()
            for fd in self._stop:
                os.close(fd)
            self._stop = ()
            self._listener.close()
            os.unlink(self.path)
        self.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            sock = self._accepted()
            if sock is not None:
                with Line(sock, timeout=self._timeout) as line:
                    peer = ScriptedPeer(line, self._protocol, self._config)
                    try:
                        self._result = self._script(peer)
                    finally:
                        peer.fds.close()
        except BaseException as error:  # it belongs to the test, which is another thread
            self._error = error

    def _accepted(self) -> socket.socket | None:
        """The connection; None when nobody waits for one any more."""
        poll = select.poll()
        for fd in (self._listener.fileno(), self._stop[0]):
            poll.register(fd, select.POLLIN)
        until = time.monotonic() + self._timeout
        ready = [fd for fd, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000)]
        if self._listener.fileno() in ready:
            return self._listener.accept()[0]
        if not ready:
            raise PeerSilent(f"no front-end came to {self.path} within {self._timeout:g} s")
        return None
