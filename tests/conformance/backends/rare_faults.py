"""What can be wrong with the features of the rare back-end: each fault is one deviation, and has a case that sees it.

A fault is a back-end that is made of one part that differs.  The list is for the test beside this folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.conformance.backends.rare import Backend
from tests.conformance.backends.rare_memory import LOG_PAGE, AddressSpace, BadEntry, DirtyLog
from tests.conformance.backends.rare_ring import Ring
from vhostuser.memory.map import GuestAddressError
from vhostuser.protocol.framing import Frame
from vhostuser.wire.backend_messages import BackendIotlbMsg, BackendVringCall, BackendVringErr
from vhostuser.wire.frontend_messages import GetVringBase, IotlbMsg, SetLogBase
from vhostuser.wire.records import U64, IotlbPermission, IotlbType, VringAddrFlags
from vhostuser.wire.requests import HeaderFlags

if TYPE_CHECKING:
    from collections.abc import Callable

    from vhostuser.fd import Fd, Fds
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.records import Log


@dataclass(frozen=True)
class Fault:
    """One deviation.

    Attributes:
        sentence: what it does.
        seen_by: cases of which each sees it.
        backend: does it.
    """

    sentence: str
    seen_by: tuple[str, ...]
    backend: type[Backend]


FAULTS: dict[str, Fault] = {}


def fault(sentence: str, *seen_by: str) -> Callable[[type[Any]], type[Any]]:
    """Note a part that is wrong, or a whole back-end."""

    def note(part: type[Any]) -> type[Any]:
        whole = part
        if not issubclass(part, Backend):
            place = "Log" if issubclass(part, DirtyLog) else "Ring" if issubclass(part, Ring) else "Space"
            whole = type(part.__name__, (Backend,), {place: part})
        FAULTS[part.__name__] = Fault(sentence, seen_by, whole)
        return part

    return note


# --- the log ---------------------------------------------------------------------------------------------------------


@fault("SET_LOG_BASE is not answered", "B-LOG-01")
class SilentLog(Backend):
    def answer(self, frame: Frame | None) -> None:
        if frame is None or frame.header.request != SetLogBase.spec.request:
            super().answer(frame)


@fault("what is written to buffers is not marked", "B-LOG-02[split]", "B-LOG-02[packed]", "B-LOG-14")
class UnmarkedBuffers(Ring):
    def mark(self, room: int) -> None:
        pass


@fault("the page behind is marked as well", "B-LOG-03[split]", "B-LOG-03[packed]")
class MarksTooMuch(DirtyLog):
    def mark(self, addr: int, length: int) -> None:
        super().mark(addr, length + LOG_PAGE)


@fault("bits are counted from the other end of a byte", "B-LOG-04[split]")
class OtherEnd(DirtyLog):
    def set(self, page: int) -> None:
        super().set(page ^ 7)


@fault("a page of the log has 64 KiB", "B-LOG-05", "B-LOG-04[split]")
class LargePages(DirtyLog):
    def set(self, page: int) -> None:
        super().set(page // 16)


@fault("the log begins where its file does", "B-LOG-06")
class NoOffset(DirtyLog):
    def __init__(self, told: Log, fd: Fd) -> None:
        super().__init__(SetLogBase(told.size, 0), fd)


@fault("the used ring is never marked", "B-LOG-07", "B-LOG-09")
class UnmarkedRing(Ring):
    def mark_ring(self) -> None:
        pass


@fault("the used ring is marked without being asked for", "B-LOG-08")
class AlwaysMarksRing(Ring):
    def mark_ring(self) -> None:
        addr = self.state.addr
        assert self.log is not None
        assert addr is not None
        self.log.mark(addr.log, 4)


@fault("the used ring is marked where it is, not where its log address says", "B-LOG-09")
class MarksRingAtHome(Ring):
    def mark_ring(self) -> None:
        addr = self.state.addr
        assert self.log is not None
        assert addr is not None
        if addr.flags & VringAddrFlags.LOG:
            self.log.mark(self.space.guest_addr(addr.used), 4)


@fault("writes are marked without LOG_ALL", "B-LOG-10[split]", "B-LOG-10[packed]")
class LogsForEver(Ring):
    @property
    def logging(self) -> bool:
        return self.log is not None


@fault("what LOG_ALL was at the ring's start, it stays", "B-LOG-11[split]")
class DecidesOnce(Ring):
    decided: bool | None = None

    def pop(self) -> Chain | None:
        chain = super().pop()
        if chain is not None and self.decided is None:
            self.decided = super().logging
        return chain

    @property
    def logging(self) -> bool:
        return bool(self.decided) and super().logging


@fault("a page is marked once, and never again", "B-LOG-12")
class MarksOnce(DirtyLog):
    def __init__(self, told: Log, fd: Fd) -> None:
        super().__init__(told, fd)
        self.known: set[int] = set()

    def set(self, page: int) -> None:
        if page not in self.known:
            self.known.add(page)
            super().set(page)


@fault("the first log is the log for ever", "B-LOG-13")
class FirstLog(Backend):
    def act(self, message: Message, fds: Fds) -> Frame | None:
        first = self.ring.log
        answer = super().act(message, fds)
        self.ring.log = first or self.ring.log
        return answer


@fault("with LOG_ALL and no log it gives up", "B-LOG-14")
class NeedsLog(Ring):
    def fill(self, chain: Chain) -> None:
        if self.features & 1 << 26 and self.log is None:
            raise BadEntry("no log")
        super().fill(chain)


@fault("only the first piece of a chain is marked", "B-LOG-16[split]", "B-LOG-16[packed]")
class FirstPiece(Ring):
    def written(self, room: int) -> list[tuple[int, int]]:
        return super().written(room)[:1]


@fault("only the page of a buffer's first byte is marked", "B-LOG-17[split]", "B-LOG-17[packed]")
class FirstPage(DirtyLog):
    def mark(self, addr: int, length: int) -> None:
        super().mark(addr, 1)


class KeepsBack(Ring):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kept: list[tuple[int, int]] = []

    def mark(self, room: int) -> None:
        self.kept += self.written(room)

    def mark_late(self) -> None:
        assert self.log is not None
        for addr, length in self.kept:
            self.log.mark(addr, length)


@fault("marks are made when GET_VRING_BASE has been answered", "B-LOG-18[split]", "B-LOG-18[packed]", "B-LOG-02[split]")
class LateMarks(Backend):
    Ring = KeepsBack

    def answer(self, frame: Frame | None) -> None:
        super().answer(frame)
        if frame is not None and frame.header.request == GetVringBase.spec.request:
            assert isinstance(self.ring, KeepsBack)
            self.ring.mark_late()


@fault("a mark behind the log's end is written all the same", "B-LOG-19")
class NoEnd(DirtyLog):
    @property
    def end(self) -> int:
        return 8 * len(self.file)


@fault("behind an IOMMU, pages are marked by I/O virtual address", "B-LOG-24")
class MarksVirtual(AddressSpace):
    def views(self, addr: Any, length: int) -> list[memoryview]:
        found = super().views(addr, length)
        self.seen[-1:] = [(addr, length)]
        return found


# --- the IOMMU -------------------------------------------------------------------------------------------------------


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


# --- notifications in messages ---------------------------------------------------------------------------------------


@fault("VRING_KICK kicks nothing", "B-INB-02", "B-INB-06")
class DeafToMessages(Backend):
    def kicked_by_message(self) -> None:
        pass


@fault("BACKEND_VRING_CALL names another ring", "B-INB-03")
class CallsAnother(Ring):
    def tell(self, end: Any, message: Message) -> None:
        super().tell(end, BackendVringCall(1, 0) if isinstance(message, BackendVringCall) else message)


@fault("a call without descriptor is not made", "B-INB-03")
class NeverCalls(Ring):
    def tell(self, end: Any, message: Message) -> None:
        if end is not None:
            super().tell(end, message)


@fault("with notifications in messages, the kick descriptor is not watched", "B-INB-04")
class OnlyMessages(Backend):
    def kicked(self) -> None:
        assert self.ring.kick is not None
        self.ring.kick.drain()


@fault("an error is told of in both ways", "B-INB-05")
class TellsTwice(Ring):
    def tell(self, end: Any, message: Message) -> None:
        super().tell(end, message)
        if end is not None and isinstance(message, BackendVringErr):
            super().tell(None, message)


@fault("VRING_KICK is acknowledged before the ring is looked at", "B-INB-06")
class AcksFirst(Backend):
    def kicked_by_message(self) -> None:
        pass

    def message(self, frame: Frame) -> None:
        self.ring.serve()  # what was there at the last one
        super().message(frame)
