"""What a disabled ring must not do, as far as it can be seen from outside.

"Started and disabled" means that the back-end processes the ring without side effects: a network card drops what it
is to send, and receives nothing.  For a device that brings something into the guest, as an entropy source does, that
is plain.  Whether a disk may answer a harmless question there the text does not say: that is told, with a warning.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import trio

from vhostuser.conformance import Failure, Verdict

if TYPE_CHECKING:
    from frontend.conformance.peer import Device, Peer

WATCHED = 0.05
"""Seconds in which an effect would show."""
POISON = 0xA5


class Seen(Enum):
    """What became of a request on a disabled ring."""

    LEFT = "a request on the disabled ring was left there"
    DROPPED = "a request on the disabled ring was used, with nothing written"
    ANSWERED = "a request on the disabled ring was answered"


async def request_on_disabled_ring(device: Device) -> Seen:
    """Put a request into the ring, kick, and see what becomes of it."""
    request = device.request()
    for buffer in request.writable:
        buffer.view[:] = bytes([POISON]) * len(buffer)
    device.ring.add(request)
    device.ring.publish(kick=True)
    await device.session.in_sync()
    await trio.sleep(WATCHED)
    done = device.ring.reap()
    if any(set(bytes(buffer.view)) != {POISON} for buffer in request.writable):
        return Seen.ANSWERED
    return Seen.DROPPED if done else Seen.LEFT


async def without_effect(peer: Peer, device: Device) -> Verdict | None:
    """A request on the disabled ring has no effect.

    Returns:
        WARN when it was answered by a device of which the text does not say clearly that it must not.

    Raises:
        Failure: something was brought into the guest.
    """
    seen = await request_on_disabled_ring(device)
    peer.note(seen.value)
    if seen is not Seen.ANSWERED:
        return None
    if device.model.name == "rng":
        raise Failure("entropy was delivered to a ring that is disabled")
    return Verdict.WARN
