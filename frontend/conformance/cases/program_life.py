"""How a back-end program lives with whoever started it (B-PRG-07 to 10)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.another import another, ran, serves, serving
from frontend.conformance.load import batch_of
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

SOON = 5.0
"""Seconds from SIGTERM to the end, after which management software may well send SIGKILL."""
NOWHERE = "/nowhere/at/all.sock"
program = partial(case, section="Back-end program conventions", needs=[Need.CONVENTIONS], seconds=30)


@program(
    "B-PRG-07",
    level=Level.MUST,
    title="It stays the process that was started",
    provoke="start it, and talk to it",
    passes="the process that was started is still there while its socket is served",
)
async def stays_in_front(peer: Peer) -> None:
    """Who started it watches that process, and signals it; a program that sends itself into the background is lost."""
    # Once the connection is closed a program for one front-end may end, so it is looked at before.
    async with another(peer, "--socket-path={socket}") as launch, serving(peer, launch):
        if ending := launch.program.poll():
            raise Failure(f"the process that was started {ending}, and its socket is served: by another process, then")


@program(
    "B-PRG-08",
    level=Level.MUST,
    title="SIGTERM ends it soon",
    provoke="SIGTERM: before anybody has said a word; with requests on a ring",
    passes=f"it has ended within {SOON:g} s each time, by no other signal",
)
async def sigterm(peer: Peer) -> None:
    """It is asked to end so that it can put its things in order; for one that does not, there is SIGKILL."""
    await peer.connect()
    await _terminated(peer, "idle")
    peer.hang_up()
    async with peer.device() as device:
        for request in batch_of(device):
            device.ring.add(request)
        device.ring.publish(kick=True)
        await _terminated(peer, "under load")


async def _terminated(peer: Peer, when: str) -> None:
    status = await peer.target.terminate(within=SOON)
    if status is None:
        raise Failure(f"{when}: it has not ended {SOON:g} s after SIGTERM")
    if status < 0 and status != -15:
        raise Failure(f"{when}: SIGTERM: found that signal {-status} ended it, expected an orderly end")
    peer.note(f"{when}: SIGTERM: {'its default action' if status < 0 else f'status {status}'}")


@program(
    "B-PRG-09",
    level=Level.SHOULD,
    title="It ends with a status when it cannot start",
    provoke="start it with an option that there is not; with a socket in a folder that there is not",
    passes="it ends by itself, soon, and not with status 0",
)
async def cannot_start(peer: Peer) -> None:
    """What goes wrong before the first message can be told to a person; later it is a machine that does not boot."""
    for arguments in (["--no-such-option-of-any-back-end"], [f"--socket-path={NOWHERE}"]):
        result = await ran(peer, *arguments)
        if not result.status:
            raise Failure(f"{' '.join(arguments)}: {result}; expected another status than 0")


@program(
    "B-PRG-10",
    level=Level.SHOULD,
    title="It works with nothing but /dev/null on descriptors 0 to 2",
    provoke="start it so, connect, GET_FEATURES",
    passes="the question is answered",
)
async def nobody_listens(peer: Peer) -> None:
    """Where a machine starts it, nobody looks at a terminal."""
    async with another(peer, "--socket-path={socket}", quiet=True) as launch:
        try:
            await serves(peer, launch)
        except Closed as error:
            raise Failure(str(error)) from None
