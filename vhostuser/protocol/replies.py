"""Replies: how they are read, what comes with them, and how they say no.

A request that is merely acknowledged is refused with a non-zero u64.  A request with a reply of its own is refused in
the words of that reply, and only some replies have such words; for the others, hanging up is all that is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vhostuser.protocol.rules import expect
from vhostuser.wire.backend_messages import BackendSharedObjectLookup
from vhostuser.wire.catalog import FdRule
from vhostuser.wire.frontend_messages import (
    CheckDeviceState,
    GetConfig,
    GetInflightFd,
    GetSharedObject,
    IotlbMsg,
    PostcopyEnd,
    SetDeviceStateFd,
    SetLogBase,
)
from vhostuser.wire.records import (
    DEVICE_STATE_ERROR,
    DEVICE_STATE_NO_FD,
    U64,
    Config,
    Empty,
    Inflight,
    Opaque,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

ERROR = 1
"""The error number where the protocol has room for one and gives it no meaning."""

_FDS = {FdRule.NONE: range(1), FdRule.ONE: range(1, 2), FdRule.OPTIONAL: range(2)}
_LOG_BASE_SIZES = (0, 8, 16)
"""Bytes.  DPDK, libvhost-user and rust-vmm, in this order; the document does not say."""


# --- refusals ----------------------------------------------------------------------------------------------------


def _value(reply: Structure, fd_count: int) -> int:
    return reply.value if isinstance(reply, U64) else 0


def _config(reply: Structure, fd_count: int) -> int:
    # An empty payload; rust-vmm's back-ends send the header of a configuration with a size of 0.
    return ERROR if isinstance(reply, Empty) or (isinstance(reply, Config) and reply.size == 0) else 0


def _inflight(reply: Structure, fd_count: int) -> int:
    return ERROR if isinstance(reply, Inflight) and reply.mmap_size == 0 else 0


def _shared_object(reply: Structure, fd_count: int) -> int:
    return 0 if fd_count else ERROR


def _device_state(reply: Structure, fd_count: int) -> int:
    return _value(reply, fd_count) & DEVICE_STATE_ERROR


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reply's way to say no.

    Attributes:
        reply: the payload that refuses; no descriptor goes with it.
        error: the error number in a payload that came with so many descriptors; 0 when it does not refuse.
    """

    reply: Structure
    error: Callable[[Structure, int], int]


REFUSALS: Mapping[type[Message], Refusal] = {
    IotlbMsg: Refusal(U64(ERROR), _value),
    GetConfig: Refusal(Empty(), _config),
    PostcopyEnd: Refusal(U64(ERROR), _value),
    GetInflightFd: Refusal(Inflight(0, 0, 0, 0), _inflight),
    GetSharedObject: Refusal(Opaque(b""), _shared_object),
    SetDeviceStateFd: Refusal(U64(ERROR | DEVICE_STATE_NO_FD), _device_state),
    CheckDeviceState: Refusal(U64(ERROR), _value),
    BackendSharedObjectLookup: Refusal(U64(ERROR), _value),
}
"""Requests whose own reply can refuse them."""


def error_in(to: Message, value: Structure, fd_count: int) -> int:
    """The error number in the reply ``value`` to ``to``; 0 when it does not refuse."""
    refusal = REFUSALS.get(type(to))
    return refusal.error(value, fd_count) if refusal else 0


# --- form --------------------------------------------------------------------------------------------------------


def parse_reply(to: Message, payload: bytes) -> Structure:
    """The reply to ``to`` that stands in ``payload``.

    Raises:
        LocalProtocolError: a size that no known peer replies with.
        FormatError: the payload is no such reply.
    """
    spec = to.spec
    if isinstance(to, SetLogBase):
        expect(len(payload) in _LOG_BASE_SIZES, f"{len(payload)} bytes", "0, 8 or 16")
    cls = spec.refusal if spec.refusal is not None and not payload else spec.reply
    return (cls or U64).parse(payload)


def check_reply_fds(to: Message, value: Structure, fd_count: int) -> None:
    """Check how many descriptors come with the reply ``value`` to ``to``.

    Raises:
        LocalProtocolError: too many or too few.
    """
    limits = _FDS[to.spec.reply_fds]
    if isinstance(to, SetDeviceStateFd) and isinstance(value, U64):
        without = value.value & (DEVICE_STATE_NO_FD | DEVICE_STATE_ERROR)
        limits = range(1) if without else range(1, 2)
    expect(fd_count in limits, f"{fd_count} file descriptors", counts(limits))


def counts(limits: range) -> str:
    """A range of counts in words."""
    low, high = limits.start, limits.stop - 1
    return f"exactly {low}" if low == high else f"{low} to {high}"
