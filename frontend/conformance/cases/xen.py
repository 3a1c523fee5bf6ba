"""Memory of Xen domains (B-XEN)."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.conformance.hostile import Raw, survives_each
from frontend.conformance.load import start
from frontend.conformance.memory import PAGE, Span
from frontend.conformance.peer import BASIC, Device
from frontend.conformance.session import DEFAULT_PROTOCOL
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Unsupported, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetMemTable, XenSetMemTable
from vhostuser.wire.records import XenMemoryRegion, XenMmapFlags

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer

XEN_MMAP = ProtocolFeature.XEN_MMAP
xen = partial(case, level=Level.MUST, section="Payload (memory regions)", tags=("xen", "memory"), needs=(XEN_MMAP,))
FOREIGN, GRANT, ON_DEMAND = XenMmapFlags.FOREIGN, XenMmapFlags.GRANT, XenMmapFlags.NO_ADVANCE_MAP
TWO = (
    Span(0x10_0000, 4 << 20, offset=PAGE, behind=PAGE),
    Span(0x80_0000, 1 << 20, offset=2 * PAGE, behind=PAGE),
)


def _on_xen() -> bool:
    try:
        return Path("/sys/hypervisor/type").read_text().strip() == "xen"
    except OSError:
        return False


def _table(memory: SharedMemory, flags: int) -> XenSetMemTable:
    regions = (
        XenMemoryRegion(each.guest_addr, each.size, each.user_addr, each.mmap_offset, XenMmapFlags(flags), 0)
        for each in memory.regions
    )
    return XenSetMemTable(tuple(regions))


async def _shared(peer: Peer, flags: int) -> Device:
    """A device that has been given two regions of domain 0.

    Raises:
        Unsupported: it cannot map them, this being no Xen host.
        Failure: it cannot, and this is one.
    """
    session = await peer.negotiated(BASIC, DEFAULT_PROTOCOL | XEN_MMAP)
    memory = peer.memory(*TWO)
    await session.send_raw(
        SetMemTable.spec.request, _table(memory, flags).build(), flags=9 if session.acks else 1, fds=memory.fds()
    )
    outcome = await session.outcome(SetMemTable.spec.request)
    if outcome.refused:
        words = f"SET_MEM_TABLE with Xen's regions: {outcome.value}"
        if _on_xen():
            raise Failure(f"{words}, expected 0")
        raise Unsupported(f"{words}; this is no Xen host, so it may be right")
    return Device(session, memory, peer.rings(session, memory), peer.model)


@xen(
    "B-XEN-01",
    title="Regions of 40 bytes",
    provoke="SET_MEM_TABLE with two regions, each with flags and a domain behind it; requests in both",
    passes="accepted, and they are done",
)
async def regions(peer: Peer) -> None:
    """Read as regions of 32 bytes, the second one begins with the first one's flags."""
    device = await start(await _shared(peer, FOREIGN))
    await device.works()
    device.memory.home = 1
    await device.works(2)


@xen(
    "B-XEN-02",
    title="With bit 8 nothing is mapped in advance",
    provoke="the same with bit 8, and a look at the back-end's mappings; requests, and another look",
    passes="no mapping of the files before, and none of a whole region after",
    needs=(XEN_MMAP, Need.OUR_PROCESS),
)
async def on_demand(peer: Peer) -> None:
    """Grants are given page by page, as buffers are: a whole region cannot be mapped, and should not."""
    device = await _shared(peer, GRANT | ON_DEMAND)
    if before := _mapped(peer, device.memory):
        raise Failure(f"{max(before):#x} bytes of a region were mapped before anything was in a ring, expected none")
    await start(device)
    await device.works(2)
    largest = max(_mapped(peer, device.memory), default=0)
    if largest >= min(each.size for each in device.memory.regions):
        raise Failure(f"{largest:#x} bytes are mapped in one piece, expected pieces smaller than a region")


def _mapped(peer: Peer, memory: SharedMemory) -> list[int]:
    """Sizes of the back-end's mappings of the memory's files.

    Raises:
        Unsupported: nobody lets us look.
    """
    files = set()
    for index in range(len(memory.regions)):
        with memory.fd(index) as fd:
            files.add(os.fstat(fd.fileno()).st_ino)
    try:
        lines = Path(f"/proc/{peer.target.pid}/maps").read_text().splitlines()
    except OSError:
        raise Unsupported("the back-end's memory map cannot be read") from None
    spans = (line.split()[0] for line in lines if int(line.split()[4]) in files)
    return [int(end, 16) - int(first, 16) for first, _, end in (span.partition("-") for span in spans)]


@xen(
    "B-XEN-03",
    level=Level.ROBUSTNESS,
    title="Memory that is neither foreign nor granted, or both",
    provoke="SET_MEM_TABLE with neither of bits 0 and 1, with both, and with bits that mean nothing",
    passes="refused, ignored, accepted or closed; the back-end lives",
    tags=("xen", "memory", "hostile"),
)
async def odd_flags(peer: Peer) -> Verdict | None:
    """One of the two has to be set; some take neither for ordinary memory."""
    memory = peer.memory(*TWO)
    tables = (_table(memory, flags) for flags in (0, FOREIGN | GRANT, 0xFFFF_FFFF))
    raw = [Raw(SetMemTable.spec.request, each.build(), fds=memory.fds) for each in tables]
    return await survives_each(peer, *raw, protocol=DEFAULT_PROTOCOL | XEN_MMAP)
