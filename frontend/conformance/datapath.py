"""Checks of the data path that are the same for both ring formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.load import LONG, batch_of, long_request
from frontend.conformance.model import Request
from vhostuser.conformance import Failure, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Device, Peer
    from frontend.conformance.ring import TestRing
    from frontend.guest.memory import Buffer

POISONS = (0xA5, 0x5A, 0x3C)
"""What stands in a buffer beforehand, one time after the other: what a device writes is not all of them."""
ROUNDS = 10
CALL_WITHIN = 1.0
"""Seconds in which a call that is owed has to come."""
NO_CALL_WITHIN = 0.01
"""Seconds in which one that is not owed may come and is counted."""


# --- shapes of requests ----------------------------------------------------------------------------------------------


def cut(memory: SharedMemory, request: Request, pieces: int) -> Request:
    """The same request in so many buffers, or as many as it has bytes: cut from the front, byte by byte."""
    parts = [
        (each, writable) for writable in (False, True) for each in (request.writable, request.readable)[not writable]
    ]
    extra = pieces - len(parts)
    cut_parts: list[tuple[Buffer, bool]] = []
    for each, writable in parts:
        count = max(0, min(extra, len(each) - 1))
        extra -= count
        cut_parts += [(memory.at(each.addr + at, 1), writable) for at in range(count)]
        cut_parts.append((memory.at(each.addr + count, len(each) - count), writable))
    return Request(
        [each for each, writable in cut_parts if not writable],
        [each for each, writable in cut_parts if writable],
        request.check,
    )


def halved(memory: SharedMemory, request: Request) -> Request:
    """The same request with what is read, and what is written, in at least two buffers each."""
    return Request(_halves(memory, request.readable), _halves(memory, request.writable), request.check)


def _halves(memory: SharedMemory, buffers: Sequence[Buffer]) -> list[Buffer]:
    if len(buffers) != 1 or len(buffers[0]) < 2:
        return list(buffers)
    (whole,) = buffers
    middle = len(whole) // 2
    return [memory.at(whole.addr, middle), memory.at(whole.addr + middle, len(whole) - middle)]


# --- what was written ------------------------------------------------------------------------------------------------


async def used_length_is_true(device: Device) -> None:
    """As many bytes as the used length says have been written, from the beginning of the writable buffers on.

    Raises:
        Failure: one of them was not.
    """
    never: set[int] | None = None
    least = LONG
    for number, poison in enumerate(POISONS):
        request = device.request(number)
        for buffer in request.writable:
            buffer.view[:] = bytes([poison]) * len(buffer)
        device.ring.add(request)
        device.ring.publish()
        ((_, used),) = await device.ring.finish(1)
        request.check(used)
        data = b"".join(bytes(buffer.view) for buffer in request.writable)
        untouched = {at for at, byte in enumerate(data) if byte == poison}
        never = untouched if never is None else never & untouched
        least = min(least, used)
    if never and min(never) < least:
        raise Failure(f"used length: found {least}, but byte {min(never)} of the writable buffers was never written")


async def all_kinds(peer: Peer, device: Device) -> None:
    """Long requests and short ones at once: each comes back once, in whatever order."""
    short, long = device.request, [long_request(device, number) for number in range(4)]
    requests = [request for number, each in enumerate(long) for request in (each, short(number))]
    requests = requests[: len(batch_of(device))]
    for request in requests:
        device.ring.add(request)
    device.ring.publish(kick=True)
    done = await device.ring.finish()
    for request, used in done:
        request.check(used)
    order = [requests.index(request) for request, _ in done]
    peer.note(
        "requests were completed in another order" if order != sorted(order) else "requests were completed in order"
    )


# --- who is woken ----------------------------------------------------------------------------------------------------


async def owed_a_call(device: Device, ask: Callable[[], None], what: str) -> None:
    """After ``ask`` has asked for it, each request is followed by a call.

    Raises:
        Failure: one is not.
    """
    ring = device.ring
    for number in range(ROUNDS):
        ask()
        ring.drain_call()
        await ring.do(device.request(number))
        if not await ring.called(CALL_WITHIN):
            raise Failure(f"no call within {CALL_WITHIN:g} s of a completion, although {what}")


async def spared_calls(peer: Peer, device: Device, decline: Callable[[], None], what: str) -> Verdict | None:
    """After ``decline`` has asked for silence, completions are not followed by calls; a few are let pass, and told.

    Returns:
        WARN when more than every second one is: the device should not, but it may.
    """
    ring, calls = device.ring, 0
    await ring.do(device.request())
    await ring.called(NO_CALL_WITHIN)
    for number in range(ROUNDS):
        decline()
        await ring.do(device.request(number))
        calls += await ring.called(NO_CALL_WITHIN)
    if calls:
        peer.note(f"{calls} calls for {ROUNDS} completions, although {what}")
    return Verdict.WARN if calls > ROUNDS // 2 else None


def driver_words(ring: TestRing) -> memoryview:
    """The driver's part of the ring in 16-bit words: flags, idx, ring, used_event; or off_wrap, flags."""
    return ring.driver.view.cast("H")
