"""Faults in the way a back-end treats an IOMMU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.conformance.backends.faults import fault
from tests.conformance.backends.rare import Backend
from tests.conformance.backends.rare_memory import LOG_PAGE, AddressSpace, BadEntry
from tests.conformance.backends.rare_ring import Ring
from vhostuser.memory.map import GuestAddressError
from vhostuser.protocol.framing import Frame
from vhostuser.wire.backend_messages import BackendIotlbMsg
from vhostuser.wire.frontend_messages import IotlbMsg
from vhostuser.wire.records import U64, IotlbPermission, IotlbType
from vhostuser.wire.requests import HeaderFlags

if TYPE_CHECKING:
    from vhostuser.wire.catalog import Message


@fault("an update is answered with 1", "B-IOM-01", "B-IOM-14")
class SaysOne(Backend):
    def translation(self, message: IotlbMsg) -> Frame:
        self.translate(message)
        return self.protocol.reply(message, U64(1))


@fault("IOTLB_MSG is answered only with need_reply", "B-IOM-02")
class OnlyIfAsked(Backend):
    asked = False

    def message(self, frame: Frame) -> None:
        self.asked = bool(frame.header.flags & HeaderFlags.NEED_REPLY)
        super().message(frame)

    def answer(self, frame: Frame | None) -> None:
        if frame is None or frame.header.request != IotlbMsg.spec.request or self.asked:
            super().answer(frame)


@fault("an invalidation is refused", "B-IOM-03")
class NoInvalidation(AddressSpace):
    def invalidate(self, entry: IotlbMsg) -> None:
        if entry.type == IotlbType.INVALIDATE:
            raise BadEntry("no such type")
        super().invalidate(entry)


@fault("buffers are taken for guest addresses", "B-IOM-04[split]")
class NoTranslation(AddressSpace):
    def views(self, addr: Any, length: int) -> list[memoryview]:
        self.translating, before = False, self.translating
        try:
            return super().views(addr, length)
        finally:
            self.translating = before


@fault("an unknown address breaks the ring", "B-IOM-05", "B-IOM-06")
class NoMiss(Ring):
    def ask(self, iova: int) -> None:
        raise GuestAddressError(iova, 1, "no entry")


@fault("a miss names the address in pages, and no access", "B-IOM-05")
class OddMiss(Ring):
    def ask(self, iova: int) -> None:
        self.say(BackendIotlbMsg(iova // LOG_PAGE, 0, 0, IotlbPermission(0), IotlbType.MISS))


@fault("a request that missed is not looked at again", "B-IOM-06")
class Forgets(Backend):
    def translation(self, message: IotlbMsg) -> Frame:
        self.translate(message)
        return self.protocol.reply(message, U64(0))


@fault("an invalidation changes nothing", "B-IOM-07")
class KeepsEntries(AddressSpace):
    def invalidate(self, entry: IotlbMsg) -> None:
        pass


@fault("permissions are not looked at", "B-IOM-08")
class WritesAnywhere(AddressSpace):
    def update(self, entry: IotlbMsg) -> None:
        both = IotlbPermission.READ | IotlbPermission.WRITE
        super().update(IotlbMsg(entry.iova, entry.size, entry.user_addr, both, entry.type))


@fault("an entry that leads nowhere is taken", "B-IOM-09")
class TakesAnything(AddressSpace):
    def update(self, entry: IotlbMsg) -> None:
        self._entries.append(entry)


@fault("a miss is waited for, and nothing else is done meanwhile", "B-IOM-10")
class Waits(Backend):
    def say(self, message: Message) -> None:
        super().say(message)
        if self.channel is not None and isinstance(message, BackendIotlbMsg):
            self.channel.receive()


@fault("types that a front-end does not send are taken for invalidations", "B-IOM-11")
class AnyType(Backend):
    def message(self, frame: Frame) -> None:
        if frame.header.request == IotlbMsg.spec.request:
            payload = bytearray(frame.payload)
            payload[25] = payload[25] if payload[25] in (2, 3) else 3
            frame = Frame(frame.header, bytes(payload), frame.fds)
        super().message(frame)
