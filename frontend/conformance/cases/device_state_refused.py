"""Device state that is bad, or moved at the wrong time or not at all (B-DS-08, 09, 11 to 17)."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.bring_up import bring_up
from frontend.conformance.hostile import Raw, survives_each, watched
from frontend.conformance.session import Closed, Outcome
from frontend.conformance.suite import case
from frontend.conformance.transfer import LOAD, PROTOCOL, SAVE, begin, check, saved, state_pipe, with_transfer
from vhostuser.conformance import Failure, Level, Skip, Verdict
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import CheckDeviceState, SetDeviceStateFd
from vhostuser.wire.records import TransferPhase

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

GARBAGE = random.Random(42).randbytes(4096)
STOPPED = TransferPhase.STOPPED
NEEDS = (ProtocolFeature.DEVICE_STATE,)

hostile = partial(
    case, level=Level.ROBUSTNESS, section="msg SET_DEVICE_STATE_FD", needs=NEEDS, tags=("migration", "hostile")
)


async def own_state(peer: Peer) -> bytes:
    """What the target saves when nothing has happened yet; the connection is closed.

    Raises:
        Skip: it has no state.
    """
    data = await saved(await with_transfer(peer))
    peer.hang_up()
    if not data:
        raise Skip("the device has no state: it saves 0 bytes")
    return data


async def refuses(peer: Peer, data: bytes, what: str) -> Verdict | None:
    """``data`` is no state, and the back-end says so.

    Returns:
        REJECT when it hung up over it.

    Raises:
        Failure: CHECK_DEVICE_STATE says that all is well.
    """
    session = await with_transfer(peer)
    try:
        async with begin(session, LOAD) as begun:
            if begun.error:
                peer.note(f"{what}: SET_DEVICE_STATE_FD was answered with {begun.value:#x}")
                return None
            if not await begun.write(data, within=session.patience):
                peer.note(f"{what}: the back-end did not read all of it")
        found = await check(session)
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    if not found:
        raise Failure(f"CHECK_DEVICE_STATE after {what} was loaded: found 0, expected non-zero")
    return None


@hostile(
    "B-DS-08",
    section="msg CHECK_DEVICE_STATE",
    title="What is no state is not loaded",
    provoke=f"{len(GARBAGE)} random bytes to load; CHECK_DEVICE_STATE",
    passes="non-zero, or closed; the program lives",
)
async def garbage(peer: Peer) -> Verdict | None:
    """State comes from another program, perhaps of another version, through who knows what: it is no more to be
    trusted than a guest."""
    await own_state(peer)
    return await refuses(peer, GARBAGE, f"{len(GARBAGE)} random bytes")


@hostile(
    "B-DS-09",
    section="msg CHECK_DEVICE_STATE",
    title="Half a state is not loaded",
    provoke="the first half of what the target saves, to load; CHECK_DEVICE_STATE",
    passes="non-zero, or closed; the program lives",
)
async def truncated(peer: Peer) -> Verdict | None:
    """A migration that breaks off looks like an end of file."""
    data = await own_state(peer)
    return await refuses(peer, data[: len(data) // 2], f"{len(data) // 2} of {len(data)} bytes of state")


@hostile(
    "B-DS-11",
    section="msg CHECK_DEVICE_STATE",
    title="Nobody reads the state",
    provoke="SET_DEVICE_STATE_FD to save, with a full pipe, whose read end is closed then; CHECK_DEVICE_STATE",
    passes="non-zero, or closed; a device with a pipe of its own may have written already; the program lives",
)
async def reader_leaves(peer: Peer) -> Verdict | None:
    """A front-end gives up a migration when it likes.  SIGPIPE ends a program that does not ignore it."""
    await own_state(peer)
    session = await with_transfer(peer)
    try:
        async with begin(session, pipe=state_pipe(full=True)) as begun:
            begun.accepted()
        found = await check(session)
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    if not found and not begun.fds:
        raise Failure("CHECK_DEVICE_STATE after a pipe was closed that nothing went through: found 0, expected another")
    await peer.alive()
    return None


@hostile(
    "B-DS-12",
    title="Messages are answered while state waits to be read",
    provoke="SET_DEVICE_STATE_FD to save, with a pipe that has little room, and nobody reads; GET_FEATURES; then the "
    "state is read",
    passes="GET_FEATURES is answered, and the end of the state comes",
)
async def slow_reader(peer: Peer) -> None:
    """State can be larger than a pipe, and front-ends read it when they have the time."""
    session = await with_transfer(peer)
    async with begin(session, pipe=state_pipe(smallest=True)) as begun:
        begun.accepted()
        await session.in_sync()
        data = await begun.read(within=session.patience)
    peer.note(f"{len(data)} bytes of state, a pipe that has room for 4096")


@hostile(
    "B-DS-13",
    title="Directions and phases that do not exist are refused",
    provoke="SET_DEVICE_STATE_FD with direction 2 and 0xffffffff, and with phase 1",
    passes="an error in the low byte of the reply, or closed; the program lives",
)
async def unknown_numbers(peer: Peer) -> Verdict | None:
    """A phase of the future may mean that rings are running."""
    verdicts = {await _refused(peer, *numbers) for numbers in ((2, STOPPED), (0xFFFF_FFFF, STOPPED), (SAVE, 1))}
    return Verdict.REJECT if verdicts == {Verdict.REJECT} else None


async def _refused(peer: Peer, direction: int, phase: int) -> Verdict | None:
    session = await with_transfer(peer)
    try:
        async with begin(session, direction, phase) as begun:
            await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    if not begun.error:
        raise Failure(
            f"SET_DEVICE_STATE_FD direction {direction:#x}, phase {phase}: found {begun.value:#x}, expected an error "
            "in the low byte"
        )
    await peer.alive()
    return None


@hostile(
    "B-DS-14",
    title="State is not moved while rings run",
    provoke="SET_DEVICE_STATE_FD to save, while a device works",
    passes="an error in the low byte of the reply, or closed; that it is accepted is told",
)
async def while_running(peer: Peer) -> Verdict | None:
    """What is saved is then already wrong when it is read.  It is the front-end that must not ask for it."""
    session = await with_transfer(peer)
    try:
        device = await bring_up(peer, session, peer.memory())
        await device.works()
        async with begin(session) as begun:
            if begun.error:
                await device.works()
                return None
            data = await begun.read(within=session.patience)
        found = await check(session)
        peer.note(f"saved {len(data)} bytes while rings were running; CHECK_DEVICE_STATE: {found:#x}")
        await session.in_sync()
    except Closed:
        await peer.alive()
        return Verdict.REJECT
    return None if found else Verdict.WARN


@hostile(
    "B-DS-15",
    title="SET_DEVICE_STATE_FD without a descriptor, and with two",
    provoke="SET_DEVICE_STATE_FD to save and to load, with no descriptor and with two",
    passes="refused, ignored or closed; descriptors are closed; the program lives",
)
async def fd_counts(peer: Peer) -> Verdict | None:
    """One that is not there must not become number 0, and of two one is nobody's."""
    with watched(peer) as fds:
        messages = [
            Raw.of(SetDeviceStateFd(direction, STOPPED), fds=partial(fds.fds, count))
            for direction in (SAVE, LOAD)
            for count in (0, 2)
        ]
        verdict = await survives_each(peer, *messages, protocol=PROTOCOL)
        await fds.check(keep_open="with SET_DEVICE_STATE_FD")
    return verdict


@hostile(
    "B-DS-16",
    section="msg CHECK_DEVICE_STATE",
    title="CHECK_DEVICE_STATE without a transfer is answered",
    provoke="CHECK_DEVICE_STATE on a new connection",
    passes="a reply with any number, or closed; the program lives",
)
async def nothing_to_check(peer: Peer) -> Verdict | None:
    """Nothing went wrong, and nothing went well: the text has no word on it, but a question has an answer."""
    session = await with_transfer(peer)
    await session.send(CheckDeviceState())
    outcome = await session.outcome(CheckDeviceState.spec.request)
    peer.note(outcome.value)
    await peer.alive()
    if outcome is Outcome.IGNORED:
        raise Failure("CHECK_DEVICE_STATE was not answered, expected a reply")
    return Verdict.REJECT if outcome is Outcome.CLOSED else None


@hostile(
    "B-DS-17",
    title="Messages about device state without their feature are survived",
    provoke="SET_DEVICE_STATE_FD to save and to load, and CHECK_DEVICE_STATE, where it was not negotiated",
    passes="refused, ignored, answered or closed; descriptors are closed; the program lives",
    needs=(),
    absent=NEEDS,
)
async def not_negotiated(peer: Peer) -> Verdict | None:
    """The pipe belongs to nobody then, and keeps a front-end waiting for its end."""
    with watched(peer) as fds:
        messages = [Raw.of(SetDeviceStateFd(direction, STOPPED), fds=fds.fds) for direction in (SAVE, LOAD)]
        verdict = await survives_each(peer, *messages, Raw.of(CheckDeviceState()))
        await fds.check(keep_open="with SET_DEVICE_STATE_FD")
    return verdict
