"""What can be wrong with moving state: device state, and pages that come later."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from tests.conformance.backends.deviations import ByHand, a_pipe, deviates, frame, number
from tests.conformance.backends.missing import Missing
from tests.conformance.backends.stateful import Stateful, is_state
from vhostuser.wire.frontend_messages import (
    AddMemReg,
    CheckDeviceState,
    PostcopyAdvise,
    PostcopyEnd,
    PostcopyListen,
    SetDeviceStateFd,
    SetMemTable,
    SetVringKick,
)
from vhostuser.wire.records import DEVICE_STATE_NO_FD, U64

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import Message


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
