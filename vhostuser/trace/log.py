"""Messages as they pass, into a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vhostuser.trace.decode import Decoder
from vhostuser.transport.channel import Direction

if TYPE_CHECKING:
    import logging
    from enum import IntFlag

    from vhostuser.protocol.framing import Frame
    from vhostuser.transport.channel import Observer
    from vhostuser.wire.requests import Role


def log_messages(
    log: logging.Logger, *, role: Role, level: int, device_features: type[IntFlag] | None = None
) -> Observer:
    """An observer for a `Channel` that writes each message into ``log``.

    Args:
        log: where to.
        role: which end of the connection we are.
        level: of the log entries.
        device_features: names of the device's own feature bits.
    """
    decoder = Decoder(device_features=device_features)

    def observe(direction: Direction, frame: Frame) -> None:
        sender = role if direction is Direction.SENT else role.peer
        log.log(level, "%s %s", direction.value, decoder.decode(sender, frame))

    return observe
