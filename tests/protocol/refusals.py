"""How a back-end refuses, asserted from all sides."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from tests.protocol.helpers import (
    fd_count,
    null,
    request,
)
from vhostuser.errors import Hint, RemoteProtocolError
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.records import (
    U64,
)
from vhostuser.wire.requests import Header, HeaderFlags

if TYPE_CHECKING:
    from vhostuser.protocol import BackendProtocol, Frame
    from vhostuser.wire.catalog import Message

# Requests whose own reply can refuse them.
REFUSED_IN_THEIR_REPLY = {
    "GET_CONFIG": b"",
    "IOTLB_MSG": U64(1).build(),
    "POSTCOPY_END": U64(1).build(),
    "GET_INFLIGHT_FD": bytes(24),
    "GET_SHARED_OBJECT": b"",
    "SET_DEVICE_STATE_FD": U64(0x101).build(),
    "CHECK_DEVICE_STATE": U64(1).build(),
}


def refused(protocol: BackendProtocol, frame: Frame) -> RemoteProtocolError:
    """How ``protocol`` refuses ``frame``: nothing has changed, and no descriptor is left open."""
    before = copy.copy(protocol.state)
    with pytest.raises(RemoteProtocolError) as caught:
        protocol.receive(frame)
    assert protocol.state == before
    assert all(fd.closed for fd in frame.fds)
    return caught.value


def assert_goes_on(protocol: BackendProtocol, frame: Frame, payload: bytes) -> None:
    """The refusal is answered with ``payload``, and the next request is handled as if nothing had happened."""
    answer = protocol.nack()
    assert answer is not None
    assert answer.header == Header(frame.header.request, HeaderFlags(5), len(payload))
    assert answer.payload == payload
    assert protocol.nack() is None, "one refusal, one answer"
    assert protocol.answer(protocol.receive(request(f.GetFeatures()))) is not None


def assert_refused(protocol: BackendProtocol, message: Message, found: str, count: int | None = None) -> None:
    """``message`` is refused with a nack where one was asked for, and by closing where not."""
    if count is None:
        count = fd_count(message, protocol.state)
    name = message.spec.name
    frame = request(message, null(count))
    error = refused(protocol, frame)
    assert str(error) == f"{error.reason} [{message.spec.section}]"
    assert error.reason.startswith(f"{name}: found {found}")
    assert ", expected " in error.reason
    own_reply = message.spec.replies(protocol.state.protocol_features)
    if own_reply and name in REFUSED_IN_THEIR_REPLY:
        assert error.hint is Hint.NACK
        assert_goes_on(protocol, frame, REFUSED_IN_THEIR_REPLY[name])
        return
    assert error.hint is Hint.CLOSE
    assert protocol.nack() is None
    if protocol.state.reply_ack and not own_reply and name != "SET_PROTOCOL_FEATURES":
        frame = request(message, null(count), ack=True)
        assert refused(protocol, frame).hint is Hint.NACK
        assert_goes_on(protocol, frame, U64(1).build())
