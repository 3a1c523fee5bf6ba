"""Requests out, replies in: what a front-end does on the main channel and a back-end on the other.

Replies carry no sequence number.  A reply belongs to the oldest request that still waits for one, and repeats its
number; anything else means that the two ends have lost each other, and only closing helps.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vhostuser.errors import LocalProtocolError, RemoteProtocolError, VhostUserError
from vhostuser.fd import NO_FDS, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.protocol.replies import check_reply_fds, error_in, parse_reply
from vhostuser.protocol.rules import expect
from vhostuser.wire.frontend_messages import SetProtocolFeatures
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags, Role
from vhostuser.wire.schema import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vhostuser.protocol.state import ProtocolState, Snapshot
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure


class RequestRefused(VhostUserError):
    """The peer answered a request with an error.

    Attributes:
        request: its name, as in the document.
        value: the error number in the answer; only "not 0" means the same everywhere.
    """

    def __init__(self, request: str, value: int) -> None:
        super().__init__(f"{request} was refused with {value:#x}")
        self.request = request
        self.value = value


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What came back for a request.

    Attributes:
        to: the request.
        value: payload of the reply; None for a mere acknowledgement.
        error: 0, or the error number with which the peer refused.
        fds: what came along; whoever holds the reply owns them.
    """

    to: Message
    value: Structure | None
    error: int = 0
    fds: Fds = NO_FDS

    def check(self) -> None:
        """Close `fds` and raise `RequestRefused` if the peer refused; else do nothing."""
        if self.error:
            self.fds.close()
            raise RequestRefused(self.to.spec.name, self.error)


@dataclass(slots=True, eq=False)
class Sent:
    """A request that has gone out.

    Attributes:
        message: its payload.
        fd_count: how many descriptors went along.
        before: the state as it was when it went out.
        own_reply: it is answered with a payload of its own.
        ack: an acknowledgement was asked for.
    """

    message: Message
    fd_count: int
    before: Snapshot
    own_reply: bool
    ack: bool

    @property
    def awaited(self) -> bool:
        """Whether an answer is to come."""
        return self.own_reply or self.ack


class Requester:
    """The end of a channel that asks.

    Args:
        state: what is known of the connection; updated as requests go out.
    """

    role: ClassVar[Role]

    def __init__(self, state: ProtocolState) -> None:
        self.state = state
        # From the oldest request that waits for its answer to the newest of all.
        self._sent: deque[Sent] = deque()

    @property
    def outstanding(self) -> Sequence[Message]:
        """The requests that wait for an answer, oldest first."""
        return [sent.message for sent in self._sent if sent.awaited]

    def request(self, message: Message, fds: Fds = NO_FDS, *, ack: bool | None = None) -> Frame:
        """The frame that asks for ``message``; it is taken to be sent.

        Args:
            message: the request.
            fds: descriptors that go along; the frame owns them afterwards, the caller if this raises.
            ack: whether to ask for an acknowledgement; None: whenever it is possible.

        Raises:
            LocalProtocolError: the message may not be sent now; the state is as it was.
        """
        spec, before = message.spec, self.state.snapshot()
        try:
            payload = message.build()
        except FormatError as error:
            raise LocalProtocolError(f"{spec.name}: {error}", section=spec.section) from error
        self.state.observe(self.role, message, len(fds))
        own_reply = spec.replies(self.state.protocol_features)
        if ack is None:
            # Whether SET_PROTOCOL_FEATURES itself is acknowledged is not settled between implementations.
            ack = self.state.reply_ack and not own_reply and not isinstance(message, SetProtocolFeatures)
        if ack and not self.state.reply_ack:
            self.state.restore(before)
            raise LocalProtocolError(f"{spec.name}: acknowledgement asked for without REPLY_ACK", section="REPLY_ACK")
        sent = Sent(message, len(fds), before, own_reply, ack)
        if sent.awaited or self._sent:
            self._sent.append(sent)
        need_reply = HeaderFlags.NEED_REPLY if ack else HeaderFlags(0)
        return Frame(Header(spec.request, HeaderFlags.VERSION_1 | need_reply, len(payload)), payload, fds)

    def receive(self, frame: Frame) -> Reply:
        """What ``frame`` answers, and how.  The reply owns the frame's descriptors.

        Raises:
            RemoteProtocolError: this is not the answer to the oldest request.  Close the connection; the frame's
                descriptors are closed already.
        """
        try:
            sent = self._oldest(frame.header)
            reply = _read(sent, frame)
            self._settle(sent, reply)
            self._forget_oldest()
        except LocalProtocolError as error:
            frame.close()
            raise RemoteProtocolError(error.reason, section=error.section or "Header") from None
        return reply

    def _oldest(self, header: Header) -> Sent:
        expect(header.version == 1, f"version {header.version}", "version 1")
        expect(header.is_reply, f"request {header.request}", "a reply: bit 2 of the flags")
        expect(bool(self._sent), f"a reply to request {header.request}", "none, nothing having been asked")
        sent = self._sent[0]
        spec = sent.message.spec
        expect(header.request == spec.request, f"a reply to request {header.request}", f"one to {spec.name}")
        return sent

    def _forget_oldest(self) -> None:
        self._sent.popleft()
        while self._sent and not self._sent[0].awaited:
            self._sent.popleft()

    def _behind_oldest(self) -> Iterable[Sent]:
        return itertools.islice(self._sent, 1, None)

    def _settle(self, sent: Sent, reply: Reply) -> None:
        """Hook: the oldest request was answered."""


def _read(sent: Sent, frame: Frame) -> Reply:
    spec, fd_count = sent.message.spec, len(frame.fds)
    try:
        if sent.own_reply:
            value = parse_reply(sent.message, frame.payload)
            check_reply_fds(sent.message, value, fd_count)
            return Reply(sent.message, value, error_in(sent.message, value, fd_count), frame.fds)
        expect(not fd_count, f"{fd_count} file descriptors with an acknowledgement", "none")
        return Reply(sent.message, None, U64.parse(frame.payload).value)
    except (FormatError, LocalProtocolError) as error:
        reason = error.reason if isinstance(error, LocalProtocolError) else str(error)
        raise LocalProtocolError(f"reply to {spec.name}: {reason}", section=spec.section) from error
