"""Postcopy migration as the destination's front-end plays it: the back-end's userfaultfd, and the pages it misses.

A page of shared memory that nobody has touched is a hole; when the back-end touches it, its thread stops, and the
userfaultfd tells the address in the back-end's own address space.  The front-end puts the page there, and the thread
goes on.  Looking at a hole fills it, with zeros: so nobody may look at what was made one before the device has.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from frontend.conformance.bring_up import basic
from frontend.conformance.memory import PAGE
from frontend.conformance.session import DEFAULT_PROTOCOL, PLAIN, Closed
from vhostuser.conformance import CaseError, Failure, Unsupported
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import PostcopyAdvise, PostcopyEnd, PostcopyListen, SetMemTable
from vhostuser.wire.records import U64, MemoryRegion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session
    from vhostuser.fd import Fd

PAGEFAULT = ProtocolFeature.PAGEFAULT
PROTOCOL = DEFAULT_PROTOCOL | PAGEFAULT
NAME = "anon_inode:[userfaultfd]"
"""What the system calls such a descriptor."""
SILENCE = 0.05
"""Seconds in which a fault would show."""

_UFFDIO_COPY, _UFFDIO_WAKE = 0xC028_AA03, 0x8010_AA02
_COPY = struct.Struct("=QQQQq")
"""To, from, bytes, mode; how many were copied."""
_RANGE = struct.Struct("=QQ")
_EVENT = struct.Struct("=B7xQQI4x")
"""What, flags, address, thread."""
_PAGE_FAULT = 0x12


class Faults:
    """A back-end's userfaultfd in our hands.

    Args:
        fd: owned from now on.
    """

    def __init__(self, fd: Fd) -> None:
        self._fd = fd
        os.set_blocking(fd.fileno(), False)

    async def next(self) -> int:
        """The address of the next page that the back-end waits for."""
        while True:
            try:
                event, _flags, address, _thread = _EVENT.unpack(os.read(self._fd.fileno(), _EVENT.size))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._fd.fileno())
                continue
            if event == _PAGE_FAULT:
                return int(address) // PAGE * PAGE

    async def none(self) -> bool:
        """No page is waited for."""
        with trio.move_on_after(SILENCE):
            await self.next()
            return False
        return True

    def provide(self, address: int, page: bytes) -> None:
        """Put a page where the back-end waits for it."""
        source = ctypes.create_string_buffer(page, PAGE)
        copy = _COPY.pack(address, ctypes.addressof(source), PAGE, 0, 0)
        try:
            fcntl.ioctl(self._fd.fileno(), _UFFDIO_COPY, copy)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise Failure(f"a page cannot be put at {address:#x}: {error.strerror}") from None
            fcntl.ioctl(self._fd.fileno(), _UFFDIO_WAKE, _RANGE.pack(address, PAGE))

    def close(self) -> None:
        """Close it."""
        self._fd.close()


async def with_postcopy(peer: Peer, more: ProtocolFeature = PAGEFAULT) -> Session:
    """A new connection that may begin postcopy, with no memory told."""
    return await peer.negotiated(basic(peer), PROTOCOL | more)


async def advise(session: Session) -> Fd:
    """POSTCOPY_ADVISE; the userfaultfd, which the caller owns.

    Raises:
        Failure: the reply is another one.
        Unsupported: there is none with it; it may not be allowed here.
    """
    await session.send(PostcopyAdvise())
    answer = await session.receive(what="the reply to POSTCOPY_ADVISE")
    with answer.fds:
        if answer.request != PostcopyAdvise.spec.request or answer.payload:
            raise Failure(
                f"reply to POSTCOPY_ADVISE: found request {answer.request} with {len(answer.payload)} bytes, "
                f"expected {int(PostcopyAdvise.spec.request)} with none"
            )
        if not answer.fds:
            raise Unsupported("the back-end has sent no userfaultfd: it may not be allowed to make one here")
        if len(answer.fds) > 1:
            raise Failure(f"reply to POSTCOPY_ADVISE: found {len(answer.fds)} descriptors, expected one")
        return answer.fds[0].move()


@asynccontextmanager
async def listening(peer: Peer, more: ProtocolFeature = PAGEFAULT) -> AsyncIterator[tuple[Session, Faults]]:
    """A new connection after POSTCOPY_ADVISE and POSTCOPY_LISTEN; POSTCOPY_END comes at the end of the block."""
    session = await with_postcopy(peer, more)
    faults = Faults(await advise(session))
    try:
        await session.tell(PostcopyListen())
        yield session, faults
        await end(session)
    finally:
        faults.close()


async def end(session: Session) -> None:
    """POSTCOPY_END, if the back-end is still there: who forgets its userfaultfd otherwise is found out elsewhere."""
    with suppress(CaseError, Closed):
        if not session.closed:
            await session.ask(PostcopyEnd(), U64)


async def table_reply(session: Session, memory: SharedMemory) -> Sequence[MemoryRegion]:
    """SET_MEM_TABLE, and the regions in its reply: as they were told, with other user addresses.

    Raises:
        Failure: something else is different.
    """
    message = SetMemTable(memory.regions)
    await session.send(message, memory.fds())
    answer = await session.receive(what="the reply to SET_MEM_TABLE after POSTCOPY_LISTEN")
    answer.fds.close()
    if answer.request != SetMemTable.spec.request:
        raise Failure(f"reply to SET_MEM_TABLE: found request {answer.request}")
    if (found := len(answer.payload)) != (asked := len(message.build())):
        raise Failure(f"reply to SET_MEM_TABLE: found {found} bytes, expected {asked} as in the request")
    regions = answer.parse(SetMemTable).regions
    check_same(regions, memory.regions)
    return regions


def check_same(found: Sequence[MemoryRegion], told: Sequence[MemoryRegion]) -> None:
    """Guest addresses and sizes in a reply are those of the request.

    Raises:
        Failure: they are not.
    """
    for ours, theirs in zip(told, found, strict=True):
        if (theirs.guest_addr, theirs.size) != (ours.guest_addr, ours.size):
            raise Failure(
                f"region in the reply: found {theirs.guest_addr:#x}+{theirs.size:#x}, "
                f"expected {ours.guest_addr:#x}+{ours.size:#x} as in the request"
            )


async def acknowledge(session: Session, payload: bytes | None = None) -> None:
    """The front-end's acknowledgement of `table_reply`; the text has one without payload, QEMU sends a u64 of 0."""
    payload = U64(0).build() if payload is None else payload
    await session.send_raw(SetMemTable.spec.request, payload, flags=PLAIN)


@dataclass(frozen=True)
class Hole:
    """Pages of guest memory that are not there yet, and what is to be in them.

    Attributes:
        guest_addr: of the first.
        content: of all.
    """

    guest_addr: int
    content: bytes

    def page(self, guest_addr: int) -> bytes:
        """What belongs at a page's address; zeros where it is none of these."""
        start = guest_addr - self.guest_addr
        return self.content[start : start + PAGE].ljust(PAGE, b"\0") if 0 <= start < len(self.content) else bytes(PAGE)


def punch(memory: SharedMemory, start: int, end: int) -> Hole:
    """Make a hole of the whole pages from guest address ``start`` to ``end``, and keep what was in them."""
    first, last = start // PAGE * PAGE, -(-end // PAGE) * PAGE
    view = memory.view(first, last - first)
    content = bytes(view)
    region = next(each for each in memory.regions if each.guest_addr <= first < each.guest_addr + each.size)
    whole = view.obj
    assert isinstance(whole, mmap.mmap)
    whole.madvise(mmap.MADV_REMOVE, region.mmap_offset + first - region.guest_addr, last - first)
    return Hole(first, content)


async def serve(faults: Faults, regions: Sequence[MemoryRegion], hole: Hole, served: list[int]) -> None:
    """Bring the pages that the back-end waits for, until cancelled; their guest addresses go into ``served``.

    Raises:
        Failure: it waits for one at an address that is in no region it reported.
    """
    while True:
        address = await faults.next()
        region = next((each for each in regions if 0 <= address - each.user_addr < each.size), None)
        if region is None:
            faults.provide(address, bytes(PAGE))
            known = ", ".join(f"{each.user_addr:#x}+{each.size:#x}" for each in regions)
            raise Failure(f"fault at {address:#x}, expected one in a region that the back-end reported: {known}")
        served.append(region.guest_addr + address - region.user_addr)
        faults.provide(address, hole.page(served[-1]))
