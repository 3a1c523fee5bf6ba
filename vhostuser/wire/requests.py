"""Message header (vhost-user document, "Header") and the numbers of all requests."""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag

from vhostuser.wire.schema import Structure, flags, structure, u32, wire


class Role(Enum):
    """Which end of the connection: who owns the virtqueues, who consumes them."""

    FRONTEND = "front-end"
    BACKEND = "back-end"

    @property
    def peer(self) -> Role:
        """The other end."""
        return Role.BACKEND if self is Role.FRONTEND else Role.FRONTEND


class HeaderFlags(IntFlag):
    """The second word of a header; bits 0 and 1 are the version."""

    VERSION_1 = 0x1
    REPLY = 0x4
    NEED_REPLY = 0x8


VERSION_MASK = 0x3
_REPLY, _NEED_REPLY = HeaderFlags.REPLY.value, HeaderFlags.NEED_REPLY.value  # an operator of IntFlag costs 0.5 µs


@structure
class Header(Structure):
    """Twelve bytes in front of every message.  ``size`` counts the payload only."""

    request: int = wire(u32)
    flags: HeaderFlags = wire(flags(u32, HeaderFlags))
    size: int = wire(u32)

    @property
    def version(self) -> int:
        """Bits 0 and 1; only 1 is defined."""
        return int(self.flags) & VERSION_MASK

    @property
    def is_reply(self) -> bool:
        """Bit 2."""
        return bool(int(self.flags) & _REPLY)

    @property
    def needs_reply(self) -> bool:
        """Bit 3: the sender asks for an acknowledgement (REPLY_ACK)."""
        return bool(int(self.flags) & _NEED_REPLY)


HEADER_SIZE = Header.wire_size()


class FrontendRequest(IntEnum):
    """What a front-end asks of a back-end ("Front-end message types")."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43
    GET_SHMEM_CONFIG = 44


class BackendRequest(IntEnum):
    """What a back-end asks of a front-end, on the channel of SET_BACKEND_REQ_FD ("Back-end message types")."""

    IOTLB_MSG = 1
    CONFIG_CHANGE_MSG = 2
    VRING_HOST_NOTIFIER_MSG = 3
    VRING_CALL = 4
    VRING_ERR = 5
    SHARED_OBJECT_ADD = 6
    SHARED_OBJECT_REMOVE = 7
    SHARED_OBJECT_LOOKUP = 8
    SHMEM_MAP = 9
    SHMEM_UNMAP = 10


def request_of(sender: Role, number: int) -> FrontendRequest | BackendRequest | None:
    """The request that ``sender`` means by ``number``; None when the document has none."""
    table: type[FrontendRequest] | type[BackendRequest]
    table = FrontendRequest if sender is Role.FRONTEND else BackendRequest
    try:
        return table(number)
    except ValueError:
        return None
