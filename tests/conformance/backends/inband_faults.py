"""Faults in the way a back-end treats notifications in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.conformance.backends.faults import fault
from tests.conformance.backends.rare import Backend
from tests.conformance.backends.rare_ring import Ring
from vhostuser.wire.backend_messages import BackendVringCall, BackendVringErr

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import Message


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
