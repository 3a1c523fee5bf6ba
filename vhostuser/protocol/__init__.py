"""The protocol without I/O: frames in, messages out; messages in, frames out.  Both roles.

`FrontendProtocol` and `BackendProtocol` are the two ends of the main channel, `BackendRequester` and
`FrontendResponder` those of the backend channel.  `ProtocolState` holds what both ends know, and the rules.
"""

from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.framing import Deframer, Frame
from vhostuser.protocol.frontend import FrontendProtocol, Reply, RequestRefused
from vhostuser.protocol.reverse import BackendRequester, FrontendResponder
from vhostuser.protocol.rings import RingState
from vhostuser.protocol.state import ProtocolState

__all__ = [
    "BackendProtocol",
    "BackendRequester",
    "Deframer",
    "Frame",
    "FrontendProtocol",
    "FrontendResponder",
    "ProtocolState",
    "Reply",
    "RequestRefused",
    "RingState",
]
