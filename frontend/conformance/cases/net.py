"""What is for network cards only: SEND_RARP and NET_SET_MTU (B-NET)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import basic
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.session import DEFAULT_PROTOCOL, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Unsupported, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import NetSetMtu, SendRarp
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetFeature

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

RARP, MTU, REPLY_ACK = ProtocolFeature.RARP, ProtocolFeature.MTU, ProtocolFeature.REPLY_ACK
MAC = bytes.fromhex("525400123456")
USUAL = 1500
BAD_MTUS = (10, 70_000)
"""Less than IPv4 can do with, and more than the field of the configuration space holds."""

net_case = partial(case, level=Level.MUST, tags=("net",))


async def mtu_outcome(peer: Peer, mtu: int) -> Outcome:
    """What becomes of NET_SET_MTU on a new connection, where acknowledgements are negotiated."""
    virtio = basic(peer) | (NetFeature.MTU if peer.profile.device_type == DeviceType.NET else 0)
    session = await peer.negotiated(virtio, DEFAULT_PROTOCOL | MTU)
    await session.send(NetSetMtu(mtu), need_reply=True)
    outcome = await session.outcome(NetSetMtu.spec.request)
    peer.hang_up()
    return outcome


@net_case(
    "B-NET-01",
    section="msg SEND_RARP",
    title="SEND_RARP announces the card's address to its network",
    provoke="SEND_RARP with a MAC address in the first six bytes of its payload",
    passes="it is accepted; the frame has to be looked for where the card is connected to",
    needs=(RARP,),
)
async def rarp(peer: Peer) -> None:
    """After a migration the switches have to learn anew behind which port the guest is, and an old guest does not tell
    them.  Its network is behind the back-end, where this suite does not see: a capture there shows the frame."""
    session = await peer.negotiated(basic(peer), DEFAULT_PROTOCOL | RARP)
    await session.tell(SendRarp(MAC))
    await session.in_sync()
    raise Unsupported("SEND_RARP was accepted; whether a frame went out is seen only on the network behind the card")


@net_case(
    "B-NET-02",
    section="msg NET_SET_MTU",
    title="A usual MTU is accepted",
    provoke=f"NET_SET_MTU {USUAL} with need_reply",
    passes="acknowledged with 0",
    needs=(MTU, REPLY_ACK),
)
async def good_mtu(peer: Peer) -> None:
    """The front-end shows it to the guest, and has to know that the back-end can do it."""
    if (outcome := await mtu_outcome(peer, USUAL)) is not Outcome.ACK:
        raise Failure(f"NET_SET_MTU {USUAL}: found it {outcome.value}, expected it {Outcome.ACK.value}")


@net_case(
    "B-NET-03",
    section="msg NET_SET_MTU",
    title="An MTU that cannot be is refused",
    provoke=f"NET_SET_MTU {BAD_MTUS[0]} and {BAD_MTUS[1]} with need_reply",
    passes="acknowledged with non-zero",
    needs=(MTU, REPLY_ACK),
)
async def bad_mtu(peer: Peer) -> None:
    """Whoever says yes to everything has not looked."""
    for mtu in BAD_MTUS:
        if (outcome := await mtu_outcome(peer, mtu)) is not Outcome.NACK:
            raise Failure(f"NET_SET_MTU {mtu}: found it {outcome.value}, expected it {Outcome.NACK.value}")


@net_case(
    "B-NET-04",
    level=Level.ROBUSTNESS,
    section="msg SEND_RARP",
    title="SEND_RARP without its feature is survived",
    provoke="SEND_RARP on a connection where RARP was not negotiated",
    passes="refused, ignored or closed; the program lives",
    absent=(RARP,),
    tags=("net", "hostile"),
)
async def not_negotiated(peer: Peer) -> Verdict | None:
    """A disk has no network to announce anything to."""
    return await survives_each(peer, Raw.of(SendRarp(MAC)))
