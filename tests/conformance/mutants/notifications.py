"""Faults of kick, call and err descriptors."""

from __future__ import annotations

import os
from typing import Any

import trio

from tests.conformance.mutants.registry import edit, mutant, wrap
from vhostuser.backend import connection
from vhostuser.backend.connection import Backend
from vhostuser.backend.ends import Ends
from vhostuser.backend.ring import Ring
from vhostuser.backend.task import TaskWorker
from vhostuser.backend.worker import Worker
from vhostuser.protocol.state import ProtocolState
from vhostuser.transport.notifier import EventConsumer, EventNotifier, NotifierKind

KEPT: list[object] = []


@mutant("B-NOT-01")
def kick_ignored() -> None:
    """The kick descriptor is never looked at."""
    edit(TaskWorker, "_wait", "await kick.wait()", "await trio.sleep_forever()")


@mutant("B-NOT-03")
def kick_has_to_be_1() -> None:
    """A kick counts only if its value is 1."""
    edit(EventConsumer, "drain", "return True", "return self.last == 1")

    @wrap(EventConsumer, "_read")
    def read(original: Any, self: EventConsumer) -> int | None:
        try:
            data = os.read(self.fileno(), 512)
        except BlockingIOError:
            return None
        self.__dict__["last"] = int.from_bytes(data[:8], "little")
        return len(data)


@mutant("B-NOT-05")
def new_kick_is_not_watched() -> None:
    """A kick descriptor that is replaced while the ring runs is not used."""
    edit(
        Ring,
        "set_kick",
        "await self._pause()",
        "if self.running and event is not None: return event.close()\n        await self._pause()",
    )


@mutant("B-NOT-02")
def call_never_signalled() -> None:
    """The call descriptor is never signalled."""
    edit(Ends, "notify", "self._signal(self.call", "self._signal(None")


@mutant("B-NOT-06")
def no_ring_without_a_call() -> None:
    """A ring without a call descriptor is not served."""
    edit(Worker, "_take", "self._queue.pop(BATCH)", "self._queue.pop(BATCH if self._ends.call else 0)")


@mutant("B-NOT-07")
def no_ring_without_a_kick() -> None:
    """A ring without a kick descriptor is not polled."""
    edit(Worker, "_take", "self._queue.pop(BATCH)", "self._queue.pop(BATCH if self._ends.kick else 0)")


@mutant("B-NOT-09")
def err_refused() -> None:
    """SET_VRING_ERR is refused."""
    edit(Backend, "_act", "_notifier(frame, tolerant=True)", "_consumer(frame) if 0 else _refuse()")
    connection.__dict__["_refuse"] = _refuse


def _refuse() -> None:
    raise OSError("no err")


@mutant("B-NOT-10")
def err_never_signalled() -> None:
    """The err descriptor is never signalled."""
    edit(Ends, "report", "self._signal(self._err", "self._signal(None")


@mutant("B-NOT-19")
def replaced_kicks_stay_open() -> None:
    """A kick descriptor that is replaced stays open."""
    edit(Ends, "use_kick", "_close(old)", "KEPT.append(old)")
    Ends.use_kick.__globals__["KEPT"] = KEPT


@mutant("B-NOT-19")
def replaced_errs_stay_open() -> None:
    """An err descriptor that is replaced stays open."""
    edit(Ends, "use_err", "_close(old)", "KEPT.append(old)")
    Ends.use_err.__globals__["KEPT"] = KEPT


@mutant("B-NOT-11")
def descriptor_with_bit_8_ends_the_program() -> None:
    """A descriptor that comes although bit 8 says that there is none ends the program."""
    edit(
        ProtocolState,
        "_check_fds",
        "expect(fd_count in limits",
        "assert fd_count in limits or spec.request not in (12, 13, 14); expect(fd_count in limits",
    )


@mutant("B-NOT-12")
def missing_descriptor_stops_everything() -> None:
    """A kick, call or err without its descriptor is waited for, for ever."""

    @wrap(Backend, "_handle")
    async def handle(original: Any, self: Backend, frame: Any) -> Any:
        if frame.header.request in (12, 13, 14) and not frame.fds and not frame.payload[1] & 1:
            await trio.sleep_forever()
        return await original(self, frame)


@mutant("B-NOT-13")
def second_descriptor_of_a_kick_stays_open() -> None:
    """Descriptors that come with a kick beside its own stay open."""

    @wrap(Backend, "_handle")
    async def handle(original: Any, self: Backend, frame: Any) -> Any:
        if len(frame.fds) == 2 and frame.header.request in (12, 13, 14):
            KEPT.append(frame.fds[1].duplicate())
        return await original(self, frame)


@mutant("B-NOT-14", "B-NOT-15")
def call_waits_for_room() -> None:
    """A call descriptor that is full is waited for."""

    @wrap(EventNotifier, "notify")
    def notify(original: Any, self: EventNotifier) -> None:
        os.set_blocking(self.fileno(), True)
        os.write(self.fileno(), (1).to_bytes(8, "little"))


@mutant("B-NOT-16")
def pipes_refused() -> None:
    """Pipes are refused as kick and call."""

    @wrap(connection, "_consumer")
    def consumer(original: Any, frame: Any) -> Any:
        made = original(frame)
        if made is not None and made.kind is NotifierKind.PIPE:
            made.close()
            raise OSError("a pipe")
        return made


@mutant("B-NOT-17")
def kick_that_is_a_file_ends_the_program() -> None:
    """A kick descriptor that is none ends the program."""
    edit(Backend, "_carry_out", "NotANotifier, ", "")


@mutant("B-NOT-18")
def kicks_without_a_request_break_the_ring() -> None:
    """A ring that is kicked while it is empty is not served any more."""
    edit(
        TaskWorker,
        "_wait",
        "await kick.wait()",
        "await kick.wait()\n                if self._queue._avail[1] == self._queue._next_avail: self.stopping = True",
    )
