"""A device behind an IOMMU: three kinds of addresses that have nothing to do with each other, and who translates.

Rings and descriptors name I/O virtual addresses.  IOTLB entries lead from those to user addresses, and regions from
there into memory; a region's guest address is not used at all.  Here no two of the three are ever the same number.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from frontend.conformance.bring_up import basic
from frontend.conformance.load import start
from frontend.conformance.logged import POISON
from frontend.conformance.memory import PAGE, SharedMemory, Span
from frontend.conformance.peer import Device
from frontend.conformance.placing import exchanged, largest
from frontend.conformance.session import DEFAULT_PROTOCOL
from frontend.guest.memory import Buffer
from vhostuser.conformance import Failure, Need, Wedged
from vhostuser.memory.map import GuestAddr
from vhostuser.wire.backend_messages import BackendIotlbMsg
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import IotlbMsg, SetMemTable
from vhostuser.wire.records import IotlbPermission, IotlbType, MemoryRegion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from frontend.conformance.channel import BackendChannel
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Answer, Session

ACCESS_PLATFORM = VirtioFeature.ACCESS_PLATFORM
NEEDS = (ACCESS_PLATFORM, ProtocolFeature.BACKEND_REQ, Need.CHANNEL)
"""What the cases of this group need."""
TRANSLATING = DEFAULT_PROTOCOL | ProtocolFeature.BACKEND_REQ
BOTH = IotlbPermission.READ | IotlbPermission.WRITE
SHIFT = 64 << 20
"""From an I/O virtual address of `IommuMemory` to the guest address that the back-end is told."""
WINDOW = 0x4000_0000
"""An I/O virtual address that leads nowhere until an entry says otherwise."""
LOOK_AGAIN = 0.0005


class IommuMemory(SharedMemory):
    """Guest memory whose addresses here are I/O virtual; the second region is only reached through `WINDOW`.

    Args:
        gpa: user addresses are guest addresses, as GPA_ADDRESSES has it.
    """

    def __init__(self, *, gpa: bool = False) -> None:
        super().__init__(
            Span(0x10_0000, 4 << 20, offset=PAGE, behind=PAGE), Span(0x80_0000, 16 * PAGE, offset=PAGE, behind=PAGE)
        )
        self.told = tuple(
            MemoryRegion(each.guest_addr + SHIFT, each.size, each.guest_addr + SHIFT, each.mmap_offset)
            if gpa
            else MemoryRegion(each.guest_addr + SHIFT, each.size, each.user_addr, each.mmap_offset)
            for each in self.regions
        )

    def user_addr(self, addr: int) -> int:
        """What SET_VRING_ADDR says of an address: the same, for ring addresses are I/O virtual too."""
        return addr

    async def share(self, session: Session) -> None:
        """SET_MEM_TABLE with guest addresses that nobody uses."""
        await session.tell(SetMemTable(self.told), self.fds())

    def entry(self) -> IotlbMsg:
        """The update that makes the whole first region reachable."""
        return IotlbMsg(self.regions[0].guest_addr, self.told[0].size, self.told[0].user_addr, BOTH, IotlbType.UPDATE)

    def page(self, number: int) -> memoryview:
        """A page of the second region."""
        return self.view(self.regions[1].guest_addr + number * PAGE, PAGE)

    def window(self, number: int, permission: IotlbPermission = BOTH) -> IotlbMsg:
        """The update by which `WINDOW` shows that page."""
        return IotlbMsg(WINDOW, PAGE, self.told[1].user_addr + number * PAGE, permission, IotlbType.UPDATE)


INVALIDATE = IotlbMsg(WINDOW, PAGE, 0, IotlbPermission(0), IotlbType.INVALIDATE)


@asynccontextmanager
async def translated(
    peer: Peer, *, virtio: int = 0, protocol: ProtocolFeature = TRANSLATING, gpa: bool = False
) -> AsyncIterator[Translated]:
    """A device behind an IOMMU, with a back-end channel and memory; its rings are not started yet."""
    session = await peer.negotiated(basic(peer) | ACCESS_PLATFORM | virtio, protocol)
    channel = await peer.channel(session)
    with IommuMemory(gpa=gpa) as memory:
        await memory.share(session)
        device = Device(session, memory, peer.rings(session, memory), peer.model)
        yield Translated(device, memory, channel)
        memory.check()


class Translated:
    """A device behind an IOMMU, and we in the IOMMU's place.

    Args:
        device: its rings are not started yet.
        memory: its memory.
        channel: where it asks.

    Attributes:
        device: the same.
        memory: the same.
        channel: the same.
        misses: what it has asked for.
        others: what it has said besides, as accesses that failed.
    """

    def __init__(self, device: Device, memory: IommuMemory, channel: BackendChannel) -> None:
        self.device, self.memory, self.channel = device, memory, channel
        self.misses: list[BackendIotlbMsg] = []
        self.others: list[BackendIotlbMsg] = []
        self._entries = [memory.entry()]

    async def start(self) -> None:
        """Tell of the first region, as QEMU tells of used rings, and start the rings."""
        await self.tell(self._entries[0])
        await start(self.device)

    async def tell(self, entry: IotlbMsg) -> None:
        """IOTLB_MSG, which has to be answered with 0.

        Raises:
            Failure: it is not.
        """
        session = self.device.session
        await session.send(entry, need_reply=session.acks)
        answer = await session.answer(IotlbMsg.spec.request)
        answer.fds.close()
        if answer.value != 0:
            raise Failure(
                f"IOTLB_MSG was answered with {answer.payload.hex() or 'nothing'}, expected a u64 of 0: {entry}"
            )

    def add(self, entry: IotlbMsg) -> None:
        """Keep an entry for when it is asked for."""
        self._entries.append(entry)

    async def miss(self) -> tuple[BackendIotlbMsg, Answer]:
        """The next request on the channel, which has to be a miss; it is not answered.

        Raises:
            Failure: it is none.
            Wedged: nothing came.
        """
        message, request = await self.channel.expect(BackendIotlbMsg)
        if message.type != IotlbType.MISS:
            raise Failure(f"BACKEND_IOTLB_MSG: found type {message.type}, expected 1, a miss")
        self.misses.append(message)
        return message, request

    async def answer(self, miss: BackendIotlbMsg, request: Answer) -> None:
        """Send the entries that a miss is about, wait until they are taken, and only then answer it, as QEMU does."""
        for entry in self._entries:
            if entry.iova <= miss.iova < entry.iova + entry.size:
                await self.tell(entry)
        await self.channel.reply(request)

    async def do(self, *requests: Request) -> None:
        """Have requests done, answering what is asked meanwhile, and check each.

        Raises:
            Wedged: they are not in time.
        """
        ring = self.device.ring
        for request in requests:
            ring.add(request)
        ring.publish(kick=True)
        done: list[tuple[Request, int]] = []

        def all_done() -> bool:
            done.extend(ring.reap())
            return len(done) >= len(requests)

        await self.until(all_done, "requests behind an IOMMU")
        for request, used in done:
            request.check(used)

    def touch(self) -> Request:
        """Put a request with a buffer at `WINDOW` into the ring, to be answered from the first page, and kick."""
        request = through_window(self.device.request(), self.memory.page(0))
        self.device.ring.add(request)
        self.device.ring.publish(kick=True)
        return request

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Answer what is asked until ``condition`` holds.

        Raises:
            Wedged: it does not in time.
        """
        patience = self.device.ring.patience
        with trio.move_on_after(patience):
            while not condition():
                with trio.move_on_after(LOOK_AGAIN) as nothing_yet:
                    await trio.lowlevel.wait_readable(self.channel.fileno())
                if not nothing_yet.cancelled_caught:
                    await self._serve()
                self.device.session.check_open()
            return
        raise Wedged(f"{what}: not done within {patience:g} s; {len(self.misses)} misses were answered")

    async def _serve(self) -> None:
        message, request = await self.channel.expect(BackendIotlbMsg)
        if message.type == IotlbType.MISS:
            self.misses.append(message)
            await self.answer(message, request)
        else:
            self.others.append(message)
            await self.channel.reply(request)


def through_window(request: Request, page: memoryview) -> Request:
    """The request with its largest buffer at `WINDOW`, behind which ``page`` is to be."""
    old = largest(request)
    page[: len(old)] = old.view

    def check(used: int) -> None:
        old.view[:] = page[: len(old)]
        request.check(used)

    return exchanged(request, Buffer(GuestAddr(WINDOW), 0, page[: len(old)]), check)


def poisoned(page: memoryview) -> bytes:
    """Fill a page with a pattern; what stands in it then."""
    page[:] = bytes([POISON]) * len(page)
    return bytes(page)
