"""Descriptors for kick, call and err that are odd, full, too many or missing (B-NOT-11 to 15, 17, 19)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from frontend.conformance.endure import keeps_quiet
from frontend.conformance.hostile import Raw, survives_each, watched
from frontend.conformance.load import prepared
from frontend.conformance.oracle import open_fds
from frontend.conformance.session import Closed
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Unsupported, Verdict
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.transport.notifier import NotifierKind
from vhostuser.wire.features import ProtocolFeature
from vhostuser.wire.frontend_messages import SetVringCall, SetVringErr, SetVringKick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from frontend.conformance.peer import Device, Peer

hostile = partial(case, level=Level.ROBUSTNESS, tags=("hostile",))
MESSAGES = (SetVringKick, SetVringCall, SetVringErr)
ALMOST = (1 << 64) - 2
"""The most that an eventfd holds: adding 1 to it would block."""
REPLACEMENTS, BATCH = 350, 50
SLACK = 8
"""Descriptors that may be under way when we look."""


@hostile(
    "B-NOT-11",
    section="SET_VRING_KICK, _CALL, _ERR",
    title="A descriptor with a message that says there is none",
    provoke="each of the three messages with bit 8 and one descriptor",
    passes="refused, ignored or closed; the descriptor is closed",
)
async def fd_and_nofd(peer: Peer) -> Verdict | None:
    """Who looks at the bit alone never closes what came along."""
    with watched(peer) as fds:
        verdict = await survives_each(peer, *(Raw.of(each.of(0, no_fd=True), fds=fds.fds) for each in MESSAGES))
        await fds.check(keep_open="with bit 8 set")
    return verdict


@hostile(
    "B-NOT-12",
    section="SET_VRING_KICK, _CALL, _ERR",
    title="No descriptor with a message that says there is one",
    provoke="each of the three messages without bit 8 and without a descriptor",
    passes="refused, ignored or closed",
)
async def no_fd(peer: Peer) -> Verdict | None:
    """A descriptor that is not there must not become number 0, or -1, or the one of the message before."""
    return await survives_each(peer, *(Raw.of(each.of(0), fds=lambda: NO_FDS) for each in MESSAGES))


@hostile(
    "B-NOT-13",
    section="SET_VRING_KICK, _CALL, _ERR",
    title="Two descriptors where one belongs",
    provoke="each of the three messages with two",
    passes="refused, ignored or closed; both are closed",
)
async def two_fds(peer: Peer) -> Verdict | None:
    """The second is nobody's: it stays open as long as the back-end runs."""
    with watched(peer) as fds:
        verdict = await survives_each(peer, *(Raw.of(each.of(0), fds=lambda: fds.fds(2)) for each in MESSAGES))
        await fds.check(keep_open="as a second one")
    return verdict


@contextmanager
def _full(device: Device, *, blocking: bool) -> Iterator[None]:
    """The call descriptor is as full as it can be, and blocks whoever writes to it, or does not."""
    fd = device.ring.call.fileno()
    writer = device.ring.call_fds()
    try:
        os.set_blocking(writer.numbers()[0], False)
        if device.ring.call.kind is NotifierKind.EVENTFD:
            device.ring.drain_call()
            os.write(fd, ALMOST.to_bytes(8, "little"))
        else:
            _fill(writer.numbers()[0])
        os.set_blocking(writer.numbers()[0], blocking)
        yield
    finally:
        os.set_blocking(writer.numbers()[0], False)
        writer.close()
        device.ring.drain_call()


def _fill(fd: int) -> None:
    try:
        while True:
            os.write(fd, bytes(4096))
    except BlockingIOError:
        return


@hostile(
    "B-NOT-14",
    section="Platforms without eventfd",
    title="A call descriptor that is full",
    provoke="an eventfd at its largest value, or a full pipe, not blocking; requests",
    passes="they are done; messages are answered",
    variants=("split", "packed"),
)
async def call_full(peer: Peer) -> None:
    """There is something to read already, so nothing is lost: the write that fails is to be forgotten."""
    async with peer.device() as device:
        with _full(device, blocking=False):
            for number in range(3):
                device.ring.queue.arm()
                await device.ring.do(device.request(number))
                await device.session.in_sync()


@hostile(
    "B-NOT-15",
    section="Platforms without eventfd",
    title="A call descriptor that is full, and blocks",
    provoke="the same, and the front-end has made it blocking; a request",
    passes="messages are answered",
)
async def call_blocks(peer: Peer) -> None:
    """The flag belongs to the open file, which both sides share: a front-end can set it whenever it likes.

    Whether the request comes back is another question; a back-end with a thread for each ring may lose that thread.
    """
    async with peer.device() as device:
        with _full(device, blocking=True):
            device.ring.queue.arm()
            device.ring.add(device.request())
            device.ring.publish(kick=True)
            await trio.sleep(0.05)
            await device.session.in_sync()


def _regular_file() -> Fd:
    return Fd(os.memfd_create("kick") if hasattr(os, "memfd_create") else os.open(__file__, os.O_RDONLY))


def _dead_pipe() -> Fd:
    read_end, write_end = os.pipe()
    os.close(write_end)
    return Fd(read_end)


def _null() -> Fd:
    return Fd(os.open(os.devnull, os.O_RDWR))


@hostile(
    "B-NOT-17",
    section="SET_VRING_KICK",
    title="A kick descriptor that is none",
    provoke="a regular file; a pipe whose other end is closed; /dev/null",
    passes="refused, closed, or of no use; messages are answered, and no processor is kept busy",
)
async def odd_kick(peer: Peer) -> Verdict | None:
    """All three are always readable, and reading them brings nothing: a loop around that never ends."""
    closed = [await _odd_kick(peer, name, make) for name, make in _ODD.items()]
    return Verdict.REJECT if all(closed) else None


_ODD: dict[str, Callable[[], Fd]] = {"a file": _regular_file, "a dead pipe": _dead_pipe, "/dev/null": _null}


async def _odd_kick(peer: Peer, name: str, make: Callable[[], Fd]) -> bool:
    device = await prepared(peer)
    session, ring = device.session, device.ring
    try:
        await ring.configure(session)
        await session.send(SetVringKick.of(ring.index), Fds.of(make()), need_reply=session.acks)
        outcome = await session.outcome(SetVringKick.spec.request)
        peer.note(f"{name}: {outcome.value}")
        if not outcome.refused:
            await ring.enable(session)
            try:
                await keeps_quiet(peer)
            except Failure as error:
                raise Failure(f"{name} as kick descriptor: {error}") from None
            await session.in_sync()
    except Closed:
        peer.note(f"{name}: closed the connection")
        await peer.alive()
        return True
    await peer.alive()
    return False


@hostile(
    "B-NOT-19",
    section="SET_VRING_KICK, _CALL, _ERR",
    title="Descriptors that are replaced are closed",
    provoke=f"{REPLACEMENTS} new kick, call and err descriptors each for a running ring",
    passes="as many are open afterwards as before",
    needs=(Need.OUR_PROCESS,),
)
async def replaced_are_closed(peer: Peer) -> None:
    """A guest that masks and unmasks an interrupt makes a front-end send new ones for years."""
    async with peer.device(protocol=ProtocolFeature.MQ) as device:
        session, ring = device.session, device.ring
        await device.works(1)
        before = open_fds(peer)
        if before is None:
            raise Unsupported("the back-end's descriptors cannot be counted")
        for number in range(REPLACEMENTS):
            await ring.send_call(session)
            await ring.send_kick(session)
            await session.send(SetVringErr.of(ring.index), ring.err_fds())
            if number % BATCH == 0:
                await session.in_sync()
        await session.in_sync()
        after = open_fds(peer)
        if after is not None and after > before + SLACK:
            raise Failure(
                f"open descriptors: found {after}, expected {before} as before {3 * REPLACEMENTS} replacements"
            )
        ring.notify()
        await device.works(1)
