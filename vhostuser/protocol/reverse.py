"""The backend channel: the same two halves, with the roles changed.

A front-end creates the channel and hands one end over with SET_BACKEND_REQ_FD.  What may be said on it depends on what
was negotiated on the main channel, so both halves share the main channel's `ProtocolState`.  Nothing said here
changes that state.

If a front-end refuses something here, or does not know it, the channel stays.  If it hangs up here, the main channel
stays.
"""

from __future__ import annotations

from vhostuser.protocol.requester import Requester
from vhostuser.protocol.responder import Responder
from vhostuser.wire.backend_messages import (
    BackendIotlbMsg,
    BackendSharedObjectAdd,
    BackendSharedObjectLookup,
    BackendSharedObjectRemove,
    BackendShmemMap,
    BackendShmemUnmap,
    BackendVringHostNotifierMsg,
)
from vhostuser.wire.requests import Role


class BackendRequester(Requester):
    """A back-end's side: requests out, replies in.

    Args:
        state: of the back-end's `BackendProtocol`.
    """

    role = Role.BACKEND


class FrontendResponder(Responder):
    """A front-end's side: requests in, answers out.

    Args:
        state: of the front-end's `FrontendProtocol`.
    """

    sender = Role.BACKEND
    may_keep_silent = True
    effects_come_later = frozenset(
        {
            BackendIotlbMsg,
            BackendVringHostNotifierMsg,
            BackendSharedObjectAdd,
            BackendSharedObjectRemove,
            BackendSharedObjectLookup,
            BackendShmemMap,
            BackendShmemUnmap,
        }
    )
