"""A front-end's side of the main channel."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from vhostuser.errors import LocalProtocolError
from vhostuser.protocol.requester import Reply, Requester, RequestRefused
from vhostuser.protocol.state import ProtocolState
from vhostuser.wire.requests import Role

if TYPE_CHECKING:
    from vhostuser.protocol.requester import Sent

__all__ = ["FrontendProtocol", "Reply", "RequestRefused"]


class FrontendProtocol(Requester):
    """Requests out, replies in; `state` follows what was sent, and steps back when the back-end refuses."""

    role = Role.FRONTEND

    def __init__(self) -> None:
        super().__init__(ProtocolState())

    def _settle(self, sent: Sent, reply: Reply) -> None:
        # As if the answer had come at once: what happened, in its order, and behind it again what is on its way.
        self.state.restore(sent.before)
        if not reply.error:
            self._observe(sent)
        if reply.value is not None and not reply.error:
            self.state.observe_reply(sent.message, reply.value)
        for later in self._behind_oldest():
            later.before = self.state.snapshot()
            self._observe(later)

    def _observe(self, sent: Sent) -> None:
        # It was legal when it was sent.  If it is not any more, because something before it was refused, the back-end
        # has no more reason to obey than we have to believe that it does.
        with contextlib.suppress(LocalProtocolError):
            self.state.observe(self.role, sent.message, sent.fd_count)
