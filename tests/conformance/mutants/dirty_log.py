"""Faults of the dirty log.  Those that end no program are in ``tests/conformance/backends/log_faults.py``."""

from __future__ import annotations

from typing import Any

from tests.conformance.backends.rare import Backend
from tests.conformance.backends.rare_memory import DirtyLog
from tests.conformance.mutants.registry import RARE, edit, mutant, wrap
from vhostuser.protocol.state import ProtocolState
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.frontend_messages import SetFeatures, SetLogBase, SetLogFd

KEPT: list[Any] = []


@mutant("B-LOG-13", program=RARE)
def old_log_is_marked_too() -> None:
    """A page is marked in the log of SET_LOG_BASE, and in the one before it."""

    @wrap(DirtyLog, "__init__")
    def init(original: Any, self: DirtyLog, *arguments: Any) -> None:
        original(self, *arguments)
        KEPT[:] = [*KEPT[-1:], self]

    edit(DirtyLog, "set", "self.file[page // 8] |=", "for each in KEPT: each.file[page // 8] |=")
    DirtyLog.set.__globals__["KEPT"] = KEPT


@mutant("B-LOG-15", program=RARE)
def log_fd_ends_the_program() -> None:
    """SET_LOG_FD ends the program."""

    @wrap(Backend, "act")
    def act(original: Any, self: Backend, message: Any, fds: Any) -> Any:
        assert not isinstance(message, SetLogFd)
        return original(self, message, fds)


@mutant("B-LOG-19", program=RARE)
def end_of_the_log_asserted() -> None:
    """A page that the log has no bit for ends the program."""
    edit(DirtyLog, "mark", "if page < self.end:", "assert page < self.end\n            if True:")


@mutant("B-LOG-20", "B-LOG-22", program=RARE)
def place_of_the_log_asserted() -> None:
    """A log that is not wholly in its file, or has no bytes, ends the program."""
    edit(DirtyLog, "__init__", "raise BadEntry(", "raise AssertionError(")


@mutant("B-LOG-21", program=RARE)
def log_without_a_descriptor_ends_the_program() -> None:
    """SET_LOG_BASE without a descriptor ends the program."""
    edit(
        ProtocolState,
        "_check_fds",
        "expect(fd_count in limits,",
        "expect(fd_count in limits or spec.request == 6 and not fd_count,",
    )


@mutant("B-LOG-21", program=RARE)
def second_descriptor_of_a_log_kept() -> None:
    """The second descriptor of a SET_LOG_BASE stays open."""
    edit(ProtocolState, "_check_fds", "expect(fd_count in limits,", "expect(fd_count in limits or fd_count == 2,")

    @wrap(Backend, "act")
    def act(original: Any, self: Backend, message: Any, fds: Any) -> Any:
        if isinstance(message, SetLogBase):
            KEPT.extend(fd.move() for fd in fds[1:])
        return original(self, message, fds)


@mutant("B-FEAT-07", "B-LOG-10", program=RARE)
def logging_ends_with_the_ring() -> None:
    """Without LOG_ALL, after it was there, the ring is not served any more."""

    @wrap(Backend, "act")
    def act(original: Any, self: Backend, message: Any, fds: Any) -> Any:
        if isinstance(message, SetFeatures):
            KEPT.append(message.features & VirtioFeature.LOG_ALL)
            self.ring._broken = KEPT[-2:-1] > [0] and not KEPT[-1]
        return original(self, message, fds)
