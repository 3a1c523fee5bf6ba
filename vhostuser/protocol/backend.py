"""A back-end's side of the main channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.protocol.responder import Responder
from vhostuser.protocol.rings import MAX_RINGS
from vhostuser.protocol.state import ProtocolState, new_rings
from vhostuser.wire.catalog import NO_PROTOCOL_FEATURE
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.frontend_messages import (
    CheckDeviceState,
    CloseCryptoSession,
    CreateCryptoSession,
    GetFeatures,
    GetInflightFd,
    GetMaxMemSlots,
    GetProtocolFeatures,
    GetQueueNum,
    GetSharedObject,
    GetShmemConfig,
    GetStatus,
    GpuSetSocket,
    IotlbMsg,
    NetSetMtu,
    PostcopyAdvise,
    PostcopyEnd,
    PostcopyListen,
    SendRarp,
    SetDeviceStateFd,
    SetInflightFd,
    SetLogBase,
    SetLogFd,
    SetVringEndian,
)
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Role
from vhostuser.wire.split import MAX_QUEUE_SIZE

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.protocol.responder import Handled
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.features import ProtocolFeature

DEFAULT_MAX_MEM_SLOTS = 509
"""What libvhost-user and rust-vmm answer; QEMU asks for at most 512."""


class BackendProtocol(Responder):
    """Requests in, answers out, for a device with ``num_queues`` queues.

    Args:
        features: virtio features to offer.
        protocol_features: protocol features to offer; they are offered only if ``features`` has PROTOCOL_FEATURES.
        num_queues: rings that the front-end may set up, 1 to 256.
        max_queue_size: most entries in a ring.
        max_mem_slots: most memory regions that ADD_MEM_REG may make.

    Raises:
        ValueError: no front-end could address so many queues.
    """

    sender = Role.FRONTEND
    effects_come_later = frozenset(
        {
            SetLogBase,
            SetLogFd,
            SendRarp,
            NetSetMtu,
            IotlbMsg,
            SetVringEndian,
            CreateCryptoSession,
            CloseCryptoSession,
            PostcopyAdvise,
            PostcopyListen,
            PostcopyEnd,
            GetInflightFd,
            SetInflightFd,
            GpuSetSocket,
            GetSharedObject,
            SetDeviceStateFd,
            CheckDeviceState,
            GetShmemConfig,
        }
    )

    def __init__(
        self,
        *,
        features: int,
        protocol_features: ProtocolFeature,
        num_queues: int,
        max_queue_size: int = MAX_QUEUE_SIZE,
        max_mem_slots: int = DEFAULT_MAX_MEM_SLOTS,
    ) -> None:
        if not 1 <= num_queues <= MAX_RINGS:
            raise ValueError(f"{num_queues} queues; 1 to {MAX_RINGS} can be addressed")
        with_protocol_features = features & VirtioFeature.PROTOCOL_FEATURES
        super().__init__(
            ProtocolState(
                offered_features=features,
                offered_protocol_features=protocol_features if with_protocol_features else NO_PROTOCOL_FEATURE,
                rings=new_rings(num_queues),
                queue_num=num_queues,
                max_mem_slots=max_mem_slots,
                max_queue_size=max_queue_size,
            )
        )

    def answer(self, message: Message) -> Frame | None:
        """The reply to a question whose answer is known here; None when somebody has to act."""
        value = self._known(message)
        return None if value is None else self.reply(message, U64(value))

    def _known(self, message: Message) -> int | None:
        match message:
            case GetFeatures():
                return self.state.offered_features
            case GetProtocolFeatures():
                return self.state.offered_protocol_features
            case GetQueueNum():
                return self.state.queue_num
            case GetMaxMemSlots():
                return self.state.max_mem_slots
            case GetStatus():
                return self.state.status
            case _:
                return None

    def _undo(self, handled: Handled) -> None:
        self.state.restore(handled.before)
