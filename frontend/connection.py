"""`Frontend`: what a VMM says to a back-end, a verb per message.

One task reads the socket (`run`); a verb sends its message and waits until that task has its answer.  Verbs may be
called from several tasks: answers come in the order of the questions.  A verb that is cancelled leaves its question
behind, and the answer to it is dropped when it comes.

When the back-end goes away, every verb that waits, and every later one, raises `BackendGone`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

import trio

from vhostuser.errors import RemoteProtocolError, VhostUserError
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.frontend import FrontendProtocol, RequestRefused
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    GetConfig,
    GetFeatures,
    GetMaxMemSlots,
    GetProtocolFeatures,
    GetQueueNum,
    GetStatus,
    GetVringBase,
    RemMemReg,
    ResetDevice,
    SetBackendReqFd,
    SetConfig,
    SetFeatures,
    SetMemTable,
    SetOwner,
    SetProtocolFeatures,
    SetStatus,
    SetVringAddr,
    SetVringBase,
    SetVringCall,
    SetVringEnable,
    SetVringErr,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.records import U64, Config, ConfigFlags, VringAddrFlags, VringState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vhostuser.protocol.frontend import Reply
    from vhostuser.transport.channel import Channel
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.frontend_messages import VringFd
    from vhostuser.wire.records import MemoryRegion
    from vhostuser.wire.schema import Structure

__all__ = ["BackendGone", "Frontend", "RequestRefused"]

SEND_TIMEOUT = 5.0
"""Seconds a back-end may leave a message unread before it counts as gone."""

S = TypeVar("S", bound="Structure")


class BackendGone(VhostUserError):
    """The back-end closed the connection, or broke the protocol so that it had to be closed."""


class _Question:
    """Somebody waiting for an answer, or no longer."""

    __slots__ = ("abandoned", "answered", "reply")

    def __init__(self) -> None:
        self.answered = trio.Event()
        self.reply: Reply | None = None
        self.abandoned = False

    def answer(self, reply: Reply | None) -> None:
        if self.abandoned and reply is not None:
            reply.fds.close()
        else:
            self.reply = reply
        self.answered.set()


class Frontend(trio.abc.AsyncResource):
    """The front-end's end of a connection; start `run` in a nursery before calling a verb.

    Args:
        channel: owned from now on.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.protocol = FrontendProtocol()
        self._turn = trio.Lock()
        self._questions: deque[_Question] = deque()
        self._gone: BackendGone | None = None

    # --- the connection ---

    async def run(self) -> None:
        """Read answers until the back-end hangs up.

        Raises:
            BackendGone: it did.
        """
        reason = "nobody reads this connection any more"
        try:
            while True:
                reply = self.protocol.receive(await self.channel.receive())
                self._questions.popleft().answer(reply)
        except trio.EndOfChannel:
            reason = "the back-end closed the connection"
        except (trio.BrokenResourceError, RemoteProtocolError) as error:
            reason = f"the connection is lost: {error}"
        finally:
            gone = self._lose(reason)
            while self._questions:
                self._questions.popleft().answer(None)
        raise gone

    def _lose(self, reason: str) -> BackendGone:
        """The connection is over; the first reason given is the one that counts."""
        if self._gone is None:
            self._gone = BackendGone(reason)
        return self._gone

    async def aclose(self) -> None:
        """Close the connection."""
        await self.channel.aclose()

    async def call(self, message: Message, fds: Fds = NO_FDS, *, ack: bool | None = None) -> tuple[Structure, Fds]:
        """Send ``message`` and wait for its answer, if it has one: the one door everything goes through.

        Args:
            message: what to send.
            fds: go with it; owned and closed here.
            ack: whether to ask for an acknowledgement; by default wherever it is possible.

        Returns:
            The reply's payload and the descriptors that came with it, owned by the caller; an acknowledgement, or no
            answer at all, is ``(U64(0), NO_FDS)``.

        Raises:
            RequestRefused: the back-end answered that it will not.
            LocalProtocolError: the protocol forbids this message now; nothing was sent.
            BackendGone: there is nobody to ask.
        """
        with fds:
            question = await self._ask(message, fds, ack=ack)
        if question is None:
            return U64(0), NO_FDS
        try:
            await question.answered.wait()
        except trio.Cancelled:
            question.abandoned = True
            raise
        if question.reply is None:
            raise self._lose("the connection was closed")
        return _value(question.reply)

    async def _ask(self, message: Message, fds: Fds, *, ack: bool | None) -> _Question | None:
        async with self._turn:
            if self._gone is not None:
                raise self._gone
            before = len(self.protocol.outstanding)
            frame = self.protocol.request(message, fds, ack=ack)
            question = _Question() if len(self.protocol.outstanding) > before else None
            if question is not None:
                self._questions.append(question)
            # The protocol counts this message as sent, so it has to be sent or the connection is over.
            with trio.move_on_after(SEND_TIMEOUT, shield=True) as scope:
                try:
                    await self.channel.send(frame)
                except trio.BrokenResourceError as error:
                    raise self._lose(f"the connection is lost: {error}") from error
            if scope.cancelled_caught:
                raise self._lose(f"the back-end read nothing for {SEND_TIMEOUT} seconds")
        return question

    async def _get(self, message: Message, kind: type[S]) -> S:
        value, fds = await self.call(message)
        fds.close()
        if not isinstance(value, kind):
            raise BackendGone(f"{message.spec.name} was answered with {value!r}")
        return value

    # --- features ---

    async def get_features(self) -> int:
        """GET_FEATURES: all bits the back-end offers."""
        return (await self._get(GetFeatures(), U64)).value

    async def set_features(self, features: int) -> None:
        """SET_FEATURES."""
        await self.call(SetFeatures(features))

    async def get_protocol_features(self) -> ProtocolFeature:
        """GET_PROTOCOL_FEATURES."""
        return ProtocolFeature((await self._get(GetProtocolFeatures(), U64)).value)

    async def set_protocol_features(self, features: ProtocolFeature) -> None:
        """SET_PROTOCOL_FEATURES."""
        await self.call(SetProtocolFeatures(features))

    async def set_owner(self) -> None:
        """SET_OWNER."""
        await self.call(SetOwner())

    async def get_queue_num(self) -> int:
        """GET_QUEUE_NUM: how many queues there are."""
        return (await self._get(GetQueueNum(), U64)).value

    async def get_status(self) -> int:
        """GET_STATUS: the virtio device status byte."""
        return (await self._get(GetStatus(), U64)).value

    async def set_status(self, status: int) -> None:
        """SET_STATUS."""
        await self.call(SetStatus(status))

    async def reset_device(self) -> None:
        """RESET_DEVICE."""
        await self.call(ResetDevice())

    async def set_backend_req_fd(self, fd: Fd) -> None:
        """SET_BACKEND_REQ_FD; ``fd`` is owned and closed here."""
        await self.call(SetBackendReqFd(), Fds.of(fd))

    # --- memory ---

    async def get_max_mem_slots(self) -> int:
        """GET_MAX_MEM_SLOTS: how many regions fit."""
        return (await self._get(GetMaxMemSlots(), U64)).value

    async def set_mem_table(self, regions: Sequence[MemoryRegion], fds: Fds) -> None:
        """SET_MEM_TABLE; one descriptor per region, owned and closed here."""
        await self.call(SetMemTable(tuple(regions)), fds)

    async def add_mem_reg(self, region: MemoryRegion, fd: Fd) -> None:
        """ADD_MEM_REG; ``fd`` is owned and closed here."""
        await self.call(AddMemReg(region), Fds.of(fd))

    async def rem_mem_reg(self, region: MemoryRegion) -> None:
        """REM_MEM_REG."""
        await self.call(RemMemReg(region))

    # --- configuration space ---

    async def get_config(self, offset: int, size: int) -> bytes:
        """GET_CONFIG: ``size`` bytes of configuration space."""
        return (await self._get(GetConfig(offset, size, data=bytes(size)), Config)).data

    async def set_config(self, offset: int, data: bytes, flags: ConfigFlags | None = None) -> None:
        """SET_CONFIG."""
        await self.call(SetConfig(offset, len(data), flags or ConfigFlags(0), data))

    # --- rings ---

    async def set_vring_num(self, index: int, queue_size: int) -> None:
        """SET_VRING_NUM."""
        await self.call(SetVringNum(index, queue_size))

    async def set_vring_addr(self, index: int, *, descriptor: int, available: int, used: int) -> None:
        """SET_VRING_ADDR; user addresses of the three parts."""
        await self.call(SetVringAddr(index, VringAddrFlags(0), descriptor, used, available, 0))

    async def set_vring_base(self, index: int, base: int) -> None:
        """SET_VRING_BASE."""
        await self.call(SetVringBase(index, base))

    async def get_vring_base(self, index: int) -> int:
        """GET_VRING_BASE: stop the ring; where it stopped."""
        return (await self._get(GetVringBase(index), VringState)).num

    async def set_vring_kick(self, index: int, fd: Fd | None) -> None:
        """SET_VRING_KICK: start the ring; ``fd`` is owned and closed here, None asks the back-end to poll."""
        await self._set_vring_fd(SetVringKick, index, fd)

    async def set_vring_call(self, index: int, fd: Fd | None) -> None:
        """SET_VRING_CALL; ``fd`` is owned and closed here, None says that the front-end polls."""
        await self._set_vring_fd(SetVringCall, index, fd)

    async def set_vring_err(self, index: int, fd: Fd | None) -> None:
        """SET_VRING_ERR; ``fd`` is owned and closed here."""
        await self._set_vring_fd(SetVringErr, index, fd)

    async def set_vring_enable(self, index: int, enable: bool) -> None:
        """SET_VRING_ENABLE."""
        await self.call(SetVringEnable(index, int(enable)))

    async def _set_vring_fd(self, kind: type[VringFd], index: int, fd: Fd | None) -> None:
        await self.call(kind.of(index, no_fd=fd is None), NO_FDS if fd is None else Fds.of(fd))


def _value(reply: Reply) -> tuple[Structure, Fds]:
    reply.check()
    return reply.value if reply.value is not None else U64(0), reply.fds
