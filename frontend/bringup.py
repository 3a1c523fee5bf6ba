"""From a socket to a device with running queues, and back: the order of messages, as a list one can read.

``negotiate``, ``share memory``, ``set up rings``, ``enable`` on the way up; ``disable``, ``take the position`` on the
way down.  The order is QEMU's, since back-ends have been tested with nothing else.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from frontend.background import background
from frontend.connection import BackendGone, Frontend
from frontend.guest.memory import GuestRam
from frontend.listener import BackendListener
from frontend.queue import Queue, QueueClosed
from vhostuser.errors import VhostUserError
from vhostuser.memory.backends import MemoryBackendShm
from vhostuser.transport.unix import connect
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names
from vhostuser.wire.records import MAX_REGIONS
from vhostuser.wire.virtio.ids import DeviceStatus

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Sequence

    from vhostuser.memory.backends import MemoryBackend
    from vhostuser.transport.channel import Channel, Observer
    from vhostuser.transport.notifier import NotifierKind

TRANSPORT_FEATURES = (
    VirtioFeature.VERSION_1 | VirtioFeature.INDIRECT_DESC | VirtioFeature.EVENT_IDX | VirtioFeature.PROTOCOL_FEATURES
)
PROTOCOL_FEATURES = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.BACKEND_REQ
    | ProtocolFeature.CONFIG
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.RESET_DEVICE
    | ProtocolFeature.STATUS
)
DRIVER = DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER | DeviceStatus.FEATURES_OK
DRIVER_OK = DRIVER | DeviceStatus.DRIVER_OK


class CannotResume(VhostUserError):
    """A device cannot go on from where it was, or is not in a state to be left there."""


class MissingFeature(VhostUserError):
    """The back-end does not offer something that this driver cannot do without."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a driver wants of a device.

    Attributes:
        wanted: device feature bits to use where they are offered.
        required: feature bits without which it is no use.
        config_size: bytes of configuration space to read; 0 for none.
        queues: number of queues wanted; fewer are used if the back-end has fewer.
        queue_size: entries of each.
        memory: where guest memory comes from.
        notifier: kind of kick and call; None for the system's best.
        virtio_features: transport and ring feature bits to use where they are offered.
        protocol_features: protocol features to use where they are offered.
    """

    wanted: int = 0
    required: int = VirtioFeature.VERSION_1
    config_size: int = 0
    queues: int = 1
    queue_size: int = 128
    memory: MemoryBackend = field(default_factory=lambda: default_memory(64 << 20))
    notifier: NotifierKind | None = None
    virtio_features: VirtioFeature = TRANSPORT_FEATURES
    protocol_features: ProtocolFeature = PROTOCOL_FEATURES


@dataclass(frozen=True, kw_only=True)
class RingPosition:
    """Where a ring stands, and where it lies: what another process needs to go on with it.

    Attributes:
        queue_size: its entries.
        base: its position, as GET_VRING_BASE tells it.
        descriptor: guest address of the descriptor table.
        driver: of the available ring.
        device: of the used ring.
    """

    queue_size: int
    base: int
    descriptor: int
    driver: int
    device: int

    @classmethod
    def of(cls, queue: Queue) -> RingPosition:
        """The position of a queue that is stopped, or not yet started."""
        return cls(
            queue_size=queue.queue_size,
            base=queue.base,
            descriptor=queue.desc_table.addr,
            driver=queue.avail_ring.addr,
            device=queue.used_ring.addr,
        )


def default_memory(size: int) -> MemoryBackend:
    """``size`` bytes of POSIX shared memory, which every system has."""
    return MemoryBackendShm(size=size)


class DeviceLink:
    """A device that is up: what was agreed, its memory and its queues.

    Attributes:
        frontend: for messages while the device runs.
        features: feature bits in force.
        config: configuration space, as last read.
        ram: guest memory.
        queues: running queues.
        suspended: they are stopped, see `suspend`.
    """

    def __init__(self, frontend: Frontend, plan: Plan, ram: GuestRam) -> None:
        self.frontend = frontend
        self.plan = plan
        self.ram = ram
        self.features = 0
        self.protocol_features = ProtocolFeature(0)
        self.config = b""
        self.config_changed = trio.Event()
        self.queues: Sequence[Queue] = ()
        self.suspended = False

    async def refresh_config(self) -> None:
        """Read configuration space again, and tell who waits for `config_changed`."""
        if self.plan.config_size and self.protocol_features & ProtocolFeature.CONFIG:
            self.config = await self.frontend.get_config(0, self.plan.config_size)
        changed, self.config_changed = self.config_changed, trio.Event()
        changed.set()

    def fail(self, error: VhostUserError) -> None:
        """The back-end is gone: nobody need wait for it."""
        for queue in self.queues:
            queue.fail(error)


@asynccontextmanager
async def bring_up(
    channel: Channel, plan: Plan, *, ram: GuestRam | None = None, positions: Sequence[RingPosition] = ()
) -> AsyncIterator[DeviceLink]:
    """Bring the device behind ``channel`` up, and down again at the end; owns ``channel``.

    Args:
        channel: leads to the back-end.
        plan: what is wanted of it.
        ram: guest memory that there is already, and that stays the caller's; without it, ``plan.memory`` is made for
            this device alone.
        positions: go on with these rings, which lie in ``ram`` and in which nothing is in flight, instead of
            beginning new ones.

    Raises:
        CannotResume: the rings would not be those of ``positions``.
        MissingFeature: the back-end lacks something the plan requires.
        BackendGone: the back-end hung up before or during bring-up.  Later, requests raise `QueueClosed`.
        RequestRefused: the back-end refused a step.
    """
    async with Frontend(channel) as frontend, background() as nursery:
        with nullcontext(ram) if ram is not None else GuestRam(plan.memory) as memory:
            link = DeviceLink(frontend, plan, memory)
            nursery.start_soon(_listen, link)
            try:
                await _negotiate(link, nursery)
                await _share_memory(link)
                await _start_rings(link, positions)
                for queue in link.queues:
                    nursery.start_soon(_run_queue, link, queue)
                yield link
                await _stop_rings(link)
            finally:
                for queue in link.queues:
                    queue.close()


async def _listen(link: DeviceLink) -> None:
    try:
        await link.frontend.run()
    except BackendGone as error:
        # Whoever waits for an answer or a request is told, there, so nothing needs to be raised here.
        link.fail(QueueClosed(str(error)))


async def _run_queue(link: DeviceLink, queue: Queue) -> None:
    try:
        await queue.run()
    except VhostUserError as error:
        # A device that breaks one of its rings needs a reset: nothing it does elsewhere can be trusted.
        link.fail(QueueClosed(str(error)))


# --- up ---


async def _negotiate(link: DeviceLink, nursery: trio.Nursery) -> None:
    frontend, plan = link.frontend, link.plan
    offered = await frontend.get_features()
    if missing := plan.required & ~offered:
        raise MissingFeature(f"the back-end does not offer {', '.join(names(missing, VirtioFeature))}")
    link.features = offered & (plan.wanted | plan.required | plan.virtio_features)
    if link.features & VirtioFeature.PROTOCOL_FEATURES:
        await _negotiate_protocol(link, nursery)
    await frontend.set_owner()
    if link.protocol_features & ProtocolFeature.STATUS:
        await frontend.set_status(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER)
    await frontend.set_features(link.features)
    if link.protocol_features & ProtocolFeature.STATUS:
        await frontend.set_status(DRIVER)
    await link.refresh_config()


async def _negotiate_protocol(link: DeviceLink, nursery: trio.Nursery) -> None:
    frontend = link.frontend
    offered = await frontend.get_protocol_features()
    link.protocol_features = offered & link.plan.protocol_features
    await frontend.set_protocol_features(link.protocol_features)
    if link.protocol_features & ProtocolFeature.BACKEND_REQ:
        listener, theirs = BackendListener.open(frontend.protocol.state, link.refresh_config)
        nursery.start_soon(listener.run)
        await frontend.set_backend_req_fd(theirs)


async def _share_memory(link: DeviceLink) -> None:
    frontend, ram = link.frontend, link.ram
    if len(ram.regions) <= MAX_REGIONS:
        await frontend.set_mem_table(ram.regions, ram.duplicate_fds())
        return
    with ram.duplicate_fds() as fds:
        for region, fd in zip(ram.regions, fds, strict=True):
            await frontend.add_mem_reg(region, fd.move())


async def _start_rings(link: DeviceLink, positions: Sequence[RingPosition]) -> None:
    available = link.plan.queues
    if link.protocol_features & ProtocolFeature.MQ:
        available = max(await link.frontend.get_queue_num(), 1)
    if positions:
        link.queues = _earlier_queues(link, positions, available)
    else:
        link.queues = [_queue(link, index, link.plan.queue_size) for index in range(min(link.plan.queues, available))]
    for queue in link.queues:
        await start_ring(link.frontend, queue)
    if link.features & VirtioFeature.PROTOCOL_FEATURES:
        for queue in link.queues:
            await link.frontend.set_vring_enable(queue.index, True)
    if link.protocol_features & ProtocolFeature.STATUS:
        await link.frontend.set_status(DRIVER_OK)


def _queue(link: DeviceLink, index: int, queue_size: int, base: int = 0) -> Queue:
    return Queue(index, link.ram, queue_size=queue_size, features=link.features, notifier=link.plan.notifier, base=base)


def _earlier_queues(link: DeviceLink, positions: Sequence[RingPosition], available: int) -> list[Queue]:
    if len(positions) > available:
        raise CannotResume(f"{len(positions)} rings are to go on, the back-end has {available}")
    queues = []
    try:
        for index, position in enumerate(positions):
            queues.append(_queue(link, index, position.queue_size, position.base))
            if (found := RingPosition.of(queues[-1])) != position:
                raise CannotResume(f"ring {index} lies elsewhere than before: {found}, expected {position}")
    except BaseException:
        for queue in queues:
            queue.close()
        raise
    return queues


async def start_ring(frontend: Frontend, queue: Queue) -> None:
    """Tell the back-end all about one ring, and start it."""
    index = queue.index
    await frontend.set_vring_num(index, queue.queue_size)
    await frontend.set_vring_base(index, queue.base)
    await frontend.set_vring_addr(
        index,
        descriptor=queue.desc_table.user_addr,
        available=queue.avail_ring.user_addr,
        used=queue.used_ring.user_addr,
    )
    await frontend.set_vring_call(index, queue.call_notifier.take_fd())
    await frontend.set_vring_kick(index, queue.kick_consumer.take_fd())
    # 11.1: SET_VRING_KICK starts the ring; older back-ends wait for the first kick, so there is one.
    queue.notify_device()


# --- down ---


async def suspend(link: DeviceLink) -> list[RingPosition]:
    """Stop the rings and leave the device as it is; from now on nobody writes to guest memory.

    This is how a state that another process goes on from begins: save the memory and the positions after it.  The link
    is of no more use than to be closed.

    Raises:
        CannotResume: requests are in flight.
        BackendGone: the back-end hung up.
    """
    busy = {queue.index: queue.outstanding for queue in link.queues if queue.outstanding}
    if busy:
        raise CannotResume(f"requests are in flight, {busy} by queue: wait for them first")
    link.suspended = True
    await _take_bases(link)
    return [RingPosition.of(queue) for queue in link.queues]


async def _take_bases(link: DeviceLink) -> None:
    for queue in link.queues:
        if link.features & VirtioFeature.PROTOCOL_FEATURES:
            await link.frontend.set_vring_enable(queue.index, False)
        queue.base = await link.frontend.get_vring_base(queue.index)


async def _stop_rings(link: DeviceLink) -> None:
    if link.suspended:
        return  # stopped already; and a reset would make the device forget what it is to go on with
    try:
        await _take_bases(link)
        if link.protocol_features & ProtocolFeature.STATUS:
            await link.frontend.set_status(0)
    except BackendGone:
        return  # nothing left to stop


# --- in one line ---


class Driver(Protocol):
    """What `open_device` needs a driver to be."""

    def __init__(self, link: DeviceLink) -> None: ...

    @classmethod
    def plan(cls, **options: Any) -> Plan:
        """What this driver wants of a device."""


D = TypeVar("D", bound=Driver)


@asynccontextmanager
async def open_device(
    path: str | os.PathLike[str],
    driver: type[D],
    *,
    retry_for: float = 5.0,
    observer: Observer | None = None,
    **options: Any,
) -> AsyncIterator[D]:
    """Connect to the back-end at ``path``, bring its device up, and drive it with ``driver``.

    Args:
        path: unix socket of a vhost-user back-end.
        driver: `BlkDriver`, `RngDriver`, or one of your own.
        retry_for: seconds to go on trying when nobody listens there yet.
        observer: sees each message that passes.
        options: passed to ``driver.plan``.
    """
    channel = await connect(path, retry_for=retry_for, observer=observer)
    async with bring_up(channel, driver.plan(**options)) as link:
        yield driver(link)
