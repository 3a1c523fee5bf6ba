"""The back-ends beside this, each with one thing wrong: the case that is named has to find it.

Replies are built by hand where our own protocol would not let a wrong one pass.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tests.conformance.backends.extended import Extended
from vhostuser.devices.rng import RngDevice
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.protocol.framing import Frame
from vhostuser.wire.records import U64
from vhostuser.wire.requests import Header, HeaderFlags

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


def load() -> list[Deviation]:
    """All of them."""
    for subject in ("state", "channel", "message"):
        importlib.import_module(f"tests.conformance.backends.{subject}_deviations")
    return DEVIATIONS
