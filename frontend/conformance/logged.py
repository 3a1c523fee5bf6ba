"""A device that logs what it writes, and which of its writes are in the log ("Migration").

Nothing is taken from the device's word: the buffers it may write are filled with a pattern first, and a page in which
a byte has changed was written to.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from frontend.conformance.dirty import LOG_PAGE, DirtyLog
from frontend.conformance.load import prepared, start
from frontend.conformance.session import DEFAULT_PROTOCOL
from vhostuser.conformance import Failure, Skip
from vhostuser.memory.map import GuestAddr
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.ring import TestRing

LOG_ALL = VirtioFeature.LOG_ALL
LOGGING = DEFAULT_PROTOCOL | ProtocolFeature.LOG_SHMFD
POISON = 0xA5
_WRITES_NOTHING = "a request to a {} device that writes to guest memory is not known"


@asynccontextmanager
async def logged(
    peer: Peer,
    memory: SharedMemory | None = None,
    log: DirtyLog | None = None,
    *,
    virtio: int = 0,
    used_at: Callable[[TestRing], int] | None = None,
) -> AsyncIterator[tuple[Device, DirtyLog]]:
    """A device that logs from its start: LOG_ALL, memory, SET_LOG_BASE, rings.

    Args:
        peer: the back-end.
        memory: the guest's; by default a fresh one.
        log: the caller's; by default one for all of the memory.
        virtio: feature bits besides.
        used_at: tells at which guest address the used ring of requests is to be logged; None: it is not.
    """
    memory = peer.memory() if memory is None else memory
    with DirtyLog(memory) if log is None else log as log:
        device = await prepared(peer, virtio=LOG_ALL | virtio, protocol=LOGGING, memory=memory)
        rings_apart(device)
        if used_at is not None:
            device.ring.log_addr = used_at(device.ring)
        await log.share(device.session)
        yield await start(device), log
        memory.check()
        log.check()


def rings_apart(device: Device) -> None:
    """No buffer that is made from now on shares a page with a ring: what is marked is the one or the other."""
    device.memory.skip_to(max(ring.device.addr for ring in device.rings) + LOG_PAGE)


class Dirtied:
    """The buffers of requests before they are handed out: which of their pages does the device write to?

    Args:
        memory: where they are.
        requests: not added to a ring yet; what they may write is filled with a pattern.
    """

    def __init__(self, memory: SharedMemory, requests: Iterable[Request]) -> None:
        self._spans = [(int(each.addr), len(each)) for request in requests for each in request.writable if len(each)]
        self._memory = memory
        for addr, length in self._spans:
            for view in memory.guest.views(GuestAddr(addr), length):
                view[:] = bytes([POISON]) * len(view)

    def allowed(self) -> set[int]:
        """Numbers of all pages of these buffers."""
        return {
            page for addr, size in self._spans for page in range(addr // LOG_PAGE, (addr + size - 1) // LOG_PAGE + 1)
        }

    def pages(self) -> set[int]:
        """Numbers of the pages in which something has been written by now."""
        written = set()
        for addr, length in self._spans:
            data = b"".join(map(bytes, self._memory.guest.views(GuestAddr(addr), length)))
            written |= {(addr + at) // LOG_PAGE for at, byte in enumerate(data) if byte != POISON}
        return written


async def dirtied_by(device: Device, *requests: Request) -> Dirtied:
    """Have requests done, one batch, and see what they have written.

    Raises:
        Skip: it is not known how this device is brought to write to a buffer.
    """
    dirtied = Dirtied(device.memory, requests)
    if not dirtied.allowed():
        raise Skip(_WRITES_NOTHING.format(device.model.name))
    await device.ring.do(*requests)
    return dirtied


async def marks_request(device: Device, log: DirtyLog, number: int = 0) -> None:
    """Have a request done: what it wrote to buffers is marked, and to the used ring if that is logged.

    Raises:
        Failure: something is not marked.
        Skip: it is not known how this device is brought to write anything.
    """
    request, ring = device.request(number), device.ring
    dirtied = Dirtied(device.memory, [request])
    await ring.do(request)
    written = dirtied.pages()
    if ring.log_addr is not None and not ring.packed:
        written.add(ring.log_addr // LOG_PAGE)
    if not written:
        raise Skip(_WRITES_NOTHING.format(device.model.name))
    unmarked(log, written)


def at_home(ring: TestRing) -> int:
    """The used ring's own guest address, for ``used_at``."""
    return int(ring.device.addr)


def unmarked(log: DirtyLog, written: set[int], what: str = "written to") -> None:
    """Every page of ``written`` is marked.

    Raises:
        Failure: one is not.
    """
    if missing := written - log.pages():
        raise Failure(
            f"pages {hexadecimal(missing)} were {what}, and are not marked; marked are {hexadecimal(log.pages())}"
        )


def hexadecimal(pages: Iterable[int]) -> str:
    """Page numbers for people, not more than a few."""
    found = sorted(pages)
    shown = ", ".join(hex(page) for page in found[:8])
    return (shown or "none") + (f" and {len(found) - 8} more" if len(found) > 8 else "")
