"""Bringing a device up step by step, for cases that change one of the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.conformance.peer import BASIC, Device
from vhostuser.wire.features import VirtioFeature

if TYPE_CHECKING:
    from frontend.conformance.memory import SharedMemory
    from frontend.conformance.peer import Peer
    from frontend.conformance.session import Session


def basic(peer: Peer) -> int:
    """VERSION_1, bit 30, and RING_PACKED in the variant "packed"."""
    return BASIC | (VirtioFeature.RING_PACKED if peer.variant == "packed" else 0)


async def bring_up(
    peer: Peer,
    session: Session,
    memory: SharedMemory,
    *,
    share: bool = True,
    enable: bool = True,
    rings: int | None = None,
    backwards: bool = False,
) -> Device:
    """Share memory and start rings on a connection that is negotiated.

    Args:
        peer: the back-end.
        session: with features set.
        memory: the guest's.
        share: send it as a memory table; without, the back-end has it already.
        enable: enable the rings too.
        rings: how many; by default as many as a request needs.
        backwards: start the last ring first.
    """
    if share:
        await memory.share(session)
    made = peer.rings(session, memory, count=rings)
    for ring in reversed(made) if backwards else made:
        if enable:
            await ring.start(session)
        else:
            await ring.configure(session)
            await ring.send_kick(session)
    return Device(session, memory, made, peer.model)
