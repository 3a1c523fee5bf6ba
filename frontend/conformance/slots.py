"""Memory that comes and goes region by region: ADD_MEM_REG and REM_MEM_REG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.session import DEFAULT_PROTOCOL
from vhostuser.fd import Fds
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import AddMemReg, GetMaxMemSlots, RemMemReg
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

SLOTS = DEFAULT_PROTOCOL | ProtocolFeature.CONFIGURE_MEM_SLOTS
"""Protocol features to negotiate."""


async def with_slots(peer: Peer) -> Session:
    """A new connection that may use slots."""
    return await peer.negotiated(basic(peer), SLOTS)


async def max_slots(session: Session) -> int:
    """GET_MAX_MEM_SLOTS."""
    return (await session.ask(GetMaxMemSlots(), U64)).value


async def add(session: Session, memory: SharedMemory, *indices: int) -> None:
    """ADD_MEM_REG for these regions, by default for all; each has to be accepted."""
    for index in indices or range(len(memory.regions)):
        await session.tell(AddMemReg(memory.regions[index]), Fds.of(memory.fd(index)))


async def remove(session: Session, memory: SharedMemory, index: int) -> None:
    """REM_MEM_REG for a region, which has to be accepted."""
    await session.tell(RemMemReg(memory.regions[index]))
