"""Messages that nobody planned: random ones under good headers, and good ones in random order."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.memory import USER_BASE
from frontend.conformance.series import together
from frontend.conformance.session import ASKING, PLAIN
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.transport.notifier import event_pair
from vhostuser.wire.catalog import CATALOG, FdRule
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    GetConfig,
    GetInflightFd,
    GetMaxMemSlots,
    GetProtocolFeatures,
    GetQueueNum,
    GetStatus,
    GetVringBase,
    RemMemReg,
    ResetDevice,
    ResetOwner,
    SetFeatures,
    SetMemTable,
    SetOwner,
    SetProtocolFeatures,
    SetStatus,
    SetVringBase,
    SetVringCall,
    SetVringEnable,
    SetVringErr,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.requests import FrontendRequest, Header, HeaderFlags, Role

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session
    from vhostuser.wire.catalog import Message

    Maker = Callable[[], tuple[Message, Fds]]

FENCE = FrontendRequest.GET_FEATURES
HIGHEST = max(FrontendRequest) + 6
ODD = 0.02
"""Share of payloads that are of a random length, and of messages with more or fewer descriptors than they should."""
ASKED = 0.9
"""Share of messages with need_reply: where it is in force a message can be refused without hanging up."""
KICKED = 0.1
"""Share of messages before which the ring is kicked."""
PATIENT = frozenset({FrontendRequest.SET_DEVICE_STATE_FD, FrontendRequest.SET_BACKEND_REQ_FD})
"""After these a back-end may well wait for somebody at the other end of the descriptor: they get /dev/null."""


class RandomMessages:
    """Requests of any number, with payloads and descriptors that are almost right.

    Args:
        numbers: decides.
        memory: descriptors for memory come from here.
    """

    def __init__(self, numbers: random.Random, memory: SharedMemory) -> None:
        self._numbers, self._memory = numbers, memory

    async def send(self, session: Session, count: int) -> None:
        """Send ``count`` of them."""
        await together(session, [self._message() for _ in range(count)])

    def _message(self) -> tuple[bytes, Fds]:
        request = self._request()
        payload = self._payload(request)
        return Header(request, self._flags(), len(payload)).build() + payload, self._fds(request)

    def _request(self) -> int:
        while (request := self._numbers.randrange(HIGHEST)) == FENCE:
            pass
        return request

    def _flags(self) -> HeaderFlags:
        return ASKING if self._numbers.random() < ASKED else PLAIN

    def _payload(self, request: int) -> bytes:
        if self._numbers.random() < ODD:
            return self._numbers.randbytes(self._numbers.randrange(300))
        if request == FrontendRequest.SET_MEM_TABLE:
            count = self._numbers.randrange(1, 4)
            return count.to_bytes(8, "little") + self._words(32 * count)
        if request in (FrontendRequest.GET_CONFIG, FrontendRequest.SET_CONFIG):
            size = self._numbers.randrange(64)
            words = (self._numbers.randrange(64), size, self._numbers.randrange(2))
            return b"".join(word.to_bytes(4, "little") for word in words) + bytes(size)
        return self._words(_size(request))

    def _words(self, size: int) -> bytes:
        return b"".join(self._word() for _ in range(-(-size // 8)))[:size]

    def _word(self) -> bytes:
        numbers = self._numbers
        first = self._memory.regions[0]
        return numbers.choice(
            (
                0,
                0,
                1,
                numbers.randrange(4),
                numbers.randrange(256),
                numbers.randrange(256) << 12,
                first.guest_addr + numbers.randrange(first.size),
                USER_BASE + first.guest_addr + numbers.randrange(first.size),
                numbers.randrange(4) | numbers.randrange(1024) << 32,  # two of 32 bits: a ring, and its number
                numbers.getrandbits(64),
            )
        ).to_bytes(8, "little")

    def _fds(self, request: int) -> Fds:
        spec = CATALOG.get((Role.FRONTEND, request))
        rule = spec.fds if spec else FdRule.NONE
        count = 1 if rule in (FdRule.ONE, FdRule.UNLESS_NOFD, FdRule.PER_REGION) else 0
        if self._numbers.random() < ODD:
            count = self._numbers.randrange(4)
        if not count:
            return NO_FDS
        if request in PATIENT:
            return Fds(Fd(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) for _ in range(count))
        if rule is FdRule.UNLESS_NOFD:
            return Fds(_event() for _ in range(count))
        return Fds(self._memory.fd() for _ in range(count))


def _size(request: int) -> int:
    """Bytes of a payload, where those are always as many."""
    spec = CATALOG.get((Role.FRONTEND, request))
    try:
        return spec.message.wire_size() if spec else 8
    except TypeError:
        return 16


def _event() -> Fd:
    """One end of an eventfd, of which nobody has the other."""
    ours, theirs = event_pair()
    ours.close()
    try:
        return theirs.duplicate()
    finally:
        theirs.close()


class GoodMessages:
    """Messages that are each right by themselves, about a device with a ring in which there is a request.

    Args:
        numbers: decides.
        peer: the back-end.
    """

    def __init__(self, numbers: random.Random, peer: Peer) -> None:
        self._numbers, self._peer = numbers, peer
        self._memory = peer.memory()

    async def begin(self) -> Session:
        """A connection that is negotiated, and a ring to talk about."""
        session = await self._peer.negotiated(basic(self._peer), WANTED)
        self._ring = self._peer.ring(session, self._memory, self._peer.model.queue)
        self._ring.add(self._peer.model.request(self._memory))
        self._ring.publish(kick=True)
        return session

    async def send(self, session: Session, count: int) -> None:
        """Send ``count`` of them."""
        makers = self._makers(session)
        await together(session, [self._message(makers, session) for _ in range(count)])

    def _message(self, makers: Sequence[Maker], session: Session) -> tuple[bytes, Fds]:
        if self._numbers.random() < KICKED:
            self._ring.notify()
        message, fds = self._numbers.choice(makers)()
        flags = ASKING if session.acks and self._numbers.random() < ASKED else PLAIN
        payload = message.build()
        return Header(message.spec.request, flags, len(payload)).build() + payload, fds

    def _makers(self, session: Session) -> list[Maker]:
        numbers, ring, memory = self._numbers, self._ring, self._memory
        index = ring.index

        def plain(message: Message, fds: Callable[[], Fds] = lambda: NO_FDS) -> Maker:
            return lambda: (message, fds())

        makers = [
            plain(SetOwner()),
            plain(ResetOwner()),
            plain(SetFeatures(session.features)),
            plain(SetMemTable(memory.regions), memory.fds),
            plain(SetVringNum(index, ring.size)),
            plain(SetVringBase(index, ring.base)),
            plain(ring.addresses()),
            plain(SetVringKick.of(index), ring.kick_fds),
            plain(SetVringCall.of(index), ring.call_fds),
            plain(SetVringErr.of(index), ring.err_fds),
            plain(GetVringBase(index)),
        ]
        if session.features & VirtioFeature.PROTOCOL_FEATURES:
            makers += [plain(GetProtocolFeatures()), plain(SetProtocolFeatures(session.protocol))]
            makers += [lambda: (SetVringEnable(index, numbers.randrange(2)), NO_FDS)]
        region = memory.regions[0]
        gated = {
            ProtocolFeature.MQ: [plain(GetQueueNum())],
            ProtocolFeature.CONFIG: [plain(GetConfig(0, 8, data=bytes(8)))],
            ProtocolFeature.STATUS: [plain(GetStatus()), plain(SetStatus(15)), plain(SetStatus(0))],
            ProtocolFeature.RESET_DEVICE: [plain(ResetDevice())],
            ProtocolFeature.INFLIGHT_SHMFD: [plain(GetInflightFd(0, 0, index + 1, ring.size))],
            ProtocolFeature.CONFIGURE_MEM_SLOTS: [
                plain(GetMaxMemSlots()),
                plain(AddMemReg(region), memory.fds),
                plain(RemMemReg(region)),
            ],
        }
        for feature, more in gated.items():
            if feature & session.protocol:
                makers += more
        return makers


WANTED = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.CONFIG
    | ProtocolFeature.STATUS
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.INFLIGHT_SHMFD
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
)
