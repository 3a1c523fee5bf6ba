"""Setting up rings: size, place, and where they begin (B-VR-01 to 05, 09, 15 to 19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.expect import equal
from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.load import many, prepared, segments, start, used_idx
from frontend.conformance.memory import Span
from frontend.conformance.raw_ring import RawRing, descs_of
from frontend.conformance.ring import restart
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Skip, Verdict, Wedged
from vhostuser.fd import NO_FDS, Fds
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    SetVringAddr,
    SetVringBase,
    SetVringCall,
    SetVringEndian,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.packed import INITIAL_BASE, PackedBase, Position
from vhostuser.wire.records import VringAddrFlags

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.session import Session
    from vhostuser.wire.catalog import Message

BOTH = ("split", "packed")
TAGS = ("ring",)
SIZES = (1, 2, 4, 256)
LARGE = (1024, 32768)
"""Sizes that virtio allows; a back-end need not."""


@case(
    "B-VR-01",
    level=Level.MUST,
    section="SET_VRING_NUM",
    title="The size of a ring is what SET_VRING_NUM says",
    provoke="rings of 1, 2, 4 and 256 entries, gone round three times; 1024 and 32768 likewise",
    passes="every request is done; sizes above 256 may be refused",
    tags=TAGS,
    variants=BOTH,
)
async def ring_size(peer: Peer) -> None:
    """Both sides reduce indices by it: one that has another size in mind looks at the wrong entry after one lap."""
    needed = segments(peer.model.request(peer.memory()))
    for size in SIZES:
        if size >= needed:
            await _laps(peer, size)
    for size in LARGE:
        try:
            await _laps(peer, size)
        except (Closed, Failure) as error:
            peer.note(f"size {size}: {error}")


async def _laps(peer: Peer, size: int) -> None:
    """Three times round a small ring; in a large one, over its end and on."""
    base = None
    if size > 256:
        last = Position(size - 2, True)
        base = int(PackedBase(last, last)) if peer.variant == "packed" else size - 2
    device = await prepared(peer, size=size, base=base)
    await start(device)
    request = device.request()
    fit = max(1, min(size, 256) // segments(request))
    await many(device, [request] * fit, 3 * size if size <= 256 else 8)
    peer.hang_up()


@case(
    "B-VR-02",
    level=Level.MUST,
    section="Payload (vring address)",
    title="The three parts of a ring lie where SET_VRING_ADDR says: descriptor, used, available",
    provoke="three parts on pages of their own, in another region than the buffers",
    passes="requests are done; only the parts that are the device's are written",
    tags=TAGS,
    variants=BOTH,
)
async def addresses(peer: Peer) -> None:
    """The message has the used ring before the available ring, unlike virtio's own order: easily mixed up.

    Its addresses are the front-end's own, not the guest's, which lie far away from them here.
    """
    memory = peer.memory(Span(0x10_0000, 1 << 20), Span(0x80_0000, 1 << 20, offset=8192))
    device = await prepared(peer, memory=memory)
    ring = device.ring
    for part in ("descriptor", "driver", "device"):
        moved = memory.buffer(len(getattr(ring, part)), align=4096, region=1)
        setattr(ring, part, moved)
    ring.reset()
    await start(device)
    await device.works(3)


@case(
    "B-VR-03",
    level=Level.MUST,
    section="SET_VRING_BASE",
    title="The base of a split ring is the available index to begin with",
    provoke="base 5, available index 6, rubbish in the entries before",
    passes="the chain of entry 5 is done, and nothing else",
    tags=TAGS,
)
async def base_is_available(peer: Peer) -> None:
    """After a stop or a migration a ring goes on in the middle; what lies before was done by somebody else."""
    device = await prepared(peer, base=5)
    raw = RawRing(device.ring)
    request = device.request()
    for entry in range(5):
        raw.words[2 + entry] = 63  # an empty descriptor
    head = raw.push(*descs_of(request))
    await start(device)
    used = await _first_used(device, raw)
    equal("chain that was done", used[0], head)
    request.check(used[1])
    await device.session.in_sync()
    equal("used index", used_idx(device.ring), 6)


async def _first_used(device: Device, raw: RawRing) -> tuple[int, int]:
    await device.ring.until(raw.used, "nothing was done")
    return raw.used()[0]


@case(
    "B-VR-04",
    level=Level.MUST,
    section="SET_VRING_BASE",
    title="The used index of a split ring is taken from memory",
    provoke="used index 5 in memory, base 5",
    passes="the first used element stands in slot 5, and the index becomes 6",
    tags=TAGS,
)
async def used_from_memory(peer: Peer) -> None:
    """No message carries it: a back-end that begins at 0 writes where the driver does not look."""
    device = await prepared(peer, base=5)
    device.ring.add(device.request())
    device.ring.publish(kick=False)
    await start(device)
    try:
        await device.ring.finish(1)
    except Wedged:
        raise Failure(f"used index: found {used_idx(device.ring)}, expected 6") from None
    equal("used index", used_idx(device.ring), 6)
    if any(device.ring.device.view[4 : 4 + 5 * 8]):
        raise Failure("slots 0 to 4 of the used ring were written to, expected slot 5 alone")


@case(
    "B-VR-05",
    level=Level.MUST,
    section="Payload (ring state)",
    title="Split indices wrap at 65536",
    provoke="base and used index 65533, eight requests",
    passes="all are done, and the used index is 5",
    tags=TAGS,
)
async def near_the_wrap(peer: Peer) -> None:
    """Indices are 16 bits and run freely; wider arithmetic sees a very full ring here."""
    device = await start(await prepared(peer, base=65533))
    await device.works(8)
    equal("used index", used_idx(device.ring), 5)


async def _told(session: Session, message: Message, fds: Fds = NO_FDS) -> bool:
    """Send a message that may be refused; False when it was."""
    await session.send(message, fds, need_reply=session.acks)
    if not session.acks:
        await session.in_sync()
        return True
    answer = await session.answer(message.spec.request)
    answer.fds.close()
    return answer.value == 0


@case(
    "B-VR-09",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="Messages that set a ring up come in another order",
    provoke="ADDR before NUM; CALL before all; BASE last",
    passes="the ring works, or a message is refused, or the connection is closed",
    tags=TAGS,
    variants=BOTH,
)
async def other_orders(peer: Peer) -> Verdict | None:
    """The document prescribes no order before the kick; to accept a message and forget it is the one wrong answer."""
    orders = ("addr num call base", "call num addr base", "base addr num call", "num base call addr")
    refused = [order for order in orders if not await _in_order(peer, order)]
    for order in refused:
        peer.note(f"refused: {order}")
    return Verdict.REJECT if len(refused) == len(orders) else None


async def _in_order(peer: Peer, order: str) -> bool:
    device = await prepared(peer)
    session = device.session
    try:
        for ring in device.rings:
            messages: dict[str, Message] = {
                "num": SetVringNum(ring.index, ring.size),
                "base": SetVringBase(ring.index, ring.base),
                "addr": ring.addresses(),
                "call": SetVringCall.of(ring.index),
            }
            for name in order.split():
                fds = ring.call_fds() if name == "call" else NO_FDS
                if not await _told(session, messages[name], fds):
                    return False
            if not await _told(session, SetVringKick.of(ring.index), ring.kick_fds()):
                return False
            await ring.enable(session)
            ring.notify()
        await device.works(2)
    except Closed:
        return False
    finally:
        peer.hang_up()
    return True


@case(
    "B-VR-15",
    level=Level.ROBUSTNESS,
    section="GET_VRING_BASE",
    title="A stopped ring works again once everything is sent anew",
    provoke="stop; NUM, BASE, ADDR, CALL, ERR, KICK; requests; three times",
    passes="they are done",
    tags=TAGS,
    variants=BOTH,
)
async def set_up_again(peer: Peer) -> None:
    """Many back-ends forget a ring's descriptors when it stops, so a front-end sends all of them again."""
    async with peer.device() as device:
        for _ in range(3):
            await device.works(2)
            await restart(device.session, device.rings)
        await device.works(2)


@case(
    "B-VR-16",
    level=Level.MUST,
    section="GET_VRING_BASE",
    title="Rings are independent: one is stopped, the other works",
    provoke="two rings run; one is stopped; requests on the other",
    passes="they are done",
    needs=(Need.TWO_QUEUES,),
    tags=TAGS,
    variants=BOTH,
)
async def independent(peer: Peer) -> None:
    """GET_VRING_BASE stops the ring that it names, not the device."""
    async with peer.device(rings=max(2, peer.model.queues)) as device:
        await device.works(1)
        await device.other.stop(device.session)
        await device.works(3)


@case(
    "B-VR-17",
    level=Level.SHOULD,
    section="SET_VRING_ENDIAN",
    title="A legacy ring in either byte order",
    provoke="a ring in little-endian, and one in big-endian",
    passes="a chain is done in each",
    needs=(ProtocolFeature.CROSS_ENDIAN,),
    tags=TAGS,
)
async def byte_orders(peer: Peer) -> None:
    """Legacy rings are in the guest's byte order, which only the front-end knows."""
    for big in (False, True):
        device = await prepared(peer, without=VirtioFeature.VERSION_1, protocol=ProtocolFeature.CROSS_ENDIAN)
        for ring in device.rings:
            await device.session.tell(SetVringEndian(ring.index, int(big)))
        if not big:
            await start(device)
            await device.works(1)
        else:
            await _big_endian(device)
        peer.hang_up()


async def _big_endian(device: Device) -> None:
    """One chain, turned round by hand; what the device makes of it is not looked at, since its fields turn too."""
    ring = device.ring
    raw = RawRing(ring)
    descs = descs_of(device.request())
    raw.push(*descs)
    for at in range(len(descs)):
        for start_, end in ((0, 8), (8, 12), (12, 14), (14, 16)):
            field = ring.descriptor.view[16 * at + start_ : 16 * at + end]
            field[:] = bytes(field)[::-1]
    raw.words.release()
    for at in range(0, 6, 2):
        ring.driver.view[at : at + 2] = bytes(ring.driver.view[at : at + 2])[::-1]
    await start(device)
    await ring.until(lambda: any(ring.device.view[2:4]), "nothing was done in a big-endian ring")
    equal("used index, as the guest sees it", int.from_bytes(ring.device.view[2:4], "big"), 1)


@case(
    "B-VR-18",
    level=Level.ROBUSTNESS,
    section="SET_VRING_ENDIAN",
    title="A byte order that there is not",
    provoke="SET_VRING_ENDIAN 2, and 0xffffffff",
    passes="refused, ignored or closed; the back-end lives",
    needs=(ProtocolFeature.CROSS_ENDIAN,),
    tags=("hostile",),
)
async def no_such_order(peer: Peer) -> Verdict | None:
    """The field has 32 bits, and two values."""
    return await survives_each(
        peer,
        *(Raw.of(SetVringEndian(0, value)) for value in (2, 0xFFFF_FFFF)),
        protocol=ProtocolFeature.CROSS_ENDIAN | ProtocolFeature.REPLY_ACK,
    )


@case(
    "B-VR-19",
    level=Level.ROBUSTNESS,
    section="Payload (vring address); IOMMU",
    title="Ring addresses that are I/O virtual and not mapped yet",
    provoke="SET_VRING_ADDR with such addresses, before any IOTLB entry",
    passes="it is accepted: what they mean is asked for when the ring starts",
    needs=(VirtioFeature.ACCESS_PLATFORM, Need.CHANNEL),
    tags=TAGS,
)
async def unmapped_addresses(peer: Peer) -> None:
    """Entries come by request of the back-end only, and it cannot ask before it knows the address."""
    device = await prepared(
        peer,
        virtio=VirtioFeature.ACCESS_PLATFORM,
        protocol=ProtocolFeature.BACKEND_REQ | ProtocolFeature.REPLY_ACK,
    )
    if not device.session.features & VirtioFeature.ACCESS_PLATFORM:
        raise Skip("ACCESS_PLATFORM is not offered")
    await device.session.tell(SetVringNum(0, 64))
    await device.session.tell(SetVringBase(0, int(INITIAL_BASE) if device.ring.packed else 0))
    await device.session.tell(SetVringAddr(0, VringAddrFlags(0), 0x4000_0000, 0x4000_2000, 0x4000_1000, 0))
    await device.session.in_sync()
