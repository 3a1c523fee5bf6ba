"""`Peer`: what a case is given, the back-end under test with everything that can be done to it."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from frontend.conformance.channel import BackendChannel, channel_pair
from frontend.conformance.memory import SharedMemory
from frontend.conformance.model import Model, Request, model_of
from frontend.conformance.ring import TestRing
from frontend.conformance.session import Closed, Outcome, Session
from vhostuser.conformance import Failure, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names
from vhostuser.wire.frontend_messages import GetFeatures, SetBackendReqFd
from vhostuser.wire.records import U64

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from frontend.conformance.log import Recorder
    from frontend.conformance.profile import Profile
    from frontend.guest.memory import Buffer
    from vhostuser.conformance.target import Target

__all__ = ["Closed", "Device", "Outcome", "Peer"]

BASIC = VirtioFeature.VERSION_1 | VirtioFeature.PROTOCOL_FEATURES

AGAIN = 0.005
"""Seconds between two attempts to be served."""


@dataclass(eq=False)
class Device:
    """A device that is up.

    Attributes:
        session: the connection.
        memory: the guest's.
        rings: those that run, by index.
        model: what a request is.
        room: where long requests put their data, once there are any.
    """

    session: Session
    memory: SharedMemory
    rings: Sequence[TestRing]
    model: Model
    room: Buffer | None = None

    @property
    def ring(self) -> TestRing:
        """The one that requests go to."""
        return self.rings[self.model.queue]

    @property
    def other(self) -> TestRing:
        """One that they do not go to; there must be two."""
        return self.rings[0 if self.model.queue else 1]

    def request(self, number: int = 0) -> Request:
        """A request that this device completes."""
        return self.model.request(self.memory, number)

    async def works(self, count: int = 1) -> None:
        """``count`` requests are done, and done right; the session is in sync."""
        for number in range(count):
            await self.ring.do(self.request(number))


class Peer:
    """The back-end under test, for one case.

    Args:
        target: the program.
        profile: what it offers.
        recorder: gets the log.
        variant: of the case: "packed" makes `device` negotiate packed rings.
        patience: seconds to wait for an answer.

    Attributes:
        notes: what the case wants to tell.
    """

    def __init__(
        self, target: Target, profile: Profile, recorder: Recorder, *, variant: str = "", patience: float = 2.0
    ) -> None:
        self.target, self.profile, self.recorder = target, profile, recorder
        self.variant, self.patience = variant, patience
        self.model = model_of(profile.device_type)
        self.notes: list[str] = []
        self._connections = ExitStack()
        self._owned = ExitStack()

    # --- what there is ---

    def note(self, text: str) -> None:
        """Tell something with the result, whatever the verdict."""
        if text not in self.notes:
            self.notes.append(text)

    def need(self, *features: VirtioFeature | ProtocolFeature) -> None:
        """Go on only if the target offers these.

        Raises:
            Skip: with the names of those that are missing.
        """
        for each in features:
            if not self.profile.offers(each):
                raise Skip(f"{', '.join(names(each, type(each)))} is not offered")

    # --- connections ---

    async def connect(self) -> Session:
        """A new connection on which nothing has been said; closed at the end of the case."""
        session = Session(await self.target.dial(), self.recorder, patience=self.patience)
        return self._connections.enter_context(session)

    async def negotiated(
        self, virtio: int | None = None, protocol: ProtocolFeature | None = None, *, without: int = 0
    ) -> Session:
        """A new connection with features negotiated, see `Session.negotiate`."""
        session = await self.served()
        await session.negotiate(virtio, protocol, without=without)
        return session

    async def served(self) -> Session:
        """A new connection on which GET_FEATURES has been answered.

        A program that serves one front-end at a time may turn the next one away until it has noticed that the last
        one left; it gets `patience` for that.

        Raises:
            Closed: it turned everybody away.
        """
        end = None
        while True:
            session = await self.connect()
            try:
                session.offered = (await session.ask(GetFeatures(), U64)).value
                return session
            except Closed:
                end = trio.current_time() + self.patience if end is None else end
                if trio.current_time() > end:
                    raise
            session.close()
            await trio.sleep(AGAIN)

    async def channel(self, session: Session) -> BackendChannel:
        """A back-end channel for ``session``, which has to be accepted; closed at the end of the case."""
        ours, theirs = channel_pair(self.recorder, patience=self.patience)
        self._connections.callback(ours.close)
        await session.tell(SetBackendReqFd(), theirs)
        return ours

    async def alive(self) -> None:
        """A new connection is served: the program has survived, or can be started again after an orderly end.

        Every other connection of this case is closed first, since many programs serve one at a time.

        Raises:
            Failure: it was killed by a signal, or nobody answers.
            Wedged: it accepts, and does not answer.
        """
        self.hang_up()
        status = self.target.exited()
        if status is not None and status < 0:
            raise Failure(f"the back-end was killed by signal {-status}")
        if status:
            self.note(f"the program ended with status {status} after the connection")
        await self.served()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection of this case."""
        self._connections.close()

    def close(self) -> None:
        """Close the connections, and whatever else this case has opened: the end of it."""
        self._connections.close()
        self._owned.close()

    # --- a device that works ---

    def memory(self, *spans: object, **options: object) -> SharedMemory:
        """Guest memory as `SharedMemory`, closed at the end of the case."""
        return self._owned.enter_context(SharedMemory(*spans, **options))  # type: ignore[arg-type]

    def rings(
        self, session: Session, memory: SharedMemory, *, count: int | None = None, size: int = 64
    ) -> list[TestRing]:
        """Rings that are not started: as many as a request needs, or ``count``."""
        made = range(self.model.queues if count is None else count)
        return [self.ring(session, memory, index, size=size) for index in made]

    def ring(
        self,
        session: Session,
        memory: SharedMemory,
        index: int,
        *,
        size: int = 64,
        base: int | None = None,
        without: int = 0,
    ) -> TestRing:
        """One ring that is not started; ``without`` are features that it is driven without."""
        ring = TestRing(memory, index, size=size, features=session.features & ~without, base=base)
        self._owned.callback(ring.close)
        return ring

    @asynccontextmanager
    async def device(
        self,
        *,
        virtio: int = 0,
        protocol: ProtocolFeature | None = None,
        without: int = 0,
        memory: SharedMemory | None = None,
        rings: int | None = None,
        size: int = 64,
    ) -> AsyncIterator[Device]:
        """A device that is up: negotiated, memory shared, rings started.

        Args:
            virtio: feature bits to use besides VERSION_1, bit 30 and, in the variant "packed", RING_PACKED; those
                not offered are left out: ask with `need` first.
            protocol: protocol features, see `Session.negotiate`.
            without: feature bits not to use.
            memory: the guest's memory; by default a fresh one.
            rings: how many; by default as many as a request needs.
            size: entries of each.
        """
        packed = VirtioFeature.RING_PACKED if self.variant == "packed" else 0
        session = await self.negotiated(BASIC | packed | virtio, protocol, without=without)
        memory = memory if memory is not None else self.memory()
        await memory.share(session)
        made = self.rings(session, memory, count=rings, size=size)
        for ring in made:
            await ring.start(session)
        yield Device(session, memory, made, self.model)
        memory.check()

    # --- hostile messages ---

    async def survives(
        self,
        provoke: Callable[[Session], Awaitable[None]],
        request: int,
        *,
        need_reply: Sequence[bool] = (False, True),
        may_accept: bool = True,
        prepare: Callable[[Session], Awaitable[None]] | None = None,
        protocol: ProtocolFeature | None = None,
    ) -> Verdict | None:
        """SAFE: whatever ``provoke`` does, the back-end refuses it, closes, or ignores it, and lives.

        It is done once without and, where REPLY_ACK is offered, once with need_reply: `asking` tells ``provoke``
        which.

        Args:
            provoke: sends the message, with ``need_reply=self.asking`` where it can.
            request: its number.
            need_reply: which of the two to try.
            may_accept: an acknowledgement with 0 is fine too.
            prepare: what comes before on the fresh, negotiated connection.
            protocol: features to negotiate, see `Session.negotiate`.

        Returns:
            REJECT when the connection was closed every time, else None.

        Raises:
            Failure: it was accepted and must not be, or the program died.
        """
        outcomes = []
        for self.asking in need_reply:
            session = await self.negotiated(protocol=protocol)
            if self.asking and not session.acks:
                continue
            try:
                if prepare is not None:
                    await prepare(session)
                await provoke(session)
                outcome = await session.outcome(request)
            except Closed:
                outcome = Outcome.CLOSED
            outcomes.append(outcome)
            self.note(f"{'with' if self.asking else 'without'} need_reply: {outcome.value}")
            if outcome is Outcome.ACK and not may_accept:
                raise Failure(f"request {request} was acknowledged with 0, expected a refusal")
            await self.alive()
        return Verdict.REJECT if outcomes and all(each is Outcome.CLOSED for each in outcomes) else None

    asking = False
    """Set by `survives`: whether this time an acknowledgement is to be asked for."""
