"""Requests whose largest buffer lies where the case wants it: across two regions, or in no region at all."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from frontend.conformance.session import Closed
from frontend.conformance.watch import Footprint, written_by_device
from frontend.guest.memory import Buffer
from vhostuser.conformance import Failure, Verdict, Wedged
from vhostuser.memory.map import GuestAddr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.model import Request
    from frontend.conformance.peer import Device, Peer

REACTION = 0.1
"""Seconds in which something may be seen of a request that cannot be done."""


def largest(request: Request) -> Buffer:
    """The largest buffer that the device writes; of those that it reads, if it writes none."""
    return max(request.writable or request.readable, key=len)


def moved(request: Request, addr: int) -> Request:
    """The request with its `largest` buffer at guest address ``addr``, whatever is there."""
    return exchanged(request, Buffer(GuestAddr(addr), 0, largest(request).view), request.check)


def across(request: Request, memory: SharedMemory, boundary: int) -> Request:
    """The request with its `largest` buffer lying half before and half behind a guest address, in two regions.

    What the buffer holds is put there; what the device writes there is seen by the request's check.
    """
    old = largest(request)
    addr = GuestAddr(boundary - len(old) // 2)
    pieces = memory.guest.views(addr, len(old))
    _spread(old.view, pieces)

    def check(used: int) -> None:
        old.view[:] = b"".join(map(bytes, pieces))
        request.check(used)

    return exchanged(request, Buffer(addr, 0, old.view), check)


async def unreachable(peer: Peer, device: Device, request: Request) -> Verdict | None:
    """Give the device a request with an address that leads nowhere.

    It may complete it with an error, stop serving the ring or hang up; it has to live.

    Returns:
        REJECT when it hung up.

    Raises:
        Failure: something else was written to, or the request came back as if it had been done.
    """
    addr, verdict = largest(request).addr, None
    done: list[tuple[Request, int]] = []
    device.ring.add(request)
    device.ring.publish(kick=False)
    before = Footprint(device.memory)
    device.ring.notify()
    try:
        try:
            done = await device.ring.finish(1, within=REACTION)
            peer.note(f"a buffer at {addr:#x}: came back with used length {done[0][1]}")
        except Wedged:
            peer.note(f"a buffer at {addr:#x}: never came back")
        await device.session.in_sync()
    except Closed:
        peer.note(f"a buffer at {addr:#x}: closed the connection")
        verdict = Verdict.REJECT
    before.check([*written_by_device(*device.rings), *((int(each.addr), len(each)) for each in request.writable)])
    await peer.alive()
    if done and device.model.knows:
        _check_failed(request, done[0][1])
    return verdict


def _check_failed(request: Request, used: int) -> None:
    """Not all that it has room for was written, or it says that it went wrong."""
    if used < request.room:
        return
    try:
        request.check(used)
    except Failure:
        return
    addr = largest(request).addr
    raise Failure(f"a buffer at {addr:#x}, where no memory is: found the request done, with used length {used}")


def _spread(data: memoryview, pieces: Sequence[memoryview]) -> None:
    at = 0
    for piece in pieces:
        piece[:] = data[at : at + len(piece)]
        at += len(piece)


def exchanged(request: Request, new: Buffer, check: Callable[[int], None]) -> Request:
    """The request with ``new`` for its `largest` buffer, and ``check`` for its check."""
    old = largest(request)

    def choose(buffers: Sequence[Buffer]) -> list[Buffer]:
        return [new if each is old else each for each in buffers]

    return replace(request, readable=choose(request.readable), writable=choose(request.writable), check=check)
