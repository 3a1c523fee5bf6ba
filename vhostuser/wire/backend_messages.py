"""Back-end message types: what a back-end sends on the backend channel, in the order of the document."""

from __future__ import annotations

from vhostuser.wire import frontend_messages  # noqa: F401 -- its rows come first in the catalogue
from vhostuser.wire.catalog import Answer, FdRule, Message, message
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.records import (
    U64,
    UUID,
    Iotlb,
    ShmemMap,
    VringArea,
)
from vhostuser.wire.requests import BackendRequest as Request
from vhostuser.wire.schema import structure, u32, wire

_CHANNEL = ProtocolFeature.BACKEND_REQ


@message(Request.IOTLB_MSG, needs=_CHANNEL, needs_virtio=VirtioFeature.ACCESS_PLATFORM)
@structure
class BackendIotlbMsg(Iotlb, Message):
    """A miss, or an access that failed.  Always in user addresses."""


@message(Request.CONFIG_CHANGE_MSG, needs=_CHANNEL | ProtocolFeature.CONFIG)
@structure
class BackendConfigChangeMsg(Message):
    """Configuration space changed; what the front-end remembers of it is stale."""


@message(
    Request.VRING_HOST_NOTIFIER_MSG,
    fds=FdRule.UNLESS_NOFD,
    needs=_CHANNEL | ProtocolFeature.HOST_NOTIFIER,
)
@structure
class BackendVringHostNotifierMsg(VringArea, Message):
    """Drop a queue's notifier page, and map the one that comes along.

    Bits 0 to 7 of the first word are the ring's index.  Bit 8 says that no descriptor comes.
    """

    @property
    def index(self) -> int:
        """Bits 0 to 7."""
        return self.index_and_flags & 0xFF

    @property
    def no_fd(self) -> bool:
        """Bit 8, as in SET_VRING_KICK."""
        return bool(self.index_and_flags & 0x100)


@message(Request.VRING_CALL, needs=_CHANNEL | ProtocolFeature.INBAND_NOTIFICATIONS)
@structure
class BackendVringCall(Message):
    """A used buffer notification without a descriptor."""

    index: int = wire(u32)
    num: int = wire(u32, default=0)


@message(Request.VRING_ERR, needs=_CHANNEL | ProtocolFeature.INBAND_NOTIFICATIONS)
@structure
class BackendVringErr(Message):
    """An error on a ring, without a descriptor."""

    index: int = wire(u32)
    num: int = wire(u32, default=0)


@message(Request.SHARED_OBJECT_ADD, needs=_CHANNEL | ProtocolFeature.SHARED_OBJECT)
@structure
class BackendSharedObjectAdd(Message):
    """The sender exports an object of this name."""

    uuid: bytes = wire(UUID)


@message(Request.SHARED_OBJECT_REMOVE, needs=_CHANNEL | ProtocolFeature.SHARED_OBJECT)
@structure
class BackendSharedObjectRemove(Message):
    """The sender no longer exports it."""

    uuid: bytes = wire(UUID)


@message(
    Request.SHARED_OBJECT_LOOKUP,
    answer=Answer.ALWAYS,
    reply=U64,
    reply_fds=FdRule.OPTIONAL,
    needs=_CHANNEL | ProtocolFeature.SHARED_OBJECT,
)
@structure
class BackendSharedObjectLookup(Message):
    """Find an object that another back-end exports.  The reply is 0 and brings a descriptor, or is not 0."""

    uuid: bytes = wire(UUID)


@message(Request.SHMEM_MAP, fds=FdRule.ONE, needs=_CHANNEL | ProtocolFeature.SHMEM)
@structure
class BackendShmemMap(ShmemMap, Message):
    """Map a range of the descriptor into a shared memory region."""


@message(Request.SHMEM_UNMAP, needs=_CHANNEL | ProtocolFeature.SHMEM)
@structure
class BackendShmemUnmap(ShmemMap, Message):
    """Take away exactly one mapping made before."""
