"""VIRTIO shared memory regions, and what the back-end maps into them (B-SHM)."""

from __future__ import annotations

import mmap
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.expect import equal
from frontend.conformance.overheard import ALL, answering, overheard
from frontend.conformance.sharing import Regions, in_words, maps_of
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import GetShmemConfig, ResetDevice
from vhostuser.wire.records import ShmemConfig
from vhostuser.wire.requests import BackendRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from frontend.conformance.overheard import Overheard
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Answer, Session
    from vhostuser.wire.records import ShmemMap

SHMEM, RESET = ProtocolFeature.SHMEM, ProtocolFeature.RESET_DEVICE
REFUSED = 1
ROUNDS = 8
USE = "the device is used while somebody listens on the channel"

config_case = partial(case, section="msg GET_SHMEM_CONFIG", needs=(SHMEM,), provoke="GET_SHMEM_CONFIG")
mapping = partial(case, section="msg BACKEND_SHMEM_MAP", needs=(SHMEM, Need.CHANNEL), tags=("channel",), provoke=USE)


async def config(session: Session) -> ShmemConfig:
    """GET_SHMEM_CONFIG."""
    return await session.ask(GetShmemConfig(), ShmemConfig)


async def maps_heard(heard: Overheard, rounds: int = 1) -> list[tuple[Answer, ShmemMap]]:
    """All that was mapped, and unmapped, while the device was used so many times.

    Raises:
        Skip: nothing.
    """
    await heard.use(rounds)
    found = maps_of(heard.said)
    if not any(request.request == BackendRequest.SHMEM_MAP for request, _ in found):
        raise Skip("the back-end has mapped nothing into a shared memory region, though its device was used")
    return found


@config_case(
    "B-SHM-01",
    level=Level.MUST,
    title="The answer to GET_SHMEM_CONFIG has the sizes of all 256 regions",
    passes="2056 bytes",
)
async def config_size(peer: Peer) -> None:
    """The layout is fixed, however few regions there are."""
    session = await peer.negotiated(protocol=ALL)
    await session.send(GetShmemConfig())
    answer = await session.answer(GetShmemConfig.spec.request)
    answer.fds.close()
    equal("bytes in the answer to GET_SHMEM_CONFIG", len(answer.payload), ShmemConfig.wire_size())


@config_case(
    "B-SHM-02",
    level=Level.MUST,
    section="Payload",
    title="The number of regions is the number of sizes that are not 0",
    passes="both are equal; the numbers of regions may have gaps",
)
async def config_count(peer: Peer) -> None:
    """It is not the highest number of a region: who takes it for that misses those behind a gap."""
    found = await config(await peer.negotiated(protocol=ALL))
    equal("number of regions", found.num_regions, sum(map(bool, found.sizes)))


@config_case(
    "B-SHM-03",
    level=Level.MUST,
    title="Regions are whole pages",
    passes=f"every size is a multiple of this machine's {mmap.PAGESIZE} bytes",
)
async def config_pages(peer: Peer) -> None:
    """A hypervisor gives the guest pages, and what is left of the last one would be somebody else's."""
    found = await config(await peer.negotiated(protocol=ALL))
    for number, size in enumerate(found.sizes):
        if size % mmap.PAGESIZE:
            raise Failure(f"size of region {number}: found {size:#x}, expected a multiple of {mmap.PAGESIZE:#x}")


@config_case(
    "B-SHM-04",
    level=Level.MUST,
    title="The sizes stay what they are",
    provoke="GET_SHMEM_CONFIG after negotiation, at once again, and once the device runs",
    passes="three equal answers",
)
async def config_constant(peer: Peer) -> None:
    """The guest has been told, and a window of its address space cannot grow."""
    session = await peer.negotiated(protocol=ALL)
    first = await config(session)
    equal("the second answer to GET_SHMEM_CONFIG", await config(session), first)
    await bring_up(peer, session, peer.memory())
    equal("the answer to GET_SHMEM_CONFIG while the device runs", await config(session), first)


@mapping(
    "B-SHM-05",
    level=Level.MUST,
    title="SHMEM_MAP brings one descriptor, and a range within a region",
    passes="40 bytes, one descriptor, and a range that lies in a region with a size",
)
async def map_in_range(peer: Peer) -> None:
    """Everything else is refused, and the guest sees nothing where it was promised something."""
    async with overheard(peer) as heard:
        found = await maps_heard(heard)
        regions = Regions((await config(heard.device.session)).sizes)
        for request, told in found:
            if request.request == BackendRequest.SHMEM_MAP:
                equal(f"descriptors with SHMEM_MAP of {in_words(told)}", len(request.fds), 1)
                regions.check_range(told)


@mapping(
    "B-SHM-06",
    level=Level.MUST,
    title="Nothing is mapped over what is mapped",
    provoke=f"{USE}, {ROUNDS} times",
    passes="no range of a SHMEM_MAP overlaps one that is still mapped",
)
async def no_overlap(peer: Peer) -> None:
    """A front-end has to refuse it."""
    async with overheard(peer) as heard:
        _replayed(await maps_heard(heard, ROUNDS))


@mapping(
    "B-SHM-07",
    level=Level.MUST,
    section="msg BACKEND_SHMEM_UNMAP",
    title="SHMEM_UNMAP takes away one whole mapping",
    provoke=f"{USE}, {ROUNDS} times",
    passes="each SHMEM_UNMAP has region, offset and length of one SHMEM_MAP before it",
)
async def whole_unmap(peer: Peer) -> None:
    """Half a mapping cannot be taken away, so a front-end refuses that."""
    async with overheard(peer) as heard:
        found = await maps_heard(heard, ROUNDS)
        if all(request.request == BackendRequest.SHMEM_MAP for request, _ in found):
            raise Skip("the back-end has not unmapped anything, though its device was used")
        _replayed(found)


def _replayed(found: Sequence[tuple[Answer, ShmemMap]]) -> None:
    regions = Regions(())
    for request, told in found:
        (regions.map if request.request == BackendRequest.SHMEM_MAP else regions.unmap)(told)


@mapping(
    "B-SHM-08",
    level=Level.ROBUSTNESS,
    title="After a reset nothing is mapped",
    provoke=f"{USE}; RESET_DEVICE; the device is brought up and used again",
    passes="nothing is unmapped that was mapped before the reset; what is needed is mapped again",
    needs=(SHMEM, RESET, Need.CHANNEL),
)
async def after_reset(peer: Peer) -> None:
    """The front-end drops all mappings with a reset, since the guest that asked for them is gone."""
    async with overheard(peer, protocol=ALL | RESET) as heard:
        await maps_heard(heard)
        device = heard.device
        for ring in device.rings:
            await ring.stop(device.session)
        await device.session.tell(ResetDevice())
        await device.session.in_sync()
        heard.said.clear()
        await device.session.set_features(device.session.features)
        for ring in device.rings:
            ring.reset()
            await ring.start(device.session)
        await heard.use()
        found = maps_of(heard.said)
        _replayed(found)
        peer.note(f"{len(found)} requests about mappings after the reset")


@mapping(
    "B-SHM-09",
    level=Level.ROBUSTNESS,
    title="A mapping that is refused does no harm",
    provoke=f"{USE}; every request on the channel is acknowledged with {REFUSED}",
    passes="it lives, and answers on the main channel",
)
async def refused(peer: Peer) -> Verdict | None:
    """A front-end may lack the resources, and the device has to do without, or to fail that one request."""
    async with overheard(peer, react=answering(REFUSED)) as heard:
        await maps_heard(heard, 2)
    await peer.alive()
    return None


@mapping(
    "B-SHM-10",
    level=Level.ROBUSTNESS,
    section="Payload",
    title="The flags of a mapping are 0 or 1",
    passes="nothing but bit 0, which asks for a mapping that can be written",
)
async def flags(peer: Peer) -> None:
    """The text knows no other, so a front-end that reads them strictly refuses."""
    async with overheard(peer) as heard:
        for request, told in await maps_heard(heard):
            if request.request == BackendRequest.SHMEM_MAP and int(told.flags) > 1:
                raise Failure(f"flags of SHMEM_MAP of {in_words(told)}: found {int(told.flags):#x}, expected 0 or 1")
