"""What can be wrong with messages of one kind of device, with its status, and with its reset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.backends.deviations import ByHand, deviates, frame, number
from tests.conformance.backends.messages import Card, CardBackend, Disk, DiskBackend, Keys, KeysBackend
from tests.conformance.backends.stateful import Stateful
from vhostuser.errors import RemoteProtocolError
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import (
    CloseCryptoSession,
    CreateCryptoSession,
    GetStatus,
    NetSetMtu,
    ResetDevice,
    SetOwner,
    SetStatus,
)
from vhostuser.wire.records import CryptoSession

if TYPE_CHECKING:
    from vhostuser.protocol.framing import Frame
    from vhostuser.wire.catalog import Message


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
