"""Faults of configuration space, of several queues, and of status and reset."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import trio

from tests.conformance.mutants.registry import edit, mutant, wrap
from vhostuser.backend.connection import Backend
from vhostuser.backend.ends import Ends
from vhostuser.device import Device
from vhostuser.protocol import payloads, state
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.state import ProtocolState

if TYPE_CHECKING:
    from vhostuser.backend.ring import Ring

# --- configuration space ---------------------------------------------------------------------------------------------


@mutant("B-CFG-03")
def config_offset_ignored() -> None:
    """GET_CONFIG always answers the beginning."""
    edit(Device, "read_config", "self.config[offset : offset + size]", "self.config[:size]")


@mutant("B-CFG-01")
def config_reply_truncated() -> None:
    """GET_CONFIG answers half of what it was asked for."""
    edit(Backend, "_act", "Config(offset, size, flags, data))", "Config(offset, size // 2, flags, data[: size // 2]))")
    edit(ProtocolState, "_apply_reply", "expect(replied == size,", "expect(True,")
    edit(ProtocolState, "_apply_reply", "expect(len(data) == size,", "expect(True,")


@mutant("B-CFG-02")
def config_reply_without_its_offset() -> None:
    """The reply to GET_CONFIG says offset 0, whatever was asked for."""
    edit(Backend, "_act", "Config(offset, size, flags, data))", "Config(0, size, flags, data))")


@mutant("B-CFG-06")
def config_writable() -> None:
    """SET_CONFIG changes fields that are read-only."""

    written: dict[int, int] = {}

    @wrap(Device, "write_config")
    def write(original: Any, self: Device, offset: int, data: bytes) -> None:
        written.update(enumerate(data, offset))

    @wrap(Device, "read_config")
    def read(original: Any, self: Device, offset: int, size: int) -> bytes:
        return bytes(written.get(at, byte) for at, byte in enumerate(original(self, offset, size), offset))


@mutant("B-CFG-09", "B-CFG-12")
def config_sizes_asserted() -> None:
    """GET_CONFIG of no bytes, or of more than 256, ends the program."""
    edit(payloads, "_check_config", "expect(0 < size", "assert 0 < size <= MAX_CONFIG_SIZE; expect(0 < size")


@mutant("B-CFG-11")
def config_end_asserted() -> None:
    """An end behind the last byte of configuration space ends the program."""
    edit(payloads, "_check_config", "expect(end <=", "assert end <= MAX_CONFIG_SIZE; expect(end <=")


# --- queues ----------------------------------------------------------------------------------------------------------


@mutant("B-MQ-01")
def no_queues() -> None:
    """GET_QUEUE_NUM says 0."""
    edit(BackendProtocol, "_known", "return self.state.queue_num", "return 0")


@mutant("B-MQ-02")
def fewer_queues_each_time() -> None:
    """GET_QUEUE_NUM says another number the second time."""
    calls = itertools.count()
    edit(BackendProtocol, "_known", "return self.state.queue_num", "return self.state.queue_num + next(CALLS) % 2")
    BackendProtocol._known.__globals__["CALLS"] = calls


@mutant("B-MQ-07")
def calls_on_the_first_queue() -> None:
    """Whatever queue gives buffers back, the first one's call is signalled."""
    first: list[Ends] = []

    @wrap(Ends, "notify")
    def notify(original: Any, self: Ends) -> None:
        original(first[0])

    @wrap(Ends, "__init__")
    def remember(original: Any, self: Ends, index: int) -> None:
        original(self, index)
        if index == 0:
            first[:] = [self]


@mutant("B-MQ-03")
def second_queue_dead() -> None:
    """The second queue is never served."""

    @wrap(Backend, "_follow")
    async def follow(original: Any, self: Backend, ring: Ring) -> None:
        if ring.index != 1:
            await original(self, ring)


@mutant("B-MQ-04")
def all_queues_or_none() -> None:
    """Nothing is served before every queue is started."""

    @wrap(Backend, "_follow")
    async def follow(original: Any, self: Backend, ring: Ring) -> None:
        if all(each.started for each in self.protocol.state.rings):
            for each in self.rings:
                await original(self, each)


@mutant("B-MQ-05", "B-HOS-34")
def queue_index_unchecked() -> None:
    """A queue behind the last one ends the program."""
    edit(ProtocolState, "_check", "expect(inside,", "assert inside; expect(inside,")


@mutant("B-MQ-06")
def queues_in_order() -> None:
    """A queue can be started only after those in front of it."""
    edit(
        ProtocolState,
        "_check_ring",
        "case SetVringNum(index, num):",
        "case SetVringKick() if not all(each.started for each in self.rings[: message.index]):\n"
        "                expect(False, 'a queue too early', 'those in front of it')\n"
        "            case SetVringNum(index, num):",
    )


# --- status and reset ------------------------------------------------------------------------------------------------


@mutant("B-STS-02")
def status_begins_with_1() -> None:
    """The device status is 1 in the beginning."""
    edit(BackendProtocol, "_known", "return self.state.status", "return self.state.status or 1")


@mutant("B-STS-03")
def status_forgets_driver_ok() -> None:
    """DRIVER_OK does not stay in the device status."""
    edit(ProtocolState, "_apply", "self.status = status", "self.status = status & ~4")


@mutant("B-STS-05")
def status_0_resets_nothing() -> None:
    """SET_STATUS 0 is noted, and the rings go on."""
    edit(Backend, "_act", "case ResetDevice() | SetStatus(0):", "case ResetDevice():")
    from vhostuser.protocol.rings import TRANSITIONS, Effect, RingEvent

    TRANSITIONS[RingEvent.STATUS_RESET] = Effect(None, None)  # type: ignore[index]


@mutant("B-STS-06")
def status_asserted() -> None:
    """A device status of more than 8 bits ends the program."""
    edit(payloads, "check_payload", "expect(status <= 0xFF,", "assert status <= 0xFF; expect(True,")
    state.__dict__["check_payload"] = payloads.check_payload


@mutant("B-RST-01")
def reset_resets_nothing() -> None:
    """RESET_DEVICE is acknowledged, and the rings go on."""
    edit(Backend, "_act", "case ResetDevice() | SetStatus(0):", "case SetStatus(0):")
    from vhostuser.protocol.rings import TRANSITIONS, Effect, RingEvent

    TRANSITIONS[RingEvent.RESET_DEVICE] = Effect(None, None)  # type: ignore[index]


@mutant("B-RST-03")
def reset_ends_the_session() -> None:
    """After RESET_DEVICE nothing is accepted before SET_OWNER comes again."""

    @wrap(ProtocolState, "_apply")
    def apply(original: Any, self: ProtocolState, message: Any) -> None:
        original(self, message)
        if message.spec.request == 34:
            self.owner = False

    edit(
        ProtocolState,
        "_check",
        "check_payload(message)",
        "check_payload(message); expect(self.owner or spec.request in (1, 3, 15, 16), 'no', 'owner')",
    )


@mutant("B-RST-04")
def reset_forgets_protocol_features() -> None:
    """RESET_DEVICE takes protocol features back."""

    @wrap(ProtocolState, "_apply")
    def apply(original: Any, self: ProtocolState, message: Any) -> None:
        original(self, message)
        if message.spec.request == 34:
            self.protocol_features = type(self.protocol_features)(0)


@mutant("B-RST-02")
def reset_only_once() -> None:
    """A device that was reset does not work again."""
    edit(Backend, "_act", "self.device.reset()", "self.device.reset(); self._follow = _nothing")
    Backend._act.__globals__["_nothing"] = _nothing


async def _nothing(ring: Ring) -> None:
    await trio.lowlevel.checkpoint()
