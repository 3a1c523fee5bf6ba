"""Front-end message types: what a front-end sends, one class per request, in the order of the document."""

from __future__ import annotations

from typing import Self

from construct import Bytes

from vhostuser.wire.catalog import Answer, FdRule, Gate, Message, message
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.records import (
    U64,
    UUID,
    Config,
    ConfigFlags,
    CryptoSession,
    Empty,
    Inflight,
    Iotlb,
    Log,
    MemoryTable,
    Opaque,
    ShmemConfig,
    SingleRegion,
    TransferDirection,
    TransferPhase,
    VringAddrFlags,
    VringState,
    XenMemoryTable,
    XenSingleRegion,
)
from vhostuser.wire.requests import FrontendRequest as Request
from vhostuser.wire.schema import (
    code,
    flags,
    pad,
    rest,
    structure,
    u32,
    u64,
    wire,
)


@message(Request.GET_FEATURES, answer=Answer.ALWAYS, reply=U64)
@structure
class GetFeatures(Message):
    """Which virtio features does the back-end offer?"""


@message(Request.SET_FEATURES)
@structure
class SetFeatures(Message):
    """The virtio features in force.  Without bit 30, all rings are enabled at once."""

    features: int = wire(u64)


@message(
    Request.GET_PROTOCOL_FEATURES,
    answer=Answer.ALWAYS,
    reply=U64,
    needs_virtio=VirtioFeature.PROTOCOL_FEATURES,
    gate=Gate.OFFERED,
)
@structure
class GetProtocolFeatures(Message):
    """Which protocol features does the back-end offer?  Legal before SET_FEATURES."""


@message(
    Request.SET_PROTOCOL_FEATURES,
    needs_virtio=VirtioFeature.PROTOCOL_FEATURES,
    gate=Gate.OFFERED,
)
@structure
class SetProtocolFeatures(Message):
    """The protocol features in force.  Legal before SET_FEATURES."""

    features: ProtocolFeature = wire(flags(u64, ProtocolFeature))


@message(Request.SET_OWNER)
@structure
class SetOwner(Message):
    """The sender owns this session from now on."""


@message(Request.RESET_OWNER)
@structure
class ResetOwner(Message):
    """Deprecated.  A back-end ignores it or disables all rings."""


@structure
class XenSetMemTable(XenMemoryTable, Message):
    """SET_MEM_TABLE once XEN_MMAP is negotiated."""


@message(
    Request.SET_MEM_TABLE,
    answer=Answer.IN_POSTCOPY,
    reply=MemoryTable,
    fds=FdRule.PER_REGION,
    variants={ProtocolFeature.XEN_MMAP: XenSetMemTable},
)
@structure
class SetMemTable(MemoryTable, Message):
    """Replace the whole memory table.

    One descriptor per region, in the regions' order.  The document draws eight places; what stands behind the regions
    is kept as it came.
    """


@message(
    Request.SET_LOG_BASE,
    answer=Answer.WITH_FEATURE,
    reply=Opaque,
    reply_feature=ProtocolFeature.LOG_SHMFD,
    fds=FdRule.WITH_REPLY,
)
@structure
class SetLogBase(Log, Message):
    """Where the dirty log lies.  Peers reply with 0, 8 or 16 bytes; the document does not say with what."""


@message(Request.SET_LOG_FD, fds=FdRule.ONE)
@structure
class SetLogFd(Message):
    """What the back-end may signal when it has written to the log."""


@message(Request.SET_VRING_NUM)
@structure
class SetVringNum(VringState, Message):
    """The size of a ring, in entries."""


@message(Request.SET_VRING_ADDR)
@structure
class SetVringAddr(Message):
    """Where the parts of a ring lie.  The used ring comes before the available ring."""

    index: int = wire(u32)
    flags: VringAddrFlags = wire(flags(u32, VringAddrFlags))
    descriptor: int = wire(u64)
    used: int = wire(u64)
    available: int = wire(u64)
    log: int = wire(u64)


@message(Request.SET_VRING_BASE)
@structure
class SetVringBase(Message):
    """Where a ring goes on.

    Split ring: bits 0 to 15 of the base are the next available index, free-running; the used index is read from the
    ring.  Packed ring: bits 0 to 14 next available entry, 15 its wrap counter, 16 to 30 next used entry, 31 its wrap
    counter.
    """

    index: int = wire(u32)
    base: int = wire(u32)


@message(Request.GET_VRING_BASE, answer=Answer.ALWAYS, reply=VringState)
@structure
class GetVringBase(Message):
    """Stop the ring; the reply says where it stopped, as SET_VRING_BASE would say it."""

    index: int = wire(u32)
    num: int = wire(u32, default=0)


@structure
class VringFd(Message):
    """What SET_VRING_KICK, _CALL and _ERR share: a ring index in 8 bits, and whether a descriptor comes along."""

    value: int = wire(u64)

    NO_FD = 0x100
    INDEX = 0xFF

    @classmethod
    def of(cls, index: int, *, no_fd: bool = False) -> Self:
        """The message for ring ``index`` (0 to 255); ``no_fd`` says that nothing is attached and one polls."""
        if not 0 <= index <= cls.INDEX:
            raise ValueError(f"ring index {index} does not fit the 8 bits of {cls.__name__}")
        return cls(index | (cls.NO_FD if no_fd else 0))

    @property
    def index(self) -> int:
        """Bits 0 to 7."""
        return self.value & self.INDEX

    @property
    def no_fd(self) -> bool:
        """Bit 8."""
        return bool(self.value & self.NO_FD)


@message(Request.SET_VRING_KICK, fds=FdRule.UNLESS_NOFD)
@structure
class SetVringKick(VringFd):
    """What the driver signals when buffers are available.  Starts the ring.

    Bits 0 to 7 of the value are the ring's index.  Bit 8 says that no descriptor comes: the back-end polls.
    """


@message(Request.SET_VRING_CALL, fds=FdRule.UNLESS_NOFD)
@structure
class SetVringCall(VringFd):
    """What the device signals when buffers are used.

    Bits 0 to 7 of the value are the ring's index.  Bit 8 says that no descriptor comes: the front-end polls.
    """


@message(Request.SET_VRING_ERR, fds=FdRule.UNLESS_NOFD)
@structure
class SetVringErr(VringFd):
    """What the device signals when a ring is broken.

    Bits 0 to 7 of the value are the ring's index.  Bit 8 says that no descriptor comes.
    """


@message(
    Request.GET_QUEUE_NUM,
    answer=Answer.ALWAYS,
    reply=U64,
    needs=ProtocolFeature.MQ,
    gate=Gate.OFFERED,
)
@structure
class GetQueueNum(Message):
    """How many queues does the back-end support?"""


@message(Request.SET_VRING_ENABLE, needs_virtio=VirtioFeature.PROTOCOL_FEATURES)
@structure
class SetVringEnable(VringState, Message):
    """Enable (1) or disable (0) a ring."""


@message(Request.SEND_RARP, needs=ProtocolFeature.RARP)
@structure
class SendRarp(Message):
    """Announce a network interface after a migration."""

    mac: bytes = wire(Bytes(6))
    _: None = pad(2)


@message(Request.NET_SET_MTU, needs=ProtocolFeature.MTU)
@structure
class NetSetMtu(Message):
    """The MTU that the guest is told.  Needs VIRTIO_NET_F_MTU too, a bit that means this in network devices only."""

    mtu: int = wire(u64)


@message(Request.SET_BACKEND_REQ_FD, fds=FdRule.ONE, needs=ProtocolFeature.BACKEND_REQ)
@structure
class SetBackendReqFd(Message):
    """The socket on which the back-end may send requests of its own."""


@message(Request.IOTLB_MSG, answer=Answer.ALWAYS, reply=U64, needs_virtio=VirtioFeature.ACCESS_PLATFORM)
@structure
class IotlbMsg(Iotlb, Message):
    """Update or invalidate an IOTLB entry."""


@message(Request.SET_VRING_ENDIAN, needs=ProtocolFeature.CROSS_ENDIAN)
@structure
class SetVringEndian(VringState, Message):
    """Byte order of a legacy device's ring: 0 little, 1 big."""


@message(Request.GET_CONFIG, answer=Answer.ALWAYS, reply=Config, refusal=Empty, needs=ProtocolFeature.CONFIG)
@structure
class GetConfig(Message):
    """Read configuration space.  The request carries as many bytes as it asks for; a reply of none is an error."""

    offset: int = wire(u32)
    size: int = wire(u32)
    flags: ConfigFlags = wire(flags(u32, ConfigFlags), default=ConfigFlags(0))
    data: bytes = rest(default=b"")


@message(Request.SET_CONFIG, needs=ProtocolFeature.CONFIG)
@structure
class SetConfig(Config, Message):
    """Write configuration space."""


@message(
    Request.CREATE_CRYPTO_SESSION,
    answer=Answer.ALWAYS,
    reply=CryptoSession,
    needs=ProtocolFeature.CRYPTO_SESSION,
)
@structure
class CreateCryptoSession(Message):
    """Make a crypto session.  The payload depends on the sender's ABI, so it is kept as it came."""

    raw: bytes = rest(default=b"")


@message(Request.CLOSE_CRYPTO_SESSION, needs=ProtocolFeature.CRYPTO_SESSION)
@structure
class CloseCryptoSession(Message):
    """End a crypto session."""

    session_id: int = wire(u64)


@message(
    Request.POSTCOPY_ADVISE,
    answer=Answer.ALWAYS,
    reply=Empty,
    reply_fds=FdRule.ONE,
    needs=ProtocolFeature.PAGEFAULT,
)
@structure
class PostcopyAdvise(Message):
    """Open a userfaultfd and reply with it; still precopy."""


@message(Request.POSTCOPY_LISTEN, needs=ProtocolFeature.PAGEFAULT)
@structure
class PostcopyListen(Message):
    """From now on faults may happen."""


@message(Request.POSTCOPY_END, answer=Answer.ALWAYS, reply=U64, needs=ProtocolFeature.PAGEFAULT)
@structure
class PostcopyEnd(Message):
    """Close the userfaultfd."""


@message(
    Request.GET_INFLIGHT_FD,
    answer=Answer.ALWAYS,
    reply=Inflight,
    reply_fds=FdRule.OPTIONAL,
    needs=ProtocolFeature.INFLIGHT_SHMFD,
)
@structure
class GetInflightFd(Inflight, Message):
    """Make an area in which requests in flight are recorded; a size of 0 in the reply means there is none."""


@message(Request.SET_INFLIGHT_FD, fds=FdRule.ONE, needs=ProtocolFeature.INFLIGHT_SHMFD)
@structure
class SetInflightFd(Inflight, Message):
    """Hand such an area back."""


@message(Request.GPU_SET_SOCKET, fds=FdRule.ONE)
@structure
class GpuSetSocket(Message):
    """The socket for the vhost-user-gpu protocol."""


@message(Request.RESET_DEVICE, needs=ProtocolFeature.RESET_DEVICE)
@structure
class ResetDevice(Message):
    """Disable all rings and bring the device back to where it began; ownership is kept."""


@message(Request.VRING_KICK, needs=ProtocolFeature.INBAND_NOTIFICATIONS)
@structure
class VringKick(Message):
    """A kick without a descriptor.  Starts the ring too."""

    index: int = wire(u32)
    num: int = wire(u32, default=0)


@message(
    Request.GET_MAX_MEM_SLOTS,
    answer=Answer.ALWAYS,
    reply=U64,
    needs=ProtocolFeature.CONFIGURE_MEM_SLOTS,
)
@structure
class GetMaxMemSlots(Message):
    """How many regions can the back-end hold?"""


@structure
class XenAddMemReg(XenSingleRegion, Message):
    """ADD_MEM_REG once XEN_MMAP is negotiated."""


@message(
    Request.ADD_MEM_REG,
    answer=Answer.IN_POSTCOPY,
    reply=SingleRegion,
    fds=FdRule.ONE,
    needs=ProtocolFeature.CONFIGURE_MEM_SLOTS,
    variants={ProtocolFeature.XEN_MMAP: XenAddMemReg},
)
@structure
class AddMemReg(SingleRegion, Message):
    """Map one more region."""


@structure
class XenRemMemReg(XenSingleRegion, Message):
    """REM_MEM_REG once XEN_MMAP is negotiated."""


@message(
    Request.REM_MEM_REG,
    fds=FdRule.TOLERATED,
    needs=ProtocolFeature.CONFIGURE_MEM_SLOTS,
    variants={ProtocolFeature.XEN_MMAP: XenRemMemReg},
)
@structure
class RemMemReg(SingleRegion, Message):
    """Unmap a region, found by guest address, user address and size."""


@message(Request.SET_STATUS, needs=ProtocolFeature.STATUS)
@structure
class SetStatus(Message):
    """The VIRTIO device status."""

    status: int = wire(u64)


@message(Request.GET_STATUS, answer=Answer.ALWAYS, reply=U64, needs=ProtocolFeature.STATUS)
@structure
class GetStatus(Message):
    """The VIRTIO device status, as last set."""


@message(
    Request.GET_SHARED_OBJECT,
    answer=Answer.ALWAYS,
    reply=Opaque,
    reply_fds=FdRule.OPTIONAL,
    needs=ProtocolFeature.SHARED_OBJECT,
)
@structure
class GetSharedObject(Message):
    """Fetch an exported object's descriptor; the reply has none when there is no such object."""

    uuid: bytes = wire(UUID)


@message(
    Request.SET_DEVICE_STATE_FD,
    answer=Answer.ALWAYS,
    reply=U64,
    fds=FdRule.ONE,
    reply_fds=FdRule.OPTIONAL,
    needs=ProtocolFeature.DEVICE_STATE,
)
@structure
class SetDeviceStateFd(Message):
    """Start to move device state through the descriptor, or through the one that the reply brings.

    Bits 0 to 7 of the reply are an error number.  Bit 8 says that it brings no descriptor.
    """

    direction: TransferDirection | int = wire(code(u32, TransferDirection))
    phase: TransferPhase | int = wire(code(u32, TransferPhase))


@message(Request.CHECK_DEVICE_STATE, answer=Answer.ALWAYS, reply=U64, needs=ProtocolFeature.DEVICE_STATE)
@structure
class CheckDeviceState(Message):
    """Did the back-end move its state without error?"""


@message(Request.GET_SHMEM_CONFIG, answer=Answer.ALWAYS, reply=ShmemConfig, needs=ProtocolFeature.SHMEM)
@structure
class GetShmemConfig(Message):
    """How large are the device's VIRTIO shared memory regions?"""
