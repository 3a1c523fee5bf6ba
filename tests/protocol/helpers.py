"""Two roles joined back to back, and the messages and frames to put between them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vhostuser.fd import NO_FDS, Fds
from vhostuser.protocol import (
    BackendProtocol,
    BackendRequester,
    Deframer,
    Frame,
    FrontendProtocol,
    FrontendResponder,
    ProtocolState,
)
from vhostuser.protocol.state import new_rings
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.records import U64, MemoryRegion, VringAddrFlags
from vhostuser.wire.requests import Header, HeaderFlags, Role

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vhostuser.protocol import Reply
    from vhostuser.protocol.requester import Requester
    from vhostuser.protocol.responder import Responder
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.schema import Structure

# Everything but the two that change what other messages look like.
ALL = P((1 << 23) - 1) & ~(P.XEN_MMAP | P.GPA_ADDRESSES)
FEATURES = V.PROTOCOL_FEATURES | V.VERSION_1 | V.LOG_ALL

REGION = MemoryRegion(guest_addr=0x1000, size=0x100000, user_addr=0x7F0000001000, mmap_offset=0)
OTHER_REGION = MemoryRegion(guest_addr=0x200000, size=0x1000, user_addr=0x7F0000200000, mmap_offset=0x1000)


def null(count: int) -> Fds:
    """``count`` open descriptors."""
    return Fds.adopt(os.open(os.devnull, os.O_RDWR) for _ in range(count))


def ring_addr(index: int = 0, *, desc: int = 0, avail: int = 0x10000, used: int = 0x20000) -> f.SetVringAddr:
    """Ring parts at offsets in `REGION`."""
    base = REGION.user_addr
    return f.SetVringAddr(index, VringAddrFlags(0), base + desc, base + used, base + avail, 0)


def request(message: Message, fds: Fds = NO_FDS, *, ack: bool = False) -> Frame:
    """A frame that asks for ``message``, whoever may be allowed to send it."""
    flags = HeaderFlags.VERSION_1 | (HeaderFlags.NEED_REPLY if ack else HeaderFlags(0))
    payload = message.build()
    return Frame(Header(message.spec.request, flags, len(payload)), payload, fds)


def response(to: Message, value: Structure, fds: Fds = NO_FDS) -> Frame:
    """A frame that answers ``to`` with ``value``, right or wrong."""
    payload = value.build()
    return Frame(Header(to.spec.request, HeaderFlags.VERSION_1 | HeaderFlags.REPLY, len(payload)), payload, fds)


def crossed(frame: Frame) -> Frame:
    """``frame`` as it comes out at the other end of a socket; its descriptors move along."""
    deframer, data, fds = Deframer(), frame.build(), list(frame.fds.take_all())
    while True:
        step, data = data[: deframer.needed], data[deframer.needed :]
        made = deframer.feed(step, fds)
        fds = []
        if made is not None:
            assert data == b""
            assert made.build() == frame.build()
            return made


def backend(
    *messages: Message,
    features: int = FEATURES,
    protocol_features: P = ALL,
    num_queues: int = 2,
    max_queue_size: int = 1024,
    max_mem_slots: int = 4,
) -> BackendProtocol:
    """A back-end that has received ``messages``, each with as many descriptors as it has to have."""
    protocol = BackendProtocol(
        features=features,
        protocol_features=protocol_features,
        num_queues=num_queues,
        max_queue_size=max_queue_size,
        max_mem_slots=max_mem_slots,
    )
    for message in messages:
        frame = request(message, null(fd_count(message, protocol.state)))
        received = protocol.receive(frame)
        frame.close()
        assert protocol.answer(received) or protocol.ack() is None
    return protocol


def fd_count(message: Message, state: ProtocolState) -> int:
    """The least number of descriptors that may come with ``message``."""
    regions = len(getattr(message, "regions", ()))
    no_fd = getattr(message, "no_fd", False)
    return message.spec.fd_limits(state.protocol_features, regions=regions, no_fd=no_fd).start


NEGOTIATED: tuple[Message, ...] = (
    f.GetFeatures(),
    f.GetProtocolFeatures(),
    f.SetProtocolFeatures(ALL),
    f.SetOwner(),
    f.SetFeatures(FEATURES),
)
CONFIGURED: tuple[Message, ...] = (
    *NEGOTIATED,
    f.SetMemTable((REGION,)),
    f.SetVringNum(0, 256),
    f.SetVringBase(0, 0),
    ring_addr(0),
)
RUNNING: tuple[Message, ...] = (*CONFIGURED, f.SetVringKick.of(0), f.SetVringEnable(0, 1))


def shared(state: ProtocolState, num_queues: int) -> tuple[object, ...]:
    """What both ends must agree on."""
    rings = state.rings[:num_queues]
    return state.features, state.protocol_features, state.owner, rings, state.regions, state.status


def unconfigured(num_queues: int = 2) -> ProtocolState:
    """Nobody has said anything."""
    return ProtocolState(rings=new_rings(num_queues))


def tell(state: ProtocolState, *messages: Message) -> ProtocolState:
    """Let ``state`` observe front-end messages, each with as many descriptors as it has to have."""
    for message in messages:
        state.observe(Role.FRONTEND, message, fd_count(message, state))
    return state


def legacy() -> ProtocolState:
    state = unconfigured()
    state.observe_reply(f.GetFeatures(), U64(V.VERSION_1))
    return tell(state, f.SetFeatures(V.VERSION_1))


def offered(features: int = FEATURES, protocol_features: int = ALL) -> ProtocolState:
    state = unconfigured()
    state.observe_reply(f.GetFeatures(), U64(features))
    state.observe_reply(f.GetProtocolFeatures(), U64(protocol_features))
    return state


def after(*messages: Message, features: int = FEATURES) -> ProtocolState:
    """Everything is offered, and these messages have been sent."""
    return tell(offered(features), *messages)


class ProtocolPair:
    """A front-end and a back-end with nothing but bytes and descriptors between them; both channels.

    Args:
        features: virtio features that the back-end offers.
        protocol_features: protocol features that it offers.
        num_queues: how many rings it has.
    """

    def __init__(self, *, features: int = FEATURES, protocol_features: P = ALL, num_queues: int = 2) -> None:
        self.frontend = FrontendProtocol()
        self.backend = BackendProtocol(
            features=features, protocol_features=protocol_features, num_queues=num_queues, max_mem_slots=4
        )
        self.num_queues = num_queues
        self.backend_requester = BackendRequester(self.backend.state)
        self.frontend_responder = FrontendResponder(self.frontend.state)

    def ends(self, message: Message) -> tuple[Requester, Responder]:
        """Who sends ``message``, who receives it."""
        if message.spec.sender is Role.FRONTEND:
            return self.frontend, self.backend
        return self.backend_requester, self.frontend_responder

    def carry(self, message: Message, fds: Fds = NO_FDS, *, ack: bool | None = None) -> Message:
        """Send ``message`` and receive it: what the other end read."""
        requester, responder = self.ends(message)
        frame = crossed(requester.request(message, fds, ack=ack))
        received = responder.receive(frame)
        assert len(frame.fds) == len(fds)
        assert all(not fd.closed for fd in frame.fds)
        frame.close()
        return received

    def answer(self, message: Message, value: Structure | None = None, fds: Fds = NO_FDS) -> Reply | None:
        """Let the receiver of ``message`` answer as it should, and the sender read that."""
        requester, responder = self.ends(message)
        if value is not None:
            frame: Frame | None = responder.reply(message, value, fds)
        else:
            frame = (responder is self.backend and self.backend.answer(message)) or responder.ack()
        return requester.receive(crossed(frame)) if frame else None

    def nack(self, message: Message) -> Reply:
        """Let the receiver of ``message`` refuse it, and the sender read that."""
        requester, responder = self.ends(message)
        frame = responder.nack()
        assert frame is not None
        return requester.receive(crossed(frame))

    def exchange(self, messages: Iterable[Message]) -> None:
        """Carry each of ``messages``, with descriptors as needed, and its answer."""
        for message in messages:
            requester, _ = self.ends(message)
            received = self.carry(message, null(fd_count(message, requester.state)))
            self.answer(received)


def value_of(reply: Reply | None) -> int:
    """The number in a reply."""
    assert reply is not None
    assert isinstance(reply.value, U64)
    return reply.value.value
