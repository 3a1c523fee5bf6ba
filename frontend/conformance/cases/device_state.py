"""Device state that is saved and loaded (B-DS-01 to 07, and 10)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.expect import equal
from frontend.conformance.load import start
from frontend.conformance.peer import Device
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from frontend.conformance.transfer import SAVE, begin, check, elsewhere, loaded, read_state, saved, with_transfer
from vhostuser.conformance import Failure, Level, Verdict
from vhostuser.wire.features import ProtocolFeature

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session

state_case = partial(
    case,
    level=Level.MUST,
    section="Migrating back-end state",
    needs=(ProtocolFeature.DEVICE_STATE,),
    tags=("migration",),
)
WAITING = 2
"""Requests that lie in the ring, not yet seen by the device, while its state is moved."""


async def suspended(peer: Peer, session: Session) -> Device:
    """A device that has worked, and whose rings are all stopped; each ring's ``base`` says where."""
    device = await bring_up(peer, session, peer.memory())
    await device.works(2)
    for ring in device.rings:
        ring.base = await ring.stop(session)
    return device


async def goes_on(device: Device) -> None:
    """Rings are started where they were stopped; what was waiting is done, and more than that.

    Raises:
        Failure: an answer is wrong.
        Wedged: a request is not done.
    """
    await start(device)
    for request, used in await device.ring.finish():
        request.check(used)
    await device.works(2)


def wait_in_ring(device: Device) -> None:
    """Some requests that the driver made available while the ring was stopped; it is kicked when it is started."""
    for number in range(WAITING):
        device.ring.add(device.request(number))
    device.ring.publish(kick=False)


@state_case(
    "B-DS-01",
    section="msg SET_DEVICE_STATE_FD",
    title="A suspended device lets its state be saved",
    provoke="rings stopped; SET_DEVICE_STATE_FD to save, with a pipe",
    passes="a reply with 0 in its low byte",
)
async def save_is_accepted(peer: Peer) -> None:
    """All rings are stopped, so nothing changes any more: this is the time that the text has for it."""
    session = await with_transfer(peer)
    await suspended(peer, session)
    await read_state(session)


@state_case(
    "B-DS-02",
    section="msg SET_DEVICE_STATE_FD",
    title="Bit 8 of the reply is set if, and only if, no descriptor comes with it",
    provoke="SET_DEVICE_STATE_FD to save",
    passes="bit 8 and no descriptor, or neither bit 8 nor more than one descriptor",
)
async def bit_and_fd(peer: Peer) -> None:
    """The front-end knows by that bit which of two pipes to read, and waits for ever at the wrong one."""
    session = await with_transfer(peer)
    async with begin(session) as begun:
        equal(f"descriptors with the reply {begun.value:#x}", begun.fds, 0 if begun.no_fd else 1)


@state_case(
    "B-DS-03",
    section="msg SET_DEVICE_STATE_FD",
    title="An error comes without a descriptor",
    provoke="SET_DEVICE_STATE_FD with a direction and with a phase that do not exist, and while rings run",
    passes="each is accepted, closed, or answered with an error, bit 8 set and no descriptor",
)
async def error_without_fd(peer: Peer) -> Verdict | None:
    """A descriptor that comes with an error is one that nobody closes."""
    verdicts = {await _error(peer, *wrong) for wrong in ((2, 0, False), (SAVE, 1, False), (SAVE, 0, True))}
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


async def _error(peer: Peer, direction: int, phase: int, running: bool) -> Verdict | None:
    session = await with_transfer(peer)
    try:
        if running:
            await bring_up(peer, session, peer.memory())
        async with begin(session, direction, phase) as begun:
            await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    if begun.error and (begun.fds or not begun.no_fd):
        raise Failure(
            f"SET_DEVICE_STATE_FD direction {direction}, phase {phase}: found error {begun.value:#x} with {begun.fds} "
            "descriptors, expected bit 8 and none"
        )
    peer.hang_up()
    return None


@state_case(
    "B-DS-04",
    title="The end of saved state is the end of the file",
    provoke="rings stopped; SET_DEVICE_STATE_FD to save; read until there is no more",
    passes="the end comes",
)
async def end_of_file(peer: Peer) -> None:
    """How long it is is told nowhere else: the reader goes on until the writer has closed its end."""
    session = await with_transfer(peer)
    await suspended(peer, session)
    data = await read_state(session)
    peer.note(f"{len(data)} bytes of state")


@state_case(
    "B-DS-05",
    section="msg CHECK_DEVICE_STATE",
    title="CHECK_DEVICE_STATE says 0 after a state was saved",
    provoke="rings stopped; the state is saved and read to its end; CHECK_DEVICE_STATE",
    passes="0; that it hangs up after that is told here, and no good in B-DS-10",
)
async def check_after_save(peer: Peer) -> Verdict | None:
    """An end of file may be the end of a program; only this tells that all of the state was written."""
    session = await with_transfer(peer)
    await suspended(peer, session)
    await saved(session)
    try:
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    return None


@state_case(
    "B-DS-06",
    title="Saved state is loaded",
    provoke="state saved by one process, where we may start them, and loaded by another; CHECK_DEVICE_STATE",
    passes="0",
)
async def load(peer: Peer) -> None:
    """It is what the other end of a migration does with it."""
    session = await with_transfer(peer)
    await suspended(peer, session)
    data = await saved(session)
    session = await elsewhere(peer)
    equal("CHECK_DEVICE_STATE after saved state was loaded", await loaded(session, data), 0)
    await session.in_sync()


@state_case(
    "B-DS-07",
    title="A device goes on where its state was loaded",
    provoke="a device that has worked is stopped and saved, with requests waiting in its ring; its state is loaded by "
    "another process, which gets the same memory and rings",
    passes="what was waiting is done, and more",
)
async def migrate(peer: Peer) -> None:
    """The guest's driver does not know that there was a migration, and sends the next request as if nothing was."""
    device = await suspended(peer, await with_transfer(peer))
    wait_in_ring(device)
    data = await saved(device.session)
    session = await elsewhere(peer)
    equal("CHECK_DEVICE_STATE after saved state was loaded", await loaded(session, data), 0)
    await device.memory.share(session)
    await goes_on(Device(session, device.memory, device.rings, device.model))


@state_case(
    "B-DS-10",
    title="The source goes on when the migration failed",
    provoke="a device that has worked is stopped and saved, with requests waiting in its ring; its rings are started "
    "again",
    passes="what was waiting is done, and more",
)
async def source_goes_on(peer: Peer) -> None:
    """Whatever goes wrong at the destination, the guest must not lose its device at the source."""
    device = await suspended(peer, await with_transfer(peer))
    wait_in_ring(device)
    await read_state(device.session)
    await check(device.session)
    await goes_on(device)
