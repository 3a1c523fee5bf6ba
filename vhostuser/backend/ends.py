"""The notifiers of one ring, as the back-end holds them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from vhostuser.transport.notifier import PeerClosed

if TYPE_CHECKING:
    from vhostuser.transport.notifier import EventConsumer, EventNotifier

log = logging.getLogger("vhostuser.backend")


class Ends:
    """Kick, call and err of one ring; each is owned here, and closed when another takes its place.

    Args:
        index: number of the ring, for messages.

    Attributes:
        kick: what the driver wakes us with; None: the ring is polled.
        call: what wakes the driver; None: it looks by itself.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self.kick: EventConsumer | None = None
        self.call: EventNotifier | None = None
        self._err: EventNotifier | None = None

    def use_kick(self, event: EventConsumer | None) -> None:
        """Let go of the old kick and take this one."""
        old, self.kick = self.kick, event
        _close(old)

    def use_call(self, event: EventNotifier | None) -> None:
        """Let go of the old call and take this one."""
        old, self.call = self.call, event
        _close(old)

    def use_err(self, event: EventNotifier | None) -> None:
        """Let go of the old err and take this one."""
        old, self._err = self._err, event
        _close(old)

    def close(self) -> None:
        """Let go of all of them."""
        self.use_kick(None)
        self.use_call(None)
        self.use_err(None)

    def notify(self) -> None:
        """Wake the driver, if it can be woken."""
        self._signal(self.call, "call")

    def report(self) -> None:
        """Tell the front-end that the ring is broken, if it wants to hear of such things."""
        self._signal(self._err, "err")

    def _signal(self, event: EventNotifier | None, name: str) -> None:
        if event is not None:
            try:
                event.notify()
            except PeerClosed:
                log.debug("ring %d: nobody listens to the %s descriptor", self._index, name)


def _close(event: EventConsumer | EventNotifier | None) -> None:
    if event is not None:
        event.close()
