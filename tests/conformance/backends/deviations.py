"""The back-ends beside this, each with one thing wrong: the case that is named has to find it.

Replies are built by hand where our own protocol would not let a wrong one pass.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from tests.conformance.backends.extended import Extended
from tests.conformance.backends.messages import Card, CardBackend, Disk, DiskBackend, Keys, KeysBackend
from tests.conformance.backends.missing import Missing
from tests.conformance.backends.stateful import Stateful, is_state
from tests.conformance.backends.talkative import Fickle, Talkative
from vhostuser.devices.rng import RngDevice
from vhostuser.errors import RemoteProtocolError
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.transport.unix import adopt_channel
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    CheckDeviceState,
    CloseCryptoSession,
    CreateCryptoSession,
    GetStatus,
    NetSetMtu,
    PostcopyAdvise,
    PostcopyEnd,
    PostcopyListen,
    ResetDevice,
    SetBackendReqFd,
    SetDeviceStateFd,
    SetMemTable,
    SetOwner,
    SetStatus,
    SetVringEnable,
    SetVringKick,
)
from vhostuser.wire.records import DEVICE_STATE_NO_FD, U64, CryptoSession
from vhostuser.wire.requests import BackendRequest, Header, HeaderFlags

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.backend.connection import Backend
    from vhostuser.wire.catalog import Message

PLAIN, REPLY = HeaderFlags.VERSION_1, HeaderFlags.VERSION_1 | HeaderFlags.REPLY
B = TypeVar("B", bound="type[Extended]")


@dataclass(frozen=True)
class Deviation:
    """Something wrong, the case that says so, and how to make one."""

    what: str
    case: str
    make: Callable[[], Backend]


DEVIATIONS: list[Deviation] = []


def deviates(case: str, device: type[Any] = RngDevice) -> Callable[[B], B]:
    """Declare a back-end for ``device`` that ``case`` has to find; its docstring says what is wrong with it."""

    def declare(backend: B) -> B:
        what = (backend.__doc__ or "").rstrip(".")
        DEVIATIONS.append(Deviation(what, case, lambda: backend(device())))
        return backend

    return declare


def frame(request: int, payload: bytes, flags: HeaderFlags = REPLY, fds: Fds = NO_FDS) -> Frame:
    """A message by hand."""
    return Frame(Header(request, flags, len(payload)), payload, fds)


class ByHand(Extended):
    """Answers by hand what `wrong` has an answer for."""

    def wrong(self, message: Message) -> Frame | None:
        """The wrong answer; None to go on as usual."""
        raise NotImplementedError

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        if (answer := self.wrong(message)) is not None:
            self.protocol.nack()
            return answer
        return await super()._act(message, received)


def number(message: Message, value: int, fds: Fds = NO_FDS) -> Frame:
    """A u64 in reply."""
    return frame(message.spec.request, U64(value).build(), fds=fds)


def a_pipe() -> Fds:
    """The read end of a pipe that nobody writes to."""
    read_end, write_end = os.pipe()
    os.close(write_end)
    return Fds.of(Fd(read_end))


# --- device state ---


@deviates("B-DS-02")
class FdAndBit(ByHand, Stateful):
    """Sends a descriptor, and says that there is none."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, DEVICE_STATE_NO_FD, a_pipe()) if isinstance(message, SetDeviceStateFd) else None


@deviates("B-DS-03")
class FdAndError(Stateful):
    """Sends a descriptor with every error."""

    async def _handle(self, received: Frame) -> Frame | None:
        answer = await super()._handle(received)
        if answer is not None and answer.payload[0] and answer.header.request == SetDeviceStateFd.spec.request:
            return frame(answer.header.request, answer.payload, fds=a_pipe())
        return answer


@deviates("B-DS-04")
class NoEnd(Stateful):
    """Saves, and keeps the pipe open."""

    async def _save(self, pipe: trio.lowlevel.FdStream, moved: trio.Event) -> None:
        await trio.sleep_forever()


@deviates("B-DS-05")
class AlwaysBad(ByHand, Stateful):
    """CHECK_DEVICE_STATE says 1 whatever happened."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 1) if isinstance(message, CheckDeviceState) else None


class AlwaysGood(ByHand, Stateful):
    """CHECK_DEVICE_STATE says 0 whatever happened."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 0) if isinstance(message, CheckDeviceState) else None


for _case in ("B-DS-08", "B-DS-09", "B-DS-11"):
    deviates(_case)(AlwaysGood)


@deviates("B-DS-06")
class KnowsNothing(Stateful):
    """Takes its own state for garbage."""

    async def _load(self, pipe: trio.lowlevel.FdStream, moved: trio.Event) -> None:
        await super()._load(pipe, moved)
        self._good = is_state(b"")


@deviates("B-DS-10")
class OneWay(Stateful):
    """Refuses to go on once its state was saved."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        if isinstance(message, SetVringKick) and self._moved is not None:
            return self.protocol.nack()
        return await super()._act(message, received)


@deviates("B-DS-12")
class InOneGo(Stateful):
    """Writes all of its state before it answers."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        answer = await super()._act(message, received)
        if isinstance(message, SetDeviceStateFd) and self._moved is not None:
            await self._moved.wait()
        return answer


@deviates("B-DS-13")
class AnyPhase(Stateful):
    """Accepts every direction and phase."""

    async def _handle(self, received: Frame) -> Frame | None:
        if received.header.request == SetDeviceStateFd.spec.request:
            return frame(received.header.request, U64(DEVICE_STATE_NO_FD).build())
        return await super()._handle(received)


# --- the back-end's channel ---


class Mumbling(Talkative):
    """Says something else than `Talkative` when a ring is enabled."""

    def words(self, index: int) -> Frame | None:
        """What it says."""
        raise NotImplementedError

    async def _offer(self, index: int) -> None:
        words = self.words(index)
        if self._talk is not None and words is not None:
            await self._talk.send(words)


def area(index: int, size: int, flags: HeaderFlags = PLAIN, fds: Fds = NO_FDS) -> Frame:
    """A host notifier by hand."""
    payload = b"".join(value.to_bytes(8, "little") for value in (index | 0x100 * (not fds), size, 0))
    return frame(BackendRequest.VRING_HOST_NOTIFIER_MSG, payload, flags, fds)


@deviates("B-CH-02", Fickle)
class NoVersion(Mumbling):
    """Its requests have version 2."""

    def words(self, index: int) -> Frame | None:
        return area(index, 0, HeaderFlags(2))


@deviates("B-CH-03", Fickle)
class OnTheWrongChannel(Talkative):
    """Asks on the main channel when it has no other."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        if isinstance(message, SetVringEnable) and self._talk is None:
            self.protocol.nack()
            return area(0, 0)
        return await super()._act(message, received)


@deviates("B-CH-04", Fickle)
class Unasked(Mumbling):
    """Offers a host notifier that nobody negotiated."""

    def words(self, index: int) -> Frame | None:
        return area(index, 0)


@deviates("B-CH-05", Fickle)
class Impatient(Mumbling):
    """Wants acknowledgements that were not negotiated."""

    def words(self, index: int) -> Frame | None:
        return area(index, 0, PLAIN | HeaderFlags.NEED_REPLY)


@deviates("B-CH-06", Fickle)
class Generous(Mumbling):
    """Sends descriptors that were not negotiated."""

    def words(self, index: int) -> Frame | None:
        return area(index, 4096, PLAIN, a_pipe())


@deviates("B-CH-08", Fickle)
class EasilyHurt(Talkative):
    """Hangs up when it is refused something."""

    async def _offer(self, index: int) -> None:
        assert self._talk is not None
        await self._talk.send(area(index, 0, PLAIN | HeaderFlags.NEED_REPLY))
        answer = await self._talk.receive()
        if any(answer.payload):
            raise RemoteProtocolError("found a refusal, expected gratitude")


@deviates("B-CH-09", Fickle)
class OneThingAtATime(Talkative):
    """Reads no message while it waits for an acknowledgement."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        answer = await super()._act(message, received)
        if isinstance(message, SetVringEnable) and self._talk is not None:
            await self._talk.send(area(message.index, 0, PLAIN | HeaderFlags.NEED_REPLY))
            with suppress(trio.EndOfChannel):
                await self._talk.receive()
        return answer

    async def _offer(self, index: int) -> None:
        await trio.lowlevel.checkpoint()


@deviates("B-CH-11", Fickle)
class Collector(Talkative):
    """Keeps every channel that it was ever given."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        if isinstance(message, SetBackendReqFd):
            self._nursery.start_soon(self._keep, received.fds[0].duplicate())
        return await super()._act(message, received)

    async def _keep(self, fd: Fd) -> None:
        async with adopt_channel(fd):
            await trio.sleep_forever()


@deviates("B-CH-15", Fickle)
class HalfAPage(Mumbling):
    """Its host notifiers are smaller than a page."""

    def words(self, index: int) -> Frame | None:
        return area(index, 2048, PLAIN, a_pipe())


# --- messages of one kind of device ---


@deviates("B-NET-02", Card)
class NoMtu(ByHand, CardBackend):
    """Refuses every MTU."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 1) if isinstance(message, NetSetMtu) else None


@deviates("B-NET-03", Card)
class AnyMtu(ByHand, CardBackend):
    """Takes every MTU."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 0) if isinstance(message, NetSetMtu) else None


@deviates("B-CRY-01", Keys)
class NoSession(KeysBackend):
    """Makes no session."""

    def _create(self, cipher: int) -> int:
        return -1


@deviates("B-CRY-02", Keys)
class AnySession(ByHand, KeysBackend):
    """Makes sessions for ciphers that do not exist."""

    def wrong(self, message: Message) -> Frame | None:
        if not isinstance(message, CreateCryptoSession):
            return None
        told = CryptoSession.parse(message.raw)
        return frame(message.spec.request, CryptoSession(told.op_code, told.parameters, 7).build())


@deviates("B-CRY-03", Keys)
class NeverCloses(ByHand, KeysBackend):
    """Closes no session, and says that it did."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 0) if isinstance(message, CloseCryptoSession) else None


# --- postcopy ---


@deviates("B-PC-01")
class OtherFd(ByHand, Missing):
    """Its userfaultfd is a pipe."""

    def wrong(self, message: Message) -> Frame | None:
        return frame(message.spec.request, b"", fds=a_pipe()) if isinstance(message, PostcopyAdvise) else None


@deviates("B-PC-03")
class DoesNotListen(ByHand, Missing):
    """Refuses POSTCOPY_LISTEN."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 1) if isinstance(message, PostcopyListen) else None


class Garbled(Missing):
    """Answers tables with something else; subclasses say with what."""

    def table(self, answer: Message) -> bytes:
        """The payload."""
        raise NotImplementedError

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        answer = await super()._act(message, received)
        if answer is None or not (self._listening and isinstance(message, SetMemTable | AddMemReg)):
            return answer
        return frame(message.spec.request, self.table(message))


@deviates("B-PC-04")
class ShortTable(Garbled):
    """Answers a table with one that is too short."""

    def table(self, answer: Message) -> bytes:
        return answer.build()[:-8]


@deviates("B-PC-05")
class OldAddresses(Garbled):
    """Answers a table with the addresses that it was told."""

    def table(self, answer: Message) -> bytes:
        return answer.build()


@deviates("B-PC-09")
class NoRegion(Garbled):
    """Answers a region with a number."""

    def table(self, answer: Message) -> bytes:
        return U64(0).build()


@deviates("B-PC-10")
class NeverEnds(ByHand, Missing):
    """Answers POSTCOPY_END with 1."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 1) if isinstance(message, PostcopyEnd) else None


# --- status and reset ---


@deviates("B-STS-01", Disk)
class Verbose(DiskBackend):
    """Its status has nine bits."""

    def _answer(self, message: Message) -> Frame | None:
        if isinstance(message, GetStatus):
            self.protocol.nack()
            return number(message, 0x100)
        return super()._answer(message)


@deviates("B-STS-02", Disk)
class Eager(DiskBackend):
    """Its status is 1 from the beginning."""

    def __init__(self, device: Disk) -> None:
        super().__init__(device)
        self.protocol.state.status = 1


class Forgetful(ByHand, DiskBackend):
    """Its status is what it was."""

    def wrong(self, message: Message) -> Frame | None:
        return number(message, 0) if isinstance(message, SetStatus) else None


@deviates("B-STS-03", Disk)
class NeverSet(Forgetful):
    """Acknowledges SET_STATUS, and forgets it."""


@deviates("B-STS-05", Disk)
class GoesOn(DiskBackend):
    """Goes on when its status is set to 0."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        return self.protocol.ack() if isinstance(message, SetStatus) else await super()._act(message, received)


@deviates("B-RST-01")
class NeverStops(Stateful):
    """Acknowledges RESET_DEVICE, and goes on."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        return self.protocol.ack() if isinstance(message, ResetDevice) else await super()._act(message, received)


class _Disowned(DiskBackend):
    """Wants an owner after a reset."""

    _disowned = False

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        if self._disowned and not isinstance(message, SetOwner):
            raise RemoteProtocolError("found no owner")
        self._disowned = isinstance(message, ResetDevice)
        return await super()._act(message, received)


deviates("B-RST-03", Disk)(_Disowned)


@deviates("B-RST-04", Disk)
class NoAcks(DiskBackend):
    """Forgets its protocol features with a reset."""

    async def _act(self, message: Message, received: Frame) -> Frame | None:
        answer = await super()._act(message, received)
        if isinstance(message, ResetDevice):
            self.protocol.state.protocol_features = ProtocolFeature(0)
        return answer


class StickyDisk(Disk):
    """A disk that keeps its write cache mode."""

    def reset(self) -> None:
        """Nothing."""


@deviates("B-RST-06", StickyDisk)
class Sticky(DiskBackend):
    """Keeps its configuration space when it is reset."""
