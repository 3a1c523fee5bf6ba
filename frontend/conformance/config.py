"""Configuration space as cases read and write it, and what is writable in the devices that we know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.session import DEFAULT_PROTOCOL
from vhostuser.conformance import Failure, Skip
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetConfig, SetConfig
from vhostuser.wire.records import Config, ConfigFlags
from vhostuser.wire.virtio.blk import BlkFeature
from vhostuser.wire.virtio.ids import DeviceType

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Answer, Outcome, Session

HEADER_SIZE = 12
"""Bytes before the data: offset, size, flags."""


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a configuration space.

    Attributes:
        name: as VIRTIO has it.
        offset: bytes.
        size: bytes.
        features: virtio bits that it needs.
    """

    name: str
    offset: int
    size: int
    features: int = 0


WRITABLE = {DeviceType.BLOCK: Field("writeback", 32, 1, BlkFeature.CONFIG_WCE)}
"""By device type, a field that the driver may write, between 0 and 1."""
READ_ONLY = {
    DeviceType.BLOCK: Field("capacity", 0, 8),
    DeviceType.NET: Field("mac", 0, 6),
    DeviceType.FS: Field("tag", 0, 36),
    DeviceType.VSOCK: Field("guest_cid", 0, 8),
    DeviceType.SCSI: Field("num_queues", 0, 4),
}
"""By device type, a field that the driver may not write; with VERSION_1, mac is one."""


def whole(peer: Peer) -> int:
    """How many bytes the target's configuration space has.

    Raises:
        Skip: nobody knows.
    """
    if not peer.profile.config:
        raise Skip("the device type, and with it the size of its configuration space, is not known")
    return len(peer.profile.config)


def field_of(peer: Peer, table: dict[DeviceType, Field]) -> Field:
    """The target's entry in ``table``.

    Raises:
        Skip: it has none, or does not offer what that needs.
    """
    field = next((field for kind, field in table.items() if kind == peer.profile.device_type), None)
    if field is None or field.features & ~peer.profile.features or field.offset + field.size > len(peer.profile.config):
        raise Skip(f"no {'writable' if table is WRITABLE else 'read-only'} field of this device is known")
    return field


async def with_config(peer: Peer, virtio: int = 0) -> Session:
    """A new connection with CONFIG negotiated."""
    return await peer.negotiated(basic(peer) | virtio, DEFAULT_PROTOCOL | ProtocolFeature.RESET_DEVICE)


async def ask(session: Session, offset: int, size: int) -> Answer:
    """GET_CONFIG, and whatever answers it."""
    await session.send(GetConfig(offset, size, data=bytes(size)))
    answer = await session.receive(what=f"the reply to GET_CONFIG {offset}+{size}")
    answer.fds.close()
    if answer.request != GetConfig.spec.request:
        raise Failure(f"reply to GET_CONFIG: found request {answer.request}, expected {int(GetConfig.spec.request)}")
    return answer


async def read(session: Session, offset: int, size: int) -> bytes:
    """So many bytes of configuration space.

    Raises:
        Failure: others came, or it says that they are other ones.
    """
    answer = await ask(session, offset, size)
    if len(answer.payload) != HEADER_SIZE + size:
        raise Failure(
            f"size of the reply to GET_CONFIG {offset}+{size}: found {len(answer.payload)}, "
            f"expected {HEADER_SIZE} + {size} as in the request"
        )
    return answer.parse(Config).data


async def read_field(peer: Peer, session: Session, field: Field) -> bytes:
    """A field, out of the whole: there are back-ends that ignore offsets, and a case of its own about them."""
    return (await read(session, 0, whole(peer)))[field.offset : field.offset + field.size]


async def write(session: Session, field: Field, data: bytes, flags: int = 0) -> Outcome:
    """SET_CONFIG of one field, and what became of it."""
    message = SetConfig(field.offset, len(data), ConfigFlags(flags), data)
    await session.send(message, need_reply=session.acks)
    return await session.outcome(SetConfig.spec.request)
