"""Kick, call and err (B-NOT-01 to 10, 16, 18)."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from frontend.conformance.datapath import CALL_WITHIN, owed_a_call
from frontend.conformance.load import prepared, start
from frontend.conformance.raw_ring import RawRing
from frontend.conformance.session import Closed, Outcome
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Verdict, Wedged
from vhostuser.transport.notifier import NotifierKind
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.frontend_messages import SetVringCall, SetVringErr, SetVringKick

if TYPE_CHECKING:
    from frontend.conformance.peer import Peer

notifying = partial(case, tags=("ring",), variants=("split", "packed"))
once = partial(case, tags=("ring",))
EMPTY_KICKS = 1000


@notifying(
    "B-NOT-01",
    level=Level.MUST,
    section="SET_VRING_KICK",
    title="The kick descriptor wakes the back-end",
    provoke="a request, 8 bytes written to the descriptor",
    passes="the request is done",
)
async def kick_wakes(peer: Peer) -> None:
    """There is no other way for a driver to say that there is work."""
    async with peer.device() as device:
        await device.works(1)
        for number in range(3):
            await device.ring.do(device.request(number), kick=True)


@notifying(
    "B-NOT-02",
    level=Level.MUST,
    section="SET_VRING_CALL",
    title="The call descriptor is signalled on completion",
    provoke="requests, with calls asked for",
    passes="it becomes readable after each",
)
async def call_signalled(peer: Peer) -> None:
    """A guest sleeps until then."""
    async with peer.device() as device:
        await owed_a_call(device, lambda: _ignore(device.ring.queue.arm()), "the driver asks for it")


def _ignore(_: object) -> None:
    pass


@once(
    "B-NOT-03",
    level=Level.SHOULD,
    section="Platforms without eventfd",
    title="What is written to the kick descriptor means nothing",
    provoke="1, 5 and 2^32 written to it",
    passes="a request is done each time",
)
async def any_value(peer: Peer) -> None:
    """An eventfd adds values up, a pipe does not; only that there is something to read counts."""
    async with peer.device() as device:
        for value in (1, 5, 1 << 32):
            device.ring.add(device.request())
            device.ring.publish(kick=False)
            os.write(device.ring.kick.fileno(), value.to_bytes(8, sys.byteorder))
            try:
                await device.ring.finish()
            except Wedged as error:
                raise Failure(f"kicked with the value {value}: {error}") from None


@notifying(
    "B-NOT-04",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="The call descriptor is replaced while the ring runs",
    provoke="SET_VRING_CALL with a new one, three times",
    passes="the new one is signalled from then on",
)
async def call_replaced(peer: Peer) -> None:
    """Front-ends swap it whenever a guest masks an interrupt."""
    async with peer.device() as device:
        for _ in range(3):
            device.ring.renew_call()
            await device.ring.send_call(device.session)
            await device.session.in_sync()
            device.ring.queue.arm()
            await device.ring.do(device.request())
            if not await device.ring.called(CALL_WITHIN):
                raise Failure(f"the new call descriptor was not signalled within {CALL_WITHIN:g} s of a completion")


@notifying(
    "B-NOT-05",
    level=Level.ROBUSTNESS,
    section="Ring states",
    title="The kick descriptor is replaced while the ring runs",
    provoke="SET_VRING_KICK with a new one, three times",
    passes="a request is done when the new one is written to",
)
async def kick_replaced(peer: Peer) -> None:
    """Front-ends do so when who kicks changes, a guest's processor or they themselves."""
    async with peer.device() as device:
        for _ in range(3):
            device.ring.renew_kick()
            await device.ring.send_kick(device.session)
            await device.session.in_sync()
            await device.ring.do(device.request(), kick=True)


@notifying(
    "B-NOT-06",
    level=Level.MUST,
    section="SET_VRING_CALL",
    title="Without a call descriptor the ring works all the same",
    provoke="SET_VRING_CALL with bit 8 and no descriptor; requests",
    passes="they are done, as a look at the ring tells",
)
async def no_call(peer: Peer) -> None:
    """The driver polls: it wants no call, and gets its buffers back nevertheless."""
    async with peer.device() as device:
        await device.session.tell(SetVringCall.of(device.ring.index, no_fd=True))
        await device.works(3)


async def _polled(peer: Peer) -> str:
    """Start a ring without a kick descriptor, and put a request into it: what becomes of it."""
    device = await prepared(peer)
    session = device.session
    try:
        for ring in device.rings:
            await ring.configure(session)
            await session.send(SetVringKick.of(ring.index, no_fd=True), need_reply=session.acks)
            outcome = await session.outcome(SetVringKick.spec.request)
            if outcome is not Outcome.ACK and outcome is not Outcome.IGNORED:
                return str(outcome.value)
            await ring.enable(session)
        device.ring.patience = 2.0
        await device.ring.do(device.request(), kick=False)
    except Closed:
        return str(Outcome.CLOSED.value)
    except Wedged:
        await session.in_sync()
        return "accepted, and nothing is done"
    return "polls"


@once(
    "B-NOT-07",
    level=Level.SHOULD,
    section="SET_VRING_KICK",
    title="Without a kick descriptor the back-end polls",
    provoke="SET_VRING_KICK with bit 8 and no descriptor; a request and no kick",
    passes="the request is done",
)
async def polls(peer: Peer) -> None:
    """The front-end cannot signal, or does not want to: the ring is to be looked at again and again."""
    if (found := await _polled(peer)) != "polls":
        raise Failure(f"a ring without a kick descriptor: {found}")


@once(
    "B-NOT-08",
    level=Level.ROBUSTNESS,
    section="SET_VRING_KICK",
    title="A back-end that cannot poll says so",
    provoke="SET_VRING_KICK with bit 8 and no descriptor",
    passes="it polls, or refuses or closes; accepting it and doing nothing is told, since no rule forbids it",
)
async def cannot_poll(peer: Peer) -> Verdict | None:
    """No feature tells beforehand whether a back-end can, so an error is all that a front-end could go by."""
    found = await _polled(peer)
    peer.note(found)
    await peer.alive()
    if found == Outcome.CLOSED.value:
        return Verdict.REJECT
    return Verdict.WARN if found.startswith("accepted") else None


@once(
    "B-NOT-09",
    level=Level.MUST,
    section="SET_VRING_ERR",
    title="An err descriptor is accepted",
    provoke="SET_VRING_ERR with a descriptor, and without one",
    passes="acknowledged with 0 where that was asked for; the ring works",
)
async def err_accepted(peer: Peer) -> None:
    """A back-end need not use it, but has to take it, or the front-end's set-up fails."""
    async with peer.device() as device:
        await device.session.tell(SetVringErr.of(device.ring.index), device.ring.err_fds())
        await device.works(1)
        await device.session.tell(SetVringErr.of(device.ring.index, no_fd=True))
        await device.works(1)


@once(
    "B-NOT-10",
    level=Level.SHOULD,
    section="SET_VRING_ERR",
    title="The err descriptor is signalled when the ring is broken",
    provoke="a head that is no descriptor",
    passes="it becomes readable; or the connection is closed",
)
async def err_signalled(peer: Peer) -> Verdict | None:
    """Otherwise nobody hears of it: the guest waits for a request that will never be done."""
    async with peer.device() as device:
        RawRing(device.ring).offer(0xFFFF)
        device.ring.notify()
        try:
            if await device.ring.errored(0.5):
                return None
            await device.session.in_sync()
        except Closed:
            return Verdict.REJECT
    raise Failure("the err descriptor was not signalled within 0.5 s of a head that is no descriptor")


@notifying(
    "B-NOT-16",
    level=Level.ROBUSTNESS,
    section="Platforms without eventfd",
    title="Pipes instead of eventfds",
    provoke="a read end as kick, a write end as call",
    passes="requests are done and called; a program for Linux alone may refuse",
)
async def pipes(peer: Peer) -> Verdict | None:
    """Where there is no eventfd, pipes take its place; front-ends on Linux may use them as well."""
    device = await prepared(peer)
    for ring in device.rings:
        ring.renew_kick(NotifierKind.PIPE)
        ring.renew_call(NotifierKind.PIPE)
    try:
        await start(device)
        await owed_a_call(device, lambda: _ignore(device.ring.queue.arm()), "the driver asks for it")
    except Closed:
        peer.note("closed the connection")
        return Verdict.REJECT
    except (Failure, Wedged) as error:
        peer.note(f"pipes do not work: {error}")
        await peer.alive()
        return Verdict.WARN
    return None


@notifying(
    "B-NOT-18",
    level=Level.ROBUSTNESS,
    section="V 2.7.10",
    title="Kicks without anything to do",
    provoke=f"{EMPTY_KICKS} kicks of an empty ring",
    passes="nothing is used; a request afterwards is done",
)
async def empty_kicks(peer: Peer) -> None:
    """A kick is a hint that there may be something, and not a number of chains."""
    async with peer.device(virtio=VirtioFeature.EVENT_IDX) as device:
        raw = RawRing(device.ring)
        for number in range(EMPTY_KICKS):
            device.ring.notify()
            if number % 50 == 0:
                await device.session.in_sync()
        await device.session.in_sync()
        if raw.used():
            raise Failure("something was used in a ring that is empty")
        await device.works(1)
