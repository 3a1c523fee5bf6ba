"""What a back-end program has to understand on its command line (B-PRG-01 to 06, 13)."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from frontend.conformance.another import STARTING, another, ran, serves, started
from frontend.conformance.expect import equal
from frontend.conformance.session import Closed, Session
from frontend.conformance.suite import case
from vhostuser.conformance import CaseError, Failure, Level, Need, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from frontend.conformance.peer import Peer

SOCKET = "--socket-path={socket}"
TYPES = {
    *("9p", "balloon", "block", "caif", "console", "crypto", "fs", "gpu"),
    *("input", "net", "rng", "rpmsg", "rproc-serial", "scsi", "vsock"),
}
FEATURES = {
    "block": {"read-only", "blk-file"},
    "input": {"evdev-path", "no-grab"},
    "gpu": {"render-node", "virgl"},
}
"""By type, what can be advertised; every other type has nothing to advertise."""
DISK_BYTES = 1 << 20
program = partial(case, needs=[Need.CONVENTIONS], seconds=30)


async def capabilities(peer: Peer) -> dict[str, Any]:
    """What --print-capabilities prints.

    Raises:
        Failure: that is no JSON object, or the program did not end with status 0.
    """
    result = await ran(peer, "--print-capabilities")
    if result.status != 0:
        raise Failure(f"--print-capabilities: {result}; expected status 0")
    try:
        found = json.loads(result.stdout)
    except ValueError as error:
        raise Failure(f"--print-capabilities: stdout is no JSON ({error}): {result.stdout[:200]!r}") from None
    if not isinstance(found, dict):
        raise Failure(f"--print-capabilities: found {found!r}, expected a JSON object")
    return found


def scratch(peer: Peer) -> Path:
    """A folder for files of the case; there is one wherever we start the program."""
    assert peer.target.scratch is not None
    return peer.target.scratch


@program(
    "B-PRG-01",
    level=Level.MUST,
    section="Back-end program conventions",
    title="--socket-path is where the program listens",
    provoke="start it with --socket-path=PATH, connect, GET_FEATURES",
    passes="the connection is accepted, and the question answered",
)
async def socket_path(peer: Peer) -> None:
    """Management software starts every back-end alike, so the option has one name and a value of one kind."""
    async with another(peer, SOCKET) as launch:
        await serves(peer, launch)


@program(
    "B-PRG-02",
    level=Level.MUST,
    section="Back-end program conventions",
    title="--fd is the number of an inherited socket to serve",
    provoke="start it with --fd=N, N being a listening socket; if that is not served, a connected one",
    passes="GET_FEATURES is answered either way: the text does not say whether the socket listens",
)
async def inherited_socket(peer: Peer) -> None:
    """Whoever starts the program made the socket, where the program itself may have no right to."""
    async with another(peer, "--fd={fd}") as launch:
        try:
            await serves(peer, launch)
            peer.note("--fd takes a listening socket")
            return
        except (CaseError, Closed) as error:
            listening = str(error)
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        with Session(ours, peer.recorder, patience=STARTING) as session:
            await _connected(peer, session, theirs, listening)
    peer.note("--fd takes a connected socket")


async def _connected(peer: Peer, session: Session, theirs: socket.socket, listening: str) -> None:
    """Whether the program serves ``theirs``, which it inherits."""
    async with another(peer, f"--fd={theirs.fileno()}", pass_fds=[theirs.fileno()]):
        theirs.close()
        try:
            await session.in_sync()
        except (CaseError, Closed) as error:
            raise Failure(
                f"--fd: neither a listening socket is served ({listening}) nor a connected one ({error})"
            ) from None


@program(
    "B-PRG-03",
    level=Level.ROBUSTNESS,
    section="Back-end program conventions",
    title="--socket-path and --fd together are refused",
    provoke="start it with both, each of them good",
    passes="it ends with a status that is not 0",
)
async def both_sockets(peer: Peer) -> None:
    """A program that takes one of the two and forgets the other is waited for at the wrong socket."""
    path = str(scratch(peer) / "both.sock")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
        listener.bind(f"{path}.fd")
        listener.listen()
        result = await ran(peer, f"--socket-path={path}", f"--fd={listener.fileno()}", pass_fds=[listener.fileno()])
    if not result.status:
        raise Failure(f"--socket-path and --fd: {result}; expected another status than 0")


@program(
    "B-PRG-04",
    level=Level.MUST,
    section="Back-end program conventions",
    title="--print-capabilities prints a JSON object and ends",
    provoke="start it with --print-capabilities",
    passes="a JSON object is all that there is on stdout, and the status is 0",
)
async def prints_capabilities(peer: Peer) -> None:
    """It is how management software finds out what it may ask of the program, before it builds a machine upon it."""
    peer.note(f"--print-capabilities: {json.dumps(await capabilities(peer))}")


@program(
    "B-PRG-05",
    level=Level.SHOULD,
    section="Back-end program conventions",
    title="--print-capabilities does nothing else, whatever comes with it",
    provoke="start it with --print-capabilities and --socket-path=PATH",
    passes="it prints the same, ends with status 0, and there is no socket",
)
async def only_prints_capabilities(peer: Peer) -> None:
    """A question about a program must not get in the way of the one that is running."""
    path = scratch(peer) / "unused.sock"
    result = await ran(peer, "--print-capabilities", f"--socket-path={path}")
    if result.status != 0:
        raise Failure(f"--print-capabilities with --socket-path: {result}; expected status 0")
    if path.exists():
        path.unlink()
        raise Failure("--print-capabilities with --socket-path: found a socket, expected none")
    equal("what is printed", result.stdout, (await ran(peer, "--print-capabilities")).stdout)


@program(
    "B-PRG-06",
    level=Level.MUST,
    section="vhost-user.json",
    title="The capabilities name a type of device, and features of that type",
    provoke="start it with --print-capabilities",
    passes="'type' is one of the schema; features that the schema does not have are told: a later one may",
)
async def known_capabilities(peer: Peer) -> Verdict | None:
    """Who reads this has a schema, and takes what does not fit it for a broken program."""
    found = await capabilities(peer)
    if not isinstance(kind := found.get("type"), str) or kind not in TYPES:
        raise Failure(f"'type': found {kind!r}, expected one of {', '.join(sorted(TYPES))}")
    features = found.get("features", [])
    if not isinstance(features, list) or not all(isinstance(each, str) for each in features):
        raise Failure(f"'features': found {features!r}, expected a list of names")
    if unknown := sorted(set(features) - FEATURES.get(kind, set())):
        peer.note(f"features that the schema does not have for {kind}: {', '.join(unknown)}")
        return Verdict.WARN
    return None


@program(
    "B-PRG-13",
    level=Level.MUST,
    section="vhost-user.json",
    title="A feature that is advertised is an option that is accepted",
    provoke="for 'read-only' and 'blk-file', if they are advertised: start it with --read-only, --blk-file=FILE, "
    "besides its other options or, where those contradict, without them",
    passes="it starts, and answers GET_FEATURES; options that need hardware are not tried",
)
async def advertised_options(peer: Peer) -> None:
    """Only what is advertised is used; so whoever advertises too much does not start on the day it matters."""
    found = await capabilities(peer)
    if found.get("type") != "block":
        peer.note("nothing is advertised that can be tried without hardware")
        return
    disk = scratch(peer) / "advertised.img"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    file_option = f"--blk-file={disk}"
    features = found.get("features", [])
    if "blk-file" in features:
        await _accepted(peer, file_option, alone=(file_option,))
    if "read-only" in features:
        await _accepted(peer, "--read-only", alone=("--read-only", file_option))


async def _accepted(peer: Peer, option: str, *, alone: tuple[str, ...]) -> None:
    if not await started(peer, SOCKET, option):
        return
    if why := await started(peer, SOCKET, *alone, bare=True):
        raise Failure(f"{option} is advertised, and with it the program does not serve: {why}")
