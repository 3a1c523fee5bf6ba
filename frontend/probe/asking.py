"""One question after another, and answers as they come.

`frontend.connection.Frontend` closes the connection at the first answer that is not as it has to be.  Here such an
answer is what we came for: it is noted, read as far as it can be read, and the next question is asked.

Questions are told apart by a fence: behind a message whose answer is in doubt goes a question whose answer is not.
What has come when the fence is answered is all that will ever come, and nobody has to guess how long to wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import termios
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from vhostuser.errors import RemoteProtocolError, VhostUserError
from vhostuser.protocol.framing import Frame
from vhostuser.wire.requests import HEADER_SIZE, Header, HeaderFlags, Role, request_of
from vhostuser.wire.schema import FormatError, Structure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.probe.report import Report
    from vhostuser.transport.channel import Channel
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.records import Config

REPLY_FLAGS = HeaderFlags.VERSION_1 | HeaderFlags.REPLY
MOST_STRAYS = 16
"""Answers to something else that are read before the right one is given up."""
S = TypeVar("S", bound=Structure)


class NoAnswer(VhostUserError):
    """The back-end hung up, fell silent, or sent what no answer can be found in."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A message from the back-end, whatever it is.

    Attributes:
        request: the number in its header.
        payload: its bytes.
    """

    request: int
    payload: bytes


class Conversation:
    """Asks, and notes in ``report`` what is odd about the answers.

    Args:
        channel: leads to the back-end; stays the caller's.
        report: gets the quirks.
        patience: seconds to wait for an answer.
    """

    def __init__(self, channel: Channel, report: Report, patience: float) -> None:
        self._channel = channel
        self._report = report
        self._patience = patience
        self._count = array("i", [0])

    async def ask(self, message: Message, kind: type[S]) -> S | None:
        """The payload of the reply to ``message``; None when it is none of ``kind``.

        Raises:
            NoAnswer: none came.
        """
        await self.tell(message)
        return self.read(message, await self.answer_to(message), kind)

    async def answer_to(self, message: Message) -> Answer:
        """The answer to ``message``, which has been sent, as it came.

        Raises:
            NoAnswer: none came.
        """
        return (await self._hear_until(message))[-1]

    async def fenced(self, message: Message, fence: Message, *, need_reply: bool) -> list[Answer]:
        """Every answer to ``message``, usually one: all that came before the answer to ``fence``.

        Raises:
            NoAnswer: the fence was not answered either.
        """
        await self.tell(message, need_reply=need_reply)
        await self.tell(fence)
        number = message.spec.request
        return [answer for answer in await self._hear_until(fence, number) if answer.request == number]

    async def tell(self, message: Message, *, need_reply: bool = False) -> None:
        """Send ``message`` and wait for nothing.

        Raises:
            NoAnswer: there is nobody to send it to.
        """
        payload = message.build()
        flags = HeaderFlags.VERSION_1 | (HeaderFlags.NEED_REPLY if need_reply else HeaderFlags(0))
        name = message.spec.name
        with trio.move_on_after(self._patience) as scope, _hung_up(name):
            await self._channel.send(Frame(Header(message.spec.request, flags, len(payload)), payload))
        if scope.cancelled_caught:
            raise NoAnswer(f"it did not read {name} for {self._patience:g} s")

    def read(self, message: Message, answer: Answer, kind: type[S]) -> S | None:
        """``answer`` as the reply to ``message``; one that cannot be read is noted."""
        try:
            return kind.parse(answer.payload)
        except FormatError as error:
            self._report.note("reply-size", f"{message.spec.name}: {error}")
        return None

    async def _hear_until(self, message: Message, *expected: int) -> list[Answer]:
        """Answers up to the one to ``message``, which is the last."""
        wanted, name = message.spec.request, message.spec.name
        heard: list[Answer] = []
        while len(heard) < MOST_STRAYS:
            heard.append(await self._hear(name))
            if heard[-1].request == wanted:
                return heard
            if heard[-1].request not in expected:
                self._report.note(
                    "reply-order", f"{request_name(heard[-1].request)} was answered when {name} was to be"
                )
        raise NoAnswer(f"{name}: {MOST_STRAYS} other answers came instead")

    async def _hear(self, name: str) -> Answer:
        with trio.move_on_after(self._patience) as scope, _hung_up(name):
            arrived = await self._first_bytes()
            frame = await self._channel.receive()
        if scope.cancelled_caught:
            raise NoAnswer(f"no answer to {name} for {self._patience:g} s")
        with frame.fds:
            self._look_at(frame, arrived)
            return Answer(frame.header.request, frame.payload)

    async def _first_bytes(self) -> int:
        """How many bytes of a message are there when the first are seen."""
        await trio.lowlevel.wait_readable(self._channel.fileno())
        return self._arrived()

    def _arrived(self) -> int:
        fcntl.ioctl(self._channel.fileno(), termios.FIONREAD, self._count)
        return self._count[0]

    def _look_at(self, frame: Frame, arrived: int) -> None:
        name, flags = request_name(frame.header.request), frame.header.flags
        if flags != REPLY_FLAGS:
            self._report.note("reply-flags", f"{name}: found flags {flags:#x}, expected {REPLY_FLAGS:#x}")
        if len(frame.fds):
            self._report.note("reply-fds", f"{name}: found {len(frame.fds)} descriptors, expected none")
        if frame.header.size and 0 < arrived <= HEADER_SIZE:
            self._report.note("split-reply", "a reply's header arrives before its payload: separate writes")


def config_data(reply: Config) -> bytes:
    """The bytes of configuration space in a reply, no more than it says there are; none when it refuses."""
    return reply.data[: reply.size]


def request_name(number: int) -> str:
    """What the document calls it."""
    request = request_of(Role.FRONTEND, number)
    return request.name if request else f"request {number}"


@contextlib.contextmanager
def _hung_up(name: str) -> Iterator[None]:
    try:
        yield
    except trio.EndOfChannel:
        raise NoAnswer(f"it closed the connection at {name}") from None
    except (trio.BrokenResourceError, RemoteProtocolError) as error:
        raise NoAnswer(f"{name}: {error}") from error
