"""Faults of setting rings up, starting, stopping and enabling them."""

from __future__ import annotations

from typing import Any

import trio

from tests.conformance.mutants.registry import edit, mutant, replace, wrap
from vhostuser.backend import ring
from vhostuser.backend.connection import Backend
from vhostuser.backend.ring import Ring
from vhostuser.backend.worker import Worker
from vhostuser.devices.blk import BlkDevice
from vhostuser.protocol import rings, state
from vhostuser.protocol.rings import TRANSITIONS, Effect, RingEvent, RingState
from vhostuser.protocol.state import ProtocolState
from vhostuser.virtqueue.split_device import SplitDevice

_TRANSITIONS: Any = TRANSITIONS


# --- setting up ------------------------------------------------------------------------------------------------------


@mutant("B-VR-01")
def rings_of_at_most_128() -> None:
    """The size of a ring is cut to 128 entries."""
    edit(rings, "configured", "replace(ring, size=num)", "replace(ring, size=min(num, 128))")


@mutant("B-VR-02")
def used_ring_at_the_available_ring() -> None:
    """The used ring is looked for where the available ring is."""
    edit(ring, "resolve", "UserAddr(state.addr.used)", "UserAddr(state.addr.available)")


@mutant("B-VR-03")
def base_ignored() -> None:
    """Every ring begins at 0, whatever SET_VRING_BASE says."""
    edit(rings, "configured", "replace(ring, base=base)", "ring")


@mutant("B-VR-03", "B-PKD-09")
def base_off_by_one() -> None:
    """A ring begins one entry behind the one that SET_VRING_BASE says."""
    edit(rings, "configured", "replace(ring, base=base)", "replace(ring, base=base + 1)")


@mutant("B-VR-04")
def used_index_from_0() -> None:
    """The used index of a split ring begins at 0, whatever stands in memory."""
    edit(SplitDevice, "__init__", "self._used[IDX]", "0")


@mutant("B-VR-06")
def base_of_another_ring() -> None:
    """GET_VRING_BASE is answered for ring 0, whichever was asked for."""
    edit(ProtocolState, "_apply_reply", "expect(replied == index", "expect(True")
    edit(Backend, "_act", "VringState(index, await", "VringState(0, await")


@mutant("B-VR-07")
def base_as_it_was_set() -> None:
    """GET_VRING_BASE answers what SET_VRING_BASE said."""
    edit(Ring, "base", "state.base if self._position is None else self._position", "state.base")


@mutant("B-VR-07")
def base_runs_beyond_16_bits() -> None:
    """The position of a split ring is not cut to 16 bits."""
    edit(SplitDevice, "base", "self._next_avail", "self._next_avail + 0x10000")
    edit(rings, "check_base", "packed or base <= 0xFFFF", "True")


@mutant("B-VR-11")
def base_only_once() -> None:
    """A second GET_VRING_BASE answers 0."""
    edit(Backend, "_take_base", "ring.forget()", "ring.forget(); ring.base = lambda state: 0")


def _slow() -> None:
    """Every batch of requests takes a while: that is no fault yet."""

    @wrap(BlkDevice, "_serve_batch")
    async def serve(original: Any, *args: Any) -> None:
        await trio.sleep(0.3)
        await original(*args)


@mutant("B-VR-12")
def stop_does_not_wait() -> None:
    """GET_VRING_BASE is answered while requests are in flight."""
    _slow()
    edit(Ring, "stop", "await self._drained.wait()", "self._position = self._worker.base; self._worker = None")


@mutant("B-VR-13[split]", "B-VR-13[packed]")
def one_request_is_completed_after_the_stop() -> None:
    """Of requests that are done together, one is kept until a message comes that is not GET_VRING_BASE."""
    kept: list[tuple[Worker, Any]] = []
    give_back = Worker.done

    @wrap(Worker, "done")
    def done(original: Any, self: Worker, *chains: Any) -> None:
        if len(chains) > 1:
            kept.append((self, chains[-1]))
            chains = chains[:-1]
        original(self, *chains)

    @wrap(Backend, "_handle")
    async def handle(original: Any, self: Backend, frame: Any) -> Any:
        while kept and frame.header.request != 11:
            give_back(*kept.pop())
        return await original(self, frame)


@mutant("B-VR-08")
def requests_in_flight_are_forgotten() -> None:
    """A ring that stops drops the requests that it has taken."""
    edit(Worker, "done", "if chains and", "if chains and not self.stopping and")
    _slow()


@mutant("B-STA-18", "B-STA-19")
def get_vring_base_does_not_stop() -> None:
    """GET_VRING_BASE answers, and the ring goes on."""
    _TRANSITIONS[RingEvent.GET_VRING_BASE] = Effect(None, None)

    @replace(Backend, "_take_base")
    async def take(self: Backend, index: int) -> int:
        worker = self.rings[index]._worker
        return worker.base if worker else self.rings[index].base(self.protocol.state.rings[index])


@mutant("B-VR-15", "B-STA-13")
def stopped_for_good() -> None:
    """A ring that was stopped never starts again."""
    stopped: set[int] = set()

    @wrap(Backend, "_take_base")
    async def take(original: Any, self: Backend, index: int) -> int:
        stopped.add(index)
        base: int = await original(self, index)
        return base

    @wrap(Backend, "_follow")
    async def follow(original: Any, self: Backend, ring: Ring) -> None:
        if ring.index not in stopped or not self.protocol.state.rings[ring.index].running:
            await original(self, ring)


@mutant("B-VR-16", "B-STA-22")
def one_stop_stops_all() -> None:
    """GET_VRING_BASE stops every ring."""

    @wrap(Backend, "_take_base")
    async def take(original: Any, self: Backend, index: int) -> int:
        await self._stop_rings()
        base: int = await original(self, index)
        return base


# --- states ----------------------------------------------------------------------------------------------------------


@mutant("B-STA-01", "B-STA-09")
def rings_begin_enabled() -> None:
    """With PROTOCOL_FEATURES too, rings are enabled from the beginning."""
    edit(RingState, "running", "self.started and self.enabled", "self.started")


@mutant("B-STA-02")
def rings_run_before_they_are_started() -> None:
    """A ring runs as soon as it has addresses, before SET_VRING_KICK."""
    edit(RingState, "running", "self.started and self.enabled", "self.addr is not None and self.size > 0")


@mutant("B-STA-03")
def rings_never_start() -> None:
    """SET_VRING_KICK starts nothing."""
    _TRANSITIONS[RingEvent.SET_VRING_KICK] = Effect(None, None)


@mutant("B-STA-04")
def rings_start_with_the_first_kick() -> None:
    """What stands in a ring when it starts is left alone until the first kick."""
    from vhostuser.backend.task import TaskWorker

    edit(
        TaskWorker,
        "run",
        "await self._device",
        "kick = self._ends.kick\n        if kick is not None: await kick.wait()\n        await self._device",
    )


@mutant("B-STA-06")
def enable_before_the_start_is_forgotten() -> None:
    """SET_VRING_ENABLE counts only for a ring that is started."""
    _TRANSITIONS[RingEvent.SET_VRING_KICK] = Effect(True, False)


@mutant("B-STA-07")
def disable_of_a_stopped_ring_is_forgotten() -> None:
    """SET_VRING_ENABLE 0 counts only for a ring that is started."""
    edit(
        rings,
        "moved",
        "started, enabled = TRANSITIONS[event]",
        "started, enabled = TRANSITIONS[event]\n"
        "    enabled = None if not ring.started and enabled is False else enabled",
    )


@mutant("B-STA-10")
def disable_ignored() -> None:
    """SET_VRING_ENABLE 0 does nothing."""
    _TRANSITIONS[RingEvent.DISABLE] = Effect(None, None)


@mutant("B-STA-11")
def disable_is_about_all_rings() -> None:
    """SET_VRING_ENABLE 0 disables every ring."""
    edit(
        ProtocolState,
        "_move_rings",
        "if index is not None:",
        "if event is rings.RingEvent.DISABLE: self.rings = tuple(rings.moved(ring, event) for ring in self.rings)\n"
        "        elif index is not None:",
    )

    @wrap(Backend, "_follow_named")
    async def follow(original: Any, self: Backend, message: Any) -> None:
        await self._follow_all()


@mutant("B-STA-12")
def stopping_disables() -> None:
    """GET_VRING_BASE disables the ring."""
    _TRANSITIONS[RingEvent.GET_VRING_BASE] = Effect(False, False)


@mutant("B-STA-14")
def enable_only_once() -> None:
    """SET_VRING_ENABLE 1 for an enabled ring is refused."""
    edit(
        rings,
        "moved",
        "started, enabled = TRANSITIONS[event]",
        "started, enabled = TRANSITIONS[event]\n"
        "    expect(enabled is not ring.enabled or not enabled, 'again', 'once')",
    )


@mutant("B-STA-15")
def enable_of_2_ends_the_program() -> None:
    """SET_VRING_ENABLE 2 ends the program."""
    from vhostuser.protocol import payloads

    edit(payloads, "check_payload", "expect(num in (0, 1),", "assert num in (0, 1); expect(True,")
    replace(state, "check_payload")(payloads.check_payload)


@mutant("B-STA-17")
def enable_acknowledged_too_early() -> None:
    """SET_VRING_ENABLE 1 is acknowledged, and done with the next message."""

    @wrap(Backend, "_follow_named")
    async def follow(original: Any, self: Backend, message: Any) -> None:
        if message.spec.request != 18 or not message.num:
            await original(self, message)

    @wrap(Backend, "_handle")
    async def handle(original: Any, self: Backend, frame: Any) -> Any:
        await self._follow_all()
        return await original(self, frame)


@mutant("B-STA-21")
def nobody_listens_when_all_is_stopped() -> None:
    """When all rings were stopped no message is answered any more."""

    @wrap(Backend, "_take_base")
    async def take(original: Any, self: Backend, index: int) -> int:
        base: int = await original(self, index)
        if not self._any_running():
            self.__dict__["silent"] = True
        return base

    @wrap(Backend, "_handle")
    async def handle(original: Any, self: Backend, frame: Any) -> Any:
        if "silent" in self.__dict__:
            await trio.sleep_forever()
        return await original(self, frame)
