"""One connection to the back-end under test: polite messages, impolite ones, and raw bytes.

`vhostuser.protocol` refuses to say what is forbidden; here that is often the point.  So a session builds its own
headers, keeps no state machine, and judges answers itself.

Nobody has to guess how long to wait for an answer that may not come: behind a message whose answer is in doubt goes
GET_FEATURES, which every back-end answers (`outcome`).  What has come before that answer is all that will ever come.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Self, TypeVar

import trio

from vhostuser.conformance import Failure, Wedged
from vhostuser.errors import RemoteProtocolError, VhostUserError
from vhostuser.fd import NO_FDS, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.transport.ancillary import send_nowait
from vhostuser.transport.channel import Channel
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetFeatures,
    GetProtocolFeatures,
    SetFeatures,
    SetOwner,
    SetProtocolFeatures,
)
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags, Role, request_of
from vhostuser.wire.schema import FormatError, Structure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from frontend.conformance.log import Recorder
    from vhostuser.wire.catalog import Message

S = TypeVar("S", bound=Structure)

PLAIN = HeaderFlags.VERSION_1
ASKING = HeaderFlags.VERSION_1 | HeaderFlags.NEED_REPLY
REPLY = HeaderFlags.VERSION_1 | HeaderFlags.REPLY


class Closed(VhostUserError):
    """The back-end closed the connection."""


class Outcome(Enum):
    """What became of a message, in the words of the catalogue."""

    ACK = "acknowledged with 0"
    NACK = "acknowledged with non-zero"
    CLOSED = "closed the connection"
    IGNORED = "neither answered nor closed, and in sync"
    ANSWERED = "answered with a reply of its own"

    @property
    def refused(self) -> bool:
        """True when the message certainly had no effect that the back-end knows of."""
        return self in (Outcome.NACK, Outcome.CLOSED)


@dataclass(frozen=True, slots=True)
class Answer:
    """A message from the back-end.  Its descriptors are the receiver's."""

    request: int
    flags: int
    payload: bytes
    fds: Fds

    @property
    def value(self) -> int | None:
        """The u64 it carries, if that is what it carries."""
        return U64.parse(self.payload).value if len(self.payload) == 8 else None

    def parse(self, kind: type[S]) -> S:
        """Its payload as a record.

        Raises:
            Failure: it is none.
        """
        try:
            return kind.parse(self.payload)
        except FormatError as error:
            raise Failure(f"reply to {request_name(self.request)}: {error}") from None


def request_name(number: int) -> str:
    """What the document calls a request of the front-end."""
    request = request_of(Role.FRONTEND, number)
    return request.name if request else f"request {number}"


class Session:
    """A connection, used by one task.

    Args:
        sock: connected, non-blocking; owned from now on.
        recorder: gets everything that passes.
        patience: seconds to wait for an answer before the back-end counts as wedged.
        requester: who asks here; on the back-end channel it is the back-end.

    Attributes:
        features: virtio features that were set; 0 before.
        protocol: protocol features that were set.
        offered: virtio features that the back-end offered, once it was asked.
        protocol_offered: protocol features likewise.
        strays: answers that came while another was waited for, and belonged to nothing that was asked; descriptors
            are closed already.
    """

    def __init__(
        self, sock: socket.socket, recorder: Recorder, *, patience: float = 2.0, requester: Role = Role.FRONTEND
    ) -> None:
        observer = recorder.observer(requester=requester)
        self._channel = Channel(sock, observer=observer, max_payload=1 << 20, message_timeout=patience)
        self._recorder = recorder
        self.patience = patience
        self.features = 0
        self.protocol = ProtocolFeature(0)
        self.offered = 0
        self.protocol_offered = ProtocolFeature(0)
        self.strays: list[Answer] = []

    @property
    def acks(self) -> bool:
        """True when REPLY_ACK is in force."""
        return bool(self.protocol & ProtocolFeature.REPLY_ACK)

    # --- out ---

    async def send(self, message: Message, fds: Fds = NO_FDS, *, need_reply: bool = False) -> None:
        """Send ``message``; ``fds`` are owned and closed here.

        Raises:
            Closed: nobody is there any more.
            Wedged: it reads nothing.
        """
        await self.send_raw(message.spec.request, message.build(), flags=ASKING if need_reply else PLAIN, fds=fds)

    async def send_raw(
        self, request: int, payload: bytes = b"", *, flags: int = PLAIN, size: int | None = None, fds: Fds = NO_FDS
    ) -> None:
        """Send a header with any numbers in it, and ``payload``.

        Args:
            request: its number.
            payload: what follows the header.
            flags: all 32 bits of them.
            size: what the header says of the payload; its true size by default.
            fds: go with the first byte; owned and closed here.
        """
        header = Header(request, HeaderFlags(flags), len(payload) if size is None else size)
        with fds:
            await self._deliver(self._channel.send(Frame(header, payload, fds)))

    async def send_bytes(self, data: bytes, fds: Fds = NO_FDS) -> None:
        """Send bytes as they are, in one ``sendmsg`` if the socket has room; ``fds`` are owned and closed here."""
        with fds:
            self._recorder.note(f"sent {len(data)} raw bytes with {len(fds)} descriptors", data=data)
            await self._deliver(self._send_bytes(data, fds))

    async def _send_bytes(self, data: bytes, fds: Fds) -> None:
        rest, numbers = memoryview(data), fds.numbers()
        with socket.fromfd(self._channel.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            while rest:
                try:
                    rest = rest[send_nowait(sock, rest, numbers) :]
                    numbers = []
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(sock)
                except (BrokenPipeError, ConnectionResetError) as error:
                    raise trio.BrokenResourceError from error

    async def _deliver(self, sending: Awaitable[None]) -> None:
        with trio.move_on_after(self.patience) as scope:
            try:
                await sending
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise Closed("the back-end closed the connection before it had the whole message") from None
        if scope.cancelled_caught:
            raise Wedged(f"the back-end read nothing for {self.patience:g} s")

    # --- in ---

    async def receive(self, *, within: float | None = None, what: str = "an answer") -> Answer:
        """The next message, whatever it is.

        Raises:
            Closed: the back-end hung up instead.
            Wedged: nothing came in time.
            Failure: what came is no message.
        """
        patience = self.patience if within is None else within
        with trio.move_on_after(patience), _reading():
            frame = await self._channel.receive()
            return Answer(frame.header.request, int(frame.header.flags), frame.payload, frame.fds)
        raise Wedged(f"{what} did not come within {patience:g} s")

    async def answer(self, request: int) -> Answer:
        """The next message that answers ``request``; those before it are kept in `strays`."""
        while True:
            answer = await self.receive(what=f"the answer to {request_name(request)}")
            if answer.request == request:
                return answer
            answer.fds.close()
            self.strays.append(answer)
            if len(self.strays) > 1000:
                raise Failure(f"a flood of answers instead of the one to {request_name(request)}")

    async def ask(self, message: Message, kind: type[S], *, need_reply: bool = False) -> S:
        """Send a question; its reply, which has to be well-formed and the next message.

        Raises:
            Failure: another message came, or a malformed one.
        """
        await self.send(message, need_reply=need_reply)
        answer = await self.receive(what=f"the reply to {message.spec.name}")
        with answer.fds:
            if answer.request != message.spec.request or answer.flags & ~HeaderFlags.NEED_REPLY != REPLY:
                raise Failure(
                    f"reply to {message.spec.name}: found request {answer.request}, flags {answer.flags:#x}; "
                    f"expected request {int(message.spec.request)}, flags {int(REPLY):#x}"
                )
            return answer.parse(kind)

    async def silent(self, seconds: float) -> bool:
        """True when the back-end says nothing for ``seconds``; what it says is lost."""
        with trio.move_on_after(seconds), _reading():
            (await self._channel.receive()).close()
            return False
        return True

    async def closes(self, *, within: float = 5.0) -> bool:
        """Wait until the back-end hangs up; False when it does not in time."""
        with trio.move_on_after(within):
            while True:
                try:
                    (await self.receive(within=within)).fds.close()
                except (Closed, Failure):
                    return True
                except Wedged:
                    return False
        return False

    def check_open(self) -> None:
        """See whether the back-end is still there, without reading.

        Raises:
            Closed: it has hung up, and nothing that it said before is left to be read.
        """
        with socket.fromfd(self._channel.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                if sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                    return
            except BlockingIOError:
                return
            except ConnectionResetError:
                pass
        raise Closed("the back-end closed the connection")

    # --- what becomes of a message ---

    async def outcome(self, request: int) -> Outcome:
        """What became of the message with number ``request``, just sent: GET_FEATURES goes after it, as a fence.

        Raises:
            Wedged: the back-end neither answers GET_FEATURES nor hangs up.
        """
        try:
            await self.send(GetFeatures())
            fence = int(GetFeatures.spec.request)
            before: list[Answer] = []
            while True:
                answer = await self.receive(what=f"the answer to GET_FEATURES behind {request_name(request)}")
                answer.fds.close()
                if answer.request == fence and (request != fence or before):
                    break
                before.append(answer)
                if len(before) > 1000:
                    raise Failure("a flood of answers")
        except Closed:
            return Outcome.CLOSED
        ours = [each for each in before if each.request == request]
        self.strays += [each for each in before if each.request != request]
        if not ours:
            return Outcome.IGNORED
        if ours[0].value is None:
            return Outcome.ANSWERED
        return Outcome.NACK if ours[0].value else Outcome.ACK

    async def tell(self, message: Message, fds: Fds = NO_FDS) -> None:
        """Send a message that has to be accepted: with REPLY_ACK its acknowledgement is awaited, and must be 0.

        Raises:
            Failure: it was refused.
        """
        await self.send(message, fds, need_reply=self.acks)
        if not self.acks:
            return
        answer = await self.answer(message.spec.request)
        answer.fds.close()
        if answer.value != 0:
            raise Failure(f"{message.spec.name} was acknowledged with {answer.value}, expected 0: {message}")

    async def in_sync(self) -> None:
        """GET_FEATURES is answered, correctly and with nothing before it.

        Raises:
            Failure: it is not.
        """
        features = (await self.ask(GetFeatures(), U64)).value
        if self.offered and features != self.offered:
            raise Failure(f"GET_FEATURES: found {features:#x}, expected {self.offered:#x} as before")

    # --- set-up ---

    async def negotiate(
        self,
        virtio: int | None = None,
        protocol: ProtocolFeature | None = None,
        *,
        without: int = 0,
        without_protocol: ProtocolFeature = ProtocolFeature(0),  # noqa: B008 - a number
    ) -> None:
        """Features in QEMU's order: GET_FEATURES, protocol features, SET_OWNER, SET_FEATURES.

        Args:
            virtio: bits to acknowledge where they are offered; by default VERSION_1 and bit 30.
            protocol: protocol bits likewise; by default MQ, REPLY_ACK and CONFIG.
            without: virtio bits not to acknowledge in any case.
            without_protocol: protocol bits likewise.
        """
        virtio = VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES if virtio is None else virtio
        protocol = DEFAULT_PROTOCOL if protocol is None else protocol
        if not self.offered:
            self.offered = (await self.ask(GetFeatures(), U64)).value
        wanted = self.offered & virtio & ~without
        if wanted & VirtioFeature.PROTOCOL_FEATURES:
            self.protocol_offered = ProtocolFeature((await self.ask(GetProtocolFeatures(), U64)).value)
            chosen = self.protocol_offered & protocol & ~without_protocol
            await self.send(SetProtocolFeatures(chosen))
            self.protocol = chosen
        await self.tell(SetOwner())
        await self.set_features(wanted)

    async def set_features(self, features: int) -> None:
        """SET_FEATURES, which has to be accepted."""
        await self.tell(SetFeatures(features))
        self.features = features

    # --- the end ---

    @property
    def closed(self) -> bool:
        """True when we have closed it."""
        return self._channel.closed

    def fileno(self) -> int:
        """The socket's number."""
        return self._channel.fileno()

    def close(self) -> None:
        """Hang up."""
        if not self._channel.closed:
            self._recorder.note("closed the connection")
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


DEFAULT_PROTOCOL = ProtocolFeature.MQ | ProtocolFeature.REPLY_ACK | ProtocolFeature.CONFIG


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError):
        raise Closed("the back-end closed the connection") from None
    except RemoteProtocolError as error:
        if "connection ended inside" in str(error):
            raise Closed(str(error)) from None
        raise Failure(f"what the back-end sent is no message: {error}") from None
