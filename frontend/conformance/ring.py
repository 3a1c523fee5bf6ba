"""A ring that we drive against the back-end under test, step by step.

It uses the same `DriverQueue` as everybody else for what is well-behaved; a hostile case writes into `descriptor`,
`driver` and `device` with its own hands.  Waiting is by looking at the ring, never by trusting the call descriptor:
whether that was signalled is a question of its own (`called`).
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import trio

from vhostuser.conformance import Failure, Wedged
from vhostuser.fd import Fds
from vhostuser.transport.notifier import NotifierKind, PeerClosed, event_pair
from vhostuser.virtqueue.indirect import IndirectTables
from vhostuser.virtqueue.queue import BrokenQueue, RingLayout, Segment, initial_base, open_driver_queue
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetVringBase,
    SetVringAddr,
    SetVringBase,
    SetVringCall,
    SetVringEnable,
    SetVringErr,
    SetVringKick,
    SetVringNum,
)
from vhostuser.wire.records import VringAddrFlags, VringState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.model import Request
    from frontend.conformance.session import Session
    from vhostuser.virtqueue.queue import DriverQueue

LOOK_AGAIN = 0.0005
"""Seconds between two looks at a ring."""
HUNG_UP_EVERY = 64
"""Looks at a ring after which it is worth asking whether anybody is there at all."""
TABLE_ENTRIES = 8


class TestRing:
    """The driver's side of one ring, in the guest's memory.

    Args:
        memory: where its parts are put, each on pages of its own.
        index: its number.
        size: entries.
        features: what was negotiated; RING_PACKED decides the format, INDIRECT_DESC gives it tables.
        base: where it begins; by default where a new ring begins.
        region: of the memory, for its parts.
        patience: seconds to wait for a completion.

    Attributes:
        descriptor: descriptor table, or descriptor ring.
        driver: available ring, or the driver's event suppression.
        device: used ring, or the device's event suppression.
        log_addr: guest address that writes to `device` are logged at, from the next SET_VRING_ADDR on; None: nowhere.
        queue: what writes them; None once a case has taken over (`take_over`).
    """

    __test__ = False  # not a pytest class

    def __init__(
        self,
        memory: SharedMemory,
        index: int = 0,
        *,
        size: int = 64,
        features: int = 0,
        base: int | None = None,
        region: int = 0,
        patience: float = 3.0,
    ) -> None:
        self.memory, self.index, self.size, self.features, self.patience = memory, index, size, features, patience
        self.packed = bool(features & VirtioFeature.RING_PACKED)
        self.log_addr: int | None = None
        self.base = initial_base(features) if base is None else base
        sizes = RingLayout.sizes(size, features | VirtioFeature.EVENT_IDX)
        self.descriptor = memory.buffer(sizes.descriptor, align=4096, region=region)
        self.driver = memory.buffer(sizes.driver, align=4096, region=region)
        self.device = memory.buffer(sizes.device, align=4096, region=region)
        self._tables = self._make_tables(region)
        self.queue: DriverQueue[Request] = self._open()
        self._session: Session | None = None
        self.kick, self._kick_end = event_pair()
        self._call_end, self.call = event_pair()
        self._err_end, self.err = event_pair()

    def _make_tables(self, region: int) -> IndirectTables | None:
        if not self.features & VirtioFeature.INDIRECT_DESC:
            return None
        entries = min(TABLE_ENTRIES, self.size)
        room = self.memory.buffer(IndirectTables.size(self.size, entries), region=region)
        return IndirectTables(room.view, room.addr, entries)

    def _open(self) -> DriverQueue[Any]:
        return open_driver_queue(
            self.layout, self.features, indirect=self._tables, base=self.base, queue_index=self.index
        )

    def reset(self, base: int | None = None) -> None:
        """Begin anew in the same place, with nothing in the ring; the back-end must not be running it."""
        self.base = initial_base(self.features) if base is None else base
        self.queue = self._open()

    @property
    def layout(self) -> RingLayout:
        """The three parts."""
        return RingLayout(self.size, self.descriptor.view, self.driver.view, self.device.view)

    # --- telling the back-end ---

    async def configure(self, session: Session) -> None:
        """NUM, BASE, ADDR, CALL, ERR: everything but the start; each has to be accepted."""
        await self.lay_out(session)
        await self.send_call(session)
        await session.tell(SetVringErr.of(self.index), self.err_fds())

    async def lay_out(self, session: Session) -> None:
        """NUM, BASE and ADDR, without a descriptor."""
        self._session = session
        await session.tell(SetVringNum(self.index, self.size))
        await session.tell(SetVringBase(self.index, self.base))
        await session.tell(self.addresses())

    def kick_fds(self) -> Fds:
        """What goes with SET_VRING_KICK; the caller owns it."""
        return Fds.of(self._kick_end.duplicate())

    def call_fds(self) -> Fds:
        """What goes with SET_VRING_CALL; the caller owns it."""
        return Fds.of(self._call_end.duplicate())

    def err_fds(self) -> Fds:
        """What goes with SET_VRING_ERR; the caller owns it."""
        return Fds.of(self._err_end.duplicate())

    def addresses(self, flags: int = 0, log: int = 0) -> SetVringAddr:
        """SET_VRING_ADDR for this ring."""
        if self.log_addr is not None:
            flags, log = flags | VringAddrFlags.LOG, self.log_addr
        return SetVringAddr(
            self.index,
            VringAddrFlags(flags),
            self.descriptor.user_addr,
            self.device.user_addr,
            self.driver.user_addr,
            log,
        )

    async def send_call(self, session: Session) -> None:
        """SET_VRING_CALL with this ring's call descriptor."""
        await session.tell(SetVringCall.of(self.index), self.call_fds())

    async def send_kick(self, session: Session) -> None:
        """SET_VRING_KICK with this ring's kick descriptor: starts the ring."""
        await session.tell(SetVringKick.of(self.index), self.kick_fds())

    async def enable(self, session: Session, on: bool = True) -> None:
        """SET_VRING_ENABLE, if PROTOCOL_FEATURES was negotiated; without, rings are always enabled."""
        if session.features & VirtioFeature.PROTOCOL_FEATURES:
            await session.tell(SetVringEnable(self.index, int(on)))

    async def start(self, session: Session) -> None:
        """Configure, start and enable the ring, and kick it once, for back-ends older than 11.1's text.

        When this returns the ring is enabled: a kick that overtakes SET_VRING_ENABLE is B-STA-08's question alone.
        """
        await self.configure(session)
        await self.send_kick(session)
        await self.enable(session)
        if not session.acks:
            await session.in_sync()
        self.notify()

    async def stop(self, session: Session) -> int:
        """GET_VRING_BASE: stops the ring; where it stands."""
        state = await session.ask(GetVringBase(self.index), VringState)
        if state.index != self.index:
            raise Failure(f"GET_VRING_BASE of ring {self.index} was answered for ring {state.index}")
        return state.num

    def renew_kick(self, kind: NotifierKind | None = None) -> None:
        """A new kick descriptor, eventfd or pipe, instead of the old one, of which our ends are closed."""
        self.kick.close()
        self._kick_end.close()
        self.kick, self._kick_end = event_pair(kind)

    def renew_call(self, kind: NotifierKind | None = None) -> None:
        """A new call descriptor likewise."""
        self.call.close()
        self._call_end.close()
        self._call_end, self.call = event_pair(kind)

    # --- requests ---

    def add(self, request: Request) -> None:
        """Put a request into the ring; the device may not see it before `publish`."""
        readable = [Segment(each.addr, len(each)) for each in request.readable]
        writable = [Segment(each.addr, len(each)) for each in request.writable]
        self.queue.add(readable, writable, request)

    def publish(self, *, kick: bool | None = None) -> bool:
        """Make what was added visible, and kick.

        Args:
            kick: whether to; None for "if the device wants it".

        Returns:
            True when the device wanted a kick.
        """
        wanted = self.queue.publish()
        if wanted if kick is None else kick:
            self.notify()
        return wanted

    def notify(self) -> None:
        """Kick."""
        with contextlib.suppress(PeerClosed):  # nobody listens: what follows will show it
            self.kick.notify()

    def reap(self) -> list[tuple[Request, int]]:
        """What the device has given back by now, with used lengths.

        Raises:
            Failure: the device broke the ring.
        """
        try:
            return [(used.token, used.length) for used in self.queue.reap(self.size)]
        except BrokenQueue as error:
            raise Failure(f"the back-end broke the ring: {error}") from None

    async def finish(self, count: int | None = None, *, within: float | None = None) -> list[tuple[Request, int]]:
        """Wait until ``count`` requests are done, by default all that are out; in the order of completion.

        Raises:
            Wedged: they are not in time.
            Closed: the back-end hung up instead.
            Failure: the device broke the ring.
        """
        count = self.queue.outstanding if count is None else count
        done: list[tuple[Request, int]] = []
        patience = self.patience if within is None else within
        with trio.move_on_after(patience):
            for look in itertools.count(1):
                done += self.reap()
                if len(done) >= count:
                    return done
                self._still_there(look)
                await trio.sleep(LOOK_AGAIN)
        raise Wedged(f"ring {self.index}: {len(done)} of {count} requests were done within {patience:g} s")

    def _still_there(self, look: int) -> None:
        if look % HUNG_UP_EVERY == 0 and self._session is not None and not self._session.closed:
            self._session.check_open()

    async def until(self, condition: Callable[[], object], otherwise: str) -> None:
        """Wait until a look at memory finds what is waited for.

        Raises:
            Wedged: it does not in time; says ``otherwise``.
            Closed: the back-end hung up instead.
        """
        with trio.move_on_after(self.patience):
            for look in itertools.count(1):
                if condition():
                    return
                self._still_there(look)
                await trio.sleep(LOOK_AGAIN)
        raise Wedged(f"ring {self.index}: {otherwise} within {self.patience:g} s")

    async def do(self, *requests: Request, kick: bool | None = None) -> None:
        """Have requests done, one batch, and check each answer and the canaries."""
        for request in requests:
            self.add(request)
        self.publish(kick=kick)
        for request, used in await self.finish(len(requests)):
            request.check(used)
        self.memory.check()

    async def stays_idle(self, seconds: float) -> None:
        """Watch that nothing comes back.

        Raises:
            Failure: something did.
        """
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            if done := self.reap():
                raise Failure(f"ring {self.index}: {len(done)} requests were done, expected none")
            await trio.sleep(LOOK_AGAIN)

    # --- notifications ---

    async def called(self, within: float) -> bool:
        """Wait for the call descriptor; True when it was signalled, and it is not any more then."""
        return await _signalled(self.call, within)

    async def errored(self, within: float) -> bool:
        """The same for the err descriptor."""
        return await _signalled(self.err, within)

    def drain_call(self) -> bool:
        """Forget signals so far; True if there were any."""
        return self.call.drain()

    def close(self) -> None:
        """Close the descriptors."""
        for end in (self.kick, self._kick_end, self._call_end, self.call, self._err_end, self.err):
            end.close()


async def _signalled(end: Any, within: float) -> bool:
    with trio.move_on_after(within):
        try:
            await end.wait()
        except trio.EndOfChannel:
            return False
        return True
    return False


async def restart(session: Session, rings: Iterable[TestRing]) -> None:
    """Stop rings and start them again where they stopped, with all their descriptors."""
    for ring in rings:
        ring.base = await ring.stop(session)
        await ring.start(session)
