"""Device state on its way: SET_DEVICE_STATE_FD, the pipe, and CHECK_DEVICE_STATE."""

from __future__ import annotations

import fcntl
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import trio

from frontend.conformance.bring_up import basic
from frontend.conformance.session import DEFAULT_PROTOCOL
from vhostuser.conformance import Failure, Wedged
from vhostuser.fd import Fd, Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import CheckDeviceState, SetDeviceStateFd
from vhostuser.wire.records import DEVICE_STATE_ERROR, DEVICE_STATE_NO_FD, U64, TransferDirection, TransferPhase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

PROTOCOL = DEFAULT_PROTOCOL | ProtocolFeature.DEVICE_STATE
SAVE, LOAD = TransferDirection.SAVE, TransferDirection.LOAD
MOST = 64 << 20
"""Bytes of state that are taken."""
PIECE = 1 << 16


@dataclass(eq=False)
class Begun:
    """What SET_DEVICE_STATE_FD was answered.

    Attributes:
        value: the u64.
        fds: descriptors that came with it.
        stream: our end of what the state goes through: of the pipe that we made, or what the back-end sent instead.
    """

    value: int
    fds: int
    stream: trio.lowlevel.FdStream

    @property
    def error(self) -> int:
        """Bits 0 to 7."""
        return self.value & DEVICE_STATE_ERROR

    @property
    def no_fd(self) -> bool:
        """Bit 8: there is no descriptor with the reply."""
        return bool(self.value & DEVICE_STATE_NO_FD)

    def accepted(self) -> Self:
        """Itself, if the transfer has begun.

        Raises:
            Failure: it was refused.
        """
        if self.error:
            raise Failure(f"SET_DEVICE_STATE_FD: found {self.value:#x}, expected 0 in the low byte")
        return self

    async def read(self, *, within: float) -> bytes:
        """All of the state, up to its end.

        Raises:
            Wedged: the end does not come in time.
        """
        data = bytearray()
        with trio.move_on_after(within):
            while len(data) <= MOST:
                piece = await self.stream.receive_some(PIECE)
                if not piece:
                    return bytes(data)
                data += piece
            raise Failure(f"device state: more than {MOST} bytes, and no end")
        raise Wedged(f"device state: {len(data)} bytes, and no end of file within {within:g} s")

    async def write(self, data: bytes, *, within: float) -> bool:
        """Write ``data``, and hang up; False when the back-end did not want all of it.

        Raises:
            Wedged: it neither reads nor closes.
        """
        with trio.move_on_after(within) as scope:
            try:
                await self.stream.send_all(data)
            except trio.BrokenResourceError:
                return False
            finally:
                await trio.aclose_forcefully(self.stream)
        if scope.cancelled_caught:
            raise Wedged(f"device state: the back-end did not read {len(data)} bytes within {within:g} s")
        return True


def state_pipe(*, full: bool = False, smallest: bool = False) -> tuple[Fd, Fd]:
    """A read end and a write end.

    Args:
        full: there is something in it already, so that nobody can write until it is read.
        smallest: with as little room as the system allows.
    """
    read_end, write_end = (Fd(number) for number in os.pipe())
    if smallest and hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(write_end.fileno(), fcntl.F_SETPIPE_SZ, 4096)
    if full:
        os.set_blocking(write_end.fileno(), False)
        try:
            while True:
                os.write(write_end.fileno(), bytes(4096))
        except BlockingIOError:
            os.set_blocking(write_end.fileno(), True)
    return read_end, write_end


@asynccontextmanager
async def begin(
    session: Session, direction: int = SAVE, phase: int = TransferPhase.STOPPED, *, pipe: tuple[Fd, Fd] | None = None
) -> AsyncIterator[Begun]:
    """SET_DEVICE_STATE_FD with a pipe, by default a new one, and what it is answered; our end closes with the block."""
    read_end, write_end = pipe or state_pipe()
    ours, theirs = (write_end, read_end) if direction == LOAD else (read_end, write_end)
    with ours:
        await session.send(SetDeviceStateFd(direction, phase), Fds.of(theirs))
        answer = await session.receive(what="the reply to SET_DEVICE_STATE_FD")
        with answer.fds:
            if answer.request != SetDeviceStateFd.spec.request:
                raise Failure(f"reply to SET_DEVICE_STATE_FD: found one to request {answer.request}")
            value, count = answer.parse(U64).value, len(answer.fds)
            stream = trio.lowlevel.FdStream((answer.fds[0].move() if count else ours).take())
    try:
        yield Begun(value, count, stream)
    finally:
        await trio.aclose_forcefully(stream)


async def check(session: Session) -> int:
    """CHECK_DEVICE_STATE: 0 when the back-end has moved its state without error."""
    return (await session.ask(CheckDeviceState(), U64)).value


async def with_transfer(peer: Peer) -> Session:
    """A new connection that may move device state, with no ring started."""
    return await peer.negotiated(basic(peer), PROTOCOL)


async def elsewhere(peer: Peer) -> Session:
    """A connection as from the destination's front-end: to a new process, where we may start one."""
    peer.hang_up()
    if peer.target.ours:
        await peer.target.kill()
    return await with_transfer(peer)


async def loaded(session: Session, data: bytes) -> int:
    """Load ``data``; what CHECK_DEVICE_STATE says then."""
    async with begin(session, LOAD) as begun:
        await begun.accepted().write(data, within=session.patience)
    return await check(session)


async def read_state(session: Session) -> bytes:
    """The state of a suspended device; nobody has asked yet whether it is good.

    Raises:
        Failure: the back-end does not begin.
    """
    async with begin(session) as begun:
        return await begun.accepted().read(within=session.patience)


async def saved(session: Session) -> bytes:
    """The state of a suspended device, saved as it should be.

    Raises:
        Failure: the back-end says that it was not.
    """
    data = await read_state(session)
    if found := await check(session):
        raise Failure(f"CHECK_DEVICE_STATE after the state was saved: found {found:#x}, expected 0")
    return data
