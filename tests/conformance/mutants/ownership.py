"""Faults of sessions: who owns them, and what becomes of the program when a front-end leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from tests.conformance.mutants.registry import edit, mutant, replace, wrap
from vhostuser.backend import server
from vhostuser.backend.connection import Backend
from vhostuser.cli import serving
from vhostuser.protocol.state import ProtocolState

if TYPE_CHECKING:
    from vhostuser.device import Device
    from vhostuser.transport.unix import Listener


@mutant("B-OWN-03")
def second_owner_asserted() -> None:
    """A second SET_OWNER ends the program."""
    edit(ProtocolState, "_apply", "self.owner = True", "assert not self.owner; self.owner = True")


@mutant("B-OWN-02")
def owner_first() -> None:
    """SET_OWNER is refused when something else came before it."""
    edit(
        ProtocolState,
        "_apply",
        "self.owner = True",
        "expect(not self.protocol_features, 'late', 'first'); self.owner = True",
    )


@mutant("B-OWN-04")
def reset_owner_stops_the_rings() -> None:
    """RESET_OWNER takes the memory away."""

    @wrap(Backend, "_act")
    async def act(original: Any, self: Backend, message: Any, frame: Any) -> Any:
        if message.spec.request == 4:
            await self._use_memory(type(self.memory).EMPTY)
        return await original(self, message, frame)


@mutant("B-OWN-05")
def reset_owner_forgets_protocol_features() -> None:
    """RESET_OWNER takes protocol features back."""

    @wrap(ProtocolState, "_apply")
    def apply(original: Any, self: ProtocolState, message: Any) -> None:
        original(self, message)
        if message.spec.request == 4:
            self.protocol_features = type(self.protocol_features)(0)


@mutant("B-OWN-06")
def one_session_and_no_end() -> None:
    """After the first front-end nobody is served any more, and the program stays."""

    @replace(serving, "serve")
    async def serve(device: Device, listener: Listener, **options: Any) -> None:
        await server.serve_one(device, await listener.accept(), **options)
        await trio.sleep_forever()


@mutant("B-OWN-06")
def a_front_end_that_leaves_ends_the_program() -> None:
    """The program ends with status 1 when its front-end hangs up."""

    @replace(serving, "serve")
    async def serve(device: Device, listener: Listener, **options: Any) -> None:
        await server.serve_one(device, await listener.accept(), **options)
        raise SystemExit(1)


@mutant("B-OWN-06")
def busy_after_the_first_front_end() -> None:
    """Once a front-end has left, the program looks for the next one without a pause."""

    async def look() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    @wrap(server, "serve_one")
    async def serve_one(original: Any, device: Device, channel: Any, **options: Any) -> None:
        await original(device, channel, **options)
        trio.lowlevel.spawn_system_task(look)


@mutant("B-OWN-07")
def a_loss_in_the_middle_of_requests_ends_the_program() -> None:
    """A front-end that hangs up while rings run ends the program."""
    edit(Backend, "_serve", "return", "if self._any_running(): raise RuntimeError('gone')\n                return")


@mutant("B-OWN-08")
def the_next_front_end_throws_out_the_first() -> None:
    """A second connection ends the first."""

    @replace(serving, "serve")
    async def serve(device: Device, listener: Listener, **options: Any) -> None:
        while True:
            channel = await listener.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_the_next, listener, nursery.cancel_scope)
                await server.serve_one(device, channel, **options)
                nursery.cancel_scope.cancel()


async def _until_the_next(listener: Listener, session: trio.CancelScope) -> None:
    await trio.lowlevel.wait_readable(listener.fileno())
    session.cancel()


@mutant("B-OWN-06", "B-OWN-07")
def connections_stay_open() -> None:
    """The socket of a front-end that left is never closed."""
    kept = []

    @wrap(server, "serve_one")
    async def serve_one(original: Any, device: Device, channel: Any, **options: Any) -> None:
        kept.append(channel._sock.dup())
        await original(device, channel, **options)
