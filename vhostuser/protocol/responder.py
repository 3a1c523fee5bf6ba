"""Requests in, answers out: what a back-end does on the main channel and a front-end on the other.

Requests are handled one at a time, in order, so a responder remembers exactly one: the one being handled.  It knows
three ways to say no, and which of them a request permits:

* an acknowledgement other than 0, if the sender asked for one (need_reply) and REPLY_ACK is negotiated;
* the request's own reply, if that can express a refusal (replies.py);
* to close the connection, for all others.  Silence would be worse: the sender would go on, believing itself obeyed.
  Only a front-end, asked on the backend channel, keeps silent: what comes there are hints, and the channel is worth
  more than any one of them.

This is the door where a peer's bytes come in, and so the place where a `LocalProtocolError` (a rule was broken)
becomes a `RemoteProtocolError` (the peer broke it), with a hint which of the three it is to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from vhostuser.errors import Hint, LocalProtocolError, RemoteProtocolError
from vhostuser.fd import NO_FDS, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.protocol.replies import ERROR, REFUSALS, check_reply_fds
from vhostuser.protocol.rules import expect
from vhostuser.wire.frontend_messages import SetProtocolFeatures
from vhostuser.wire.messages import CATALOG
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags, Role
from vhostuser.wire.schema import FormatError

if TYPE_CHECKING:
    from vhostuser.protocol.state import ProtocolState, Snapshot
    from vhostuser.wire.catalog import Message, MessageSpec
    from vhostuser.wire.schema import Structure


_REPLY_FLAGS = HeaderFlags.VERSION_1 | HeaderFlags.REPLY
"""Exactly these: QEMU takes no other."""


@dataclass(slots=True, eq=False)
class Handled:
    """The request being handled.

    Attributes:
        header: as it came.
        before: the state before it came, in case that it is refused.
        spec: None when the number is unknown.
        message: None when the payload could not be read.
        in_step: its header makes sense, so the next one will too.
        own_reply: it is to be answered with a payload of its own.
        ack: an acknowledgement is to be sent.
    """

    header: Header
    before: Snapshot
    spec: MessageSpec | None = None
    message: Message | None = None
    in_step: bool = False
    own_reply: bool = False
    ack: bool = False

    @property
    def name(self) -> str:
        """The request's name, or its number."""
        return self.spec.name if self.spec else f"request {self.header.request}"

    @property
    def refusal(self) -> Structure | None:
        """The payload that refuses it; None when only closing the connection does."""
        if self.own_reply:
            known = REFUSALS.get(self.spec.message) if self.spec else None
            return known.reply if known else None
        return U64(ERROR) if self.ack else None


class Responder:
    """The end of a channel that is asked.

    Args:
        state: what is known of the connection; updated as requests come in.
    """

    sender: ClassVar[Role]
    effects_come_later: ClassVar[frozenset[type[Message]]]
    """Messages that are understood and checked, and cannot be carried out yet."""
    may_keep_silent: ClassVar[bool] = False
    """Whether a request that no answer can refuse may be passed over."""

    def __init__(self, state: ProtocolState) -> None:
        self.state = state
        self._handled: Handled | None = None

    def receive(self, frame: Frame) -> Message:
        """The request in ``frame``, found legal, and noted in `state`.

        The caller takes its descriptors out of ``frame.fds`` and closes the rest.  The request before it must have
        been answered.

        Raises:
            RemoteProtocolError: the peer broke a rule.  With `Hint.NACK`, send what `nack` returns (if anything) and go
                on; with `Hint.CLOSE`, close the connection.  The frame's descriptors are closed already.
            LocalProtocolError: the request before this one still waits for its answer.
        """
        self._check_idle()
        handled = self._handled = Handled(frame.header, self.state.snapshot())
        try:
            handled.message = message = self._read(handled, frame)
            self.state.observe(self.sender, message, len(frame.fds), received=True)
        except LocalProtocolError as error:
            frame.close()
            raise self._blame(handled, error) from None
        self._note_answer(handled, message.spec)
        return message

    def reply(self, to: Message, value: Structure, fds: Fds = NO_FDS) -> Frame:
        """The frame that answers ``to`` with ``value``; it owns ``fds``.

        Raises:
            LocalProtocolError: ``to`` is not the request being handled, or has no such reply.
        """
        handled, name, expected = self._handled, to.spec.name, to.spec.reply
        if handled is None or handled.message is not to:
            raise LocalProtocolError(f"found a reply to {name}, expected one to the request being handled")
        if expected is None or not handled.own_reply:
            raise LocalProtocolError(f"found a reply to {name}, expected an acknowledgement, if any")
        expect(isinstance(value, expected), f"{type(value).__name__} as reply to {name}", expected.__name__)
        check_reply_fds(to, value, len(fds))
        self.state.observe_reply(to, value)
        self._handled = None
        return _frame(handled, value, fds)

    def ack(self, *, error: int = 0) -> Frame | None:
        """The acknowledgement of the request being handled; None when nobody asked for it.

        Args:
            error: 0 for success.  Anything else refuses, as `nack` does, with this number.

        Raises:
            LocalProtocolError: the request wants a reply of its own.
        """
        handled = self._handled
        if handled is None:
            return None
        expect(not handled.own_reply, f"an acknowledgement of {handled.name}", "a reply of its own")
        if error:
            self._undo(handled)
        return self._answer(handled, U64(error) if handled.ack else None)

    def nack(self) -> Frame | None:
        """The answer that refuses the request being handled; None when there is none, and closing is the only way.

        The request is taken not to have happened: `state` is as it was before it.
        """
        handled = self._handled
        if handled is None:
            return None
        self._undo(handled)
        return self._answer(handled, handled.refusal)

    def refusal(self, message: Message) -> Frame | None:
        """The answer to a message whose effects come later; None for all others.

        Raises:
            RemoteProtocolError: it has to be refused, and no answer can do that.  Do as its hint says.
        """
        spec = message.spec
        if spec.message not in self.effects_come_later:
            return None
        answer = self.nack()
        if answer is None:
            hint = Hint.NACK if self.may_keep_silent else Hint.CLOSE
            reason = f"{spec.name}: not implemented, and no answer can say so"
            raise RemoteProtocolError(reason, section=spec.section, hint=hint)
        return answer

    # --- one request ---

    def _check_idle(self) -> None:
        handled = self._handled
        if handled is not None:
            owed = handled.own_reply or handled.ack
            expect(not owed, f"{handled.name} unanswered", "its answer before the next request is read")

    def _read(self, handled: Handled, frame: Frame) -> Message:
        header = frame.header
        expect(header.version == 1, f"{handled.name} of version {header.version}", "version 1")
        expect(not header.is_reply, f"{handled.name} marked as a reply", "a request: bit 2 of the flags clear")
        handled.in_step = True
        handled.ack = header.needs_reply and self.state.reply_ack
        handled.spec = spec = CATALOG.get((self.sender, header.request))
        if spec is None:
            raise LocalProtocolError(f"found request {header.request}, expected one that a {self.sender.value} sends")
        self._note_answer(handled, spec)
        try:
            return spec.payload(self.state.protocol_features).parse(frame.payload)
        except FormatError as error:
            raise LocalProtocolError(f"{spec.name}: {error}", section=spec.section) from error

    def _note_answer(self, handled: Handled, spec: MessageSpec) -> None:
        """Note which answer is owed, by the features in force now: SET_PROTOCOL_FEATURES itself may change them."""
        handled.own_reply = spec.replies(self.state.protocol_features)
        handled.ack = handled.header.needs_reply and self.state.reply_ack and not handled.own_reply

    def _blame(self, handled: Handled, error: LocalProtocolError) -> RemoteProtocolError:
        if handled.spec is not None and handled.spec.message is SetProtocolFeatures:
            # The two ends disagree about how to read what follows, and whether there are acknowledgements at all.
            handled.ack = False
        stays = handled.refusal is not None or (handled.in_step and self.may_keep_silent)
        hint = Hint.NACK if stays else Hint.CLOSE
        return RemoteProtocolError(error.reason, section=error.section or "Header", hint=hint)

    def _answer(self, handled: Handled, value: Structure | None) -> Frame | None:
        self._handled = None
        return None if value is None else _frame(handled, value)

    def _undo(self, handled: Handled) -> None:
        """Hook: ``handled`` is refused after all."""


def _frame(handled: Handled, value: Structure, fds: Fds = NO_FDS) -> Frame:
    payload = value.build()
    return Frame(Header(handled.header.request, _REPLY_FLAGS, len(payload)), payload, fds)
