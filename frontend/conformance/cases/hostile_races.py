"""Drivers that change their mind while the device works, and ten thousands of random ones (B-HOR-27, 28, 37)."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.endure import keeps_quiet
from frontend.conformance.meddle import meddling
from frontend.conformance.memory import Span
from frontend.conformance.raw_ring import IDX_WORD, INDIRECT, NEXT, RING_WORD, WRITE, Desc, RawRing, descs_of
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.split import DESC_SIZE

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer
    from frontend.guest.memory import Buffer

ROUNDS = 6
IMAGES, CHAINS, SEED = 400, 256, 37
SIZE = 16 << 20
"""Bytes of memory; a bit that no smaller length has."""
ENOUGH = 100
"""Connections that may be closed over random rings before it is clear how this back-end takes them."""
VIRTIO = VirtioFeature.INDIRECT_DESC | VirtioFeature.EVENT_IDX
NO_ACKS = ProtocolFeature.MQ
"""Without acknowledgements ring after ring is set up in one go."""
hostile = partial(
    case,
    level=Level.ROBUSTNESS,
    tags=("hostile", "ring"),
    passes="it survives, and answers messages",
    variants=("split", "packed"),
)


@hostile(
    "B-HOR-27",
    section="V 2.7.5",
    title="Descriptors change while the device reads them",
    provoke="a thread that makes lengths, addresses and links good and bad in turn",
)
async def changing_descriptors(peer: Peer) -> Verdict | None:
    """What was checked is not what is used, unless the device reads each number once: the oldest hole there is."""
    closed = 0
    for _ in range(ROUNDS):
        async with peer.device() as device:
            raw = RawRing(device.ring)
            descs = descs_of(device.request())
            for _ in range(device.ring.size // len(descs)):
                raw.push(*descs)
            try:
                with meddling(_Flip(device, descs)):
                    for _ in range(10):
                        device.ring.notify()
                        await device.session.in_sync()
            except Closed:
                closed += 1
        peer.hang_up()
    await peer.alive()
    peer.note(f"closed {closed} of {ROUNDS} connections")
    return Verdict.REJECT if closed == ROUNDS else None


class _Flip:
    """Writes one of the numbers of a descriptor, good and bad in turn.

    Alike in both formats: an address of 64 bits, a length of 32 bits, and, in split rings only, the link behind it.
    """

    def __init__(self, device: Device, descs: list[Desc]) -> None:
        view = device.ring.descriptor.view
        self._descs = descs
        self._addresses, self._lengths = view.cast("Q"), view.cast("I")
        self._links = None if device.ring.packed else view.cast("H")
        self._count = device.ring.size // len(descs) * len(descs)

    def __call__(self, turn: int) -> None:
        bad, slot = turn & 1, (turn >> 1) % self._count
        desc = self._descs[slot % len(self._descs)]
        match turn // (2 * self._count) % 3:
            case 0:
                self._lengths[slot * 4 + 2] = 0xFFFF_FFFF if bad else desc.length
            case 1:
                self._addresses[slot * 2] = 0xDEAD_0000 if bad else desc.addr
            case 2 if self._links is not None:
                self._links[slot * 8 + 7] = 0xFFFF if bad else slot + 1


@hostile(
    "B-HOR-28",
    section="V 2.7.6",
    title="The driver moves its index all the time",
    provoke="a thread that stores random available indices, or flags of descriptors, with messages meanwhile",
)
async def changing_index(peer: Peer) -> Verdict | None:
    """A guest can keep a device busy with its ring for ever; that must not keep it from answering the front-end."""
    async with peer.device() as device:
        raw = RawRing(device.ring)
        descs = descs_of(device.request())
        for _ in range(device.ring.size // len(descs)):
            raw.push(*descs)
        try:
            with meddling(_Stir(raw)):
                for _ in range(20):
                    device.ring.notify()
                    await device.session.in_sync()
            await keeps_quiet(peer)
        except Closed:
            peer.note("closed the connection")
            await peer.alive()
            return Verdict.REJECT
    await peer.alive()
    return None


class _Stir:
    """Stores random indices, or turns descriptors from available to used and back."""

    def __init__(self, raw: RawRing) -> None:
        self._numbers = random.Random(28)
        self._packed, self._size = raw.ring.packed, raw.ring.size
        self._words = raw.ring.descriptor.view.cast("H") if raw.ring.packed else raw.words

    def __call__(self, turn: int) -> None:
        if self._packed:
            self._words[turn % self._size * (DESC_SIZE // 2) + 7] ^= 0x8080
        else:
            self._words[IDX_WORD] = self._numbers.getrandbits(16)


@hostile(
    "B-HOR-37",
    section="V 2.7",
    title="Random rings",
    provoke=f"{IMAGES} rings of {CHAINS} random chains each: good and bad addresses, lengths, flags, links, tables",
    passes="the back-end lives, answers, and writes nowhere but where a descriptor allowed it",
    tags=("hostile", "ring", "slow"),
    seconds=60,
)
async def random_rings(peer: Peer) -> Verdict | None:
    """Nobody thinks of everything.

    What is read is filled with ones, which is no request of any device that is known here, so that no harm is done.
    """
    peer.note(f"seed {SEED}")
    numbers, closed, done = random.Random(SEED), 0, 0
    memory = peer.memory(Span(0x10_0000, SIZE, offset=4096, behind=4096))
    pool = memory.buffer(b"\xff" * 65536)
    while done < IMAGES and closed < ENOUGH:
        async with peer.device(virtio=VIRTIO, protocol=NO_ACKS, memory=memory, size=CHAINS) as device:
            try:
                while done < IMAGES:
                    done += 1
                    await _image(device, pool, numbers)
            except Closed:
                closed += 1
        peer.hang_up()
        if (status := peer.target.exited()) is not None and status < 0:
            raise Failure(f"ring {done} of seed {SEED} killed the back-end: signal {-status}")
    await peer.alive()
    if closed:
        peer.note(f"closed {closed} connections over {done} rings")
    return Verdict.REJECT if closed == done else None


async def _image(device: Device, pool: Buffer, numbers: random.Random) -> None:
    """Fill a new ring in the same place, have it looked at, and stop it."""
    ring = device.ring
    await ring.stop(device.session)
    ring.reset()
    await ring.start(device.session)
    raw = RawRing(ring)
    size = ring.size
    for slot in range(size):
        raw.write(slot, _random_desc(pool, numbers, size), name=numbers.choice((slot, numbers.getrandbits(16))))
    if ring.packed:
        _make_available(raw, numbers)
    else:
        for number in range(CHAINS):
            raw.words[RING_WORD + (raw.idx + number) % size] = numbers.choice(
                (numbers.randrange(size), numbers.getrandbits(16))
            )
        raw.set_idx(raw.idx + numbers.choice((CHAINS, CHAINS // 2, numbers.getrandbits(16))))
    ring.notify()
    await device.session.in_sync()


def _random_desc(pool: Buffer, numbers: random.Random, size: int) -> Desc:
    """Good in every part with some probability, so that each check is reached."""
    at = numbers.randrange(len(pool))
    addr = pool.addr + at if numbers.random() < 0.9 else numbers.getrandbits(64)
    # What is too long is longer than all memory: else the device may write where it was allowed to, out of the pool.
    length = numbers.randrange(len(pool) - at) & 0xFFF if numbers.random() < 0.9 else numbers.getrandbits(32) | SIZE
    flags = numbers.choice((0, NEXT, WRITE, NEXT | WRITE, NEXT, NEXT | WRITE))
    if numbers.random() < 0.05:
        flags |= numbers.choice((INDIRECT, numbers.getrandbits(16) & 0x7F7F))
    return Desc(addr, length, flags, numbers.randrange(size) if numbers.random() < 0.95 else numbers.getrandbits(16))


def _make_available(raw: RawRing, numbers: random.Random) -> None:
    words = raw.ring.descriptor.view.cast("H")
    for slot in reversed(range(raw.ring.size)):
        words[slot * (DESC_SIZE // 2) + 7] |= 0x80 if numbers.random() < 0.98 else 0x8080
