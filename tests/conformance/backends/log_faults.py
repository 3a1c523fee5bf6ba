"""Faults in the way a back-end treats a dirty log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.conformance.backends.faults import fault
from tests.conformance.backends.rare import Backend
from tests.conformance.backends.rare_memory import LOG_PAGE, AddressSpace, BadEntry, DirtyLog
from tests.conformance.backends.rare_ring import Ring
from vhostuser.wire.frontend_messages import SetLogBase
from vhostuser.wire.records import VringAddrFlags

if TYPE_CHECKING:
    from vhostuser.fd import Fd, Fds
    from vhostuser.protocol.framing import Frame
    from vhostuser.virtqueue.chain import Chain
    from vhostuser.wire.catalog import Message
    from vhostuser.wire.records import Log


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
        if self.log is not None:
            for addr, length in self.kept:
                self.log.mark(addr, length)


@fault("marks are made when the front-end hangs up", "B-LOG-18[split]", "B-LOG-18[packed]", "B-LOG-02[split]")
class LateMarks(Backend):
    Ring = KeepsBack

    def __exit__(self, *failure: object) -> None:
        assert isinstance(self.ring, KeepsBack)
        self.ring.mark_late()
        super().__exit__(*failure)


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
