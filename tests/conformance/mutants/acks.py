"""Faults of acknowledgements."""

from __future__ import annotations

from tests.conformance.mutants.registry import edit, mutant
from vhostuser.backend.connection import Backend
from vhostuser.protocol.responder import Handled, Responder

ASKED = "handled.header.needs_reply and self.state.reply_ack and not handled.own_reply"
GIVEN = "U64(error) if handled.ack else None"


@mutant("B-ACK-01")
def ack_missing() -> None:
    """Nothing is ever acknowledged."""
    edit(Responder, "ack", GIVEN, "None")


@mutant("B-ACK-05")
def ack_unasked() -> None:
    """With REPLY_ACK every message is acknowledged, asked for or not."""
    edit(Responder, "_note_answer", ASKED, "self.state.reply_ack and not handled.own_reply")


@mutant("B-ACK-01")
def ack_of_success_is_1() -> None:
    """Success is acknowledged with 1."""
    edit(Responder, "ack", GIVEN, "U64(1) if handled.ack else None")


@mutant("B-ACK-02")
def ack_is_always_0() -> None:
    """What is refused is acknowledged with 0 all the same."""
    edit(Handled, "refusal", "U64(ERROR)", "U64(0)")


@mutant("B-ACK-03")
def ack_of_enable_missing() -> None:
    """SET_VRING_ENABLE is not acknowledged."""
    edit(Responder, "ack", GIVEN, "U64(error) if handled.ack and handled.header.request != 18 else None")


@mutant("B-ACK-04")
def ack_after_own_reply() -> None:
    """A question with need_reply is answered, and acknowledged as well."""

    again = "await channel.send(type(answer)(type(answer.header)(11, answer.header.flags, 8), bytes(8)))"
    edit(
        Backend,
        "_serve",
        "await channel.send(answer)",
        "await channel.send(answer)\n"
        f"                if frame.header.needs_reply and frame.header.request == 11: {again}",
    )


@mutant("B-ACK-08")
def ack_of_what_could_not_be_done() -> None:
    """A memory table that cannot be mapped is acknowledged with 0."""
    edit(Backend, "_carry_out", "self.protocol.nack()", "self.protocol.ack()")


@mutant("B-ACK-09")
def ack_of_an_unknown_request() -> None:
    """A request that nobody knows is acknowledged with 0."""
    edit(Handled, "refusal", "U64(ERROR)", "U64(int(self.spec is not None))")


@mutant("B-ACK-07", "B-NOT-04")
def ack_before_the_call_is_used() -> None:
    """A new call descriptor is acknowledged, and the old one used as before."""
    edit(
        Backend,
        "_act",
        "await self.rings[message.index].set_call(_notifier(frame))",
        "if not self.rings[message.index].running: await self.rings[message.index].set_call(_notifier(frame))",
    )
