"""trio begins here: frames over unix sockets, and notifications over eventfds or pipes."""

from vhostuser.transport.channel import (
    Channel,
    ChannelOptions,
    Direction,
    Observer,
    PeerCredentials,
)
from vhostuser.transport.notifier import (
    EventConsumer,
    EventNotifier,
    NotANotifier,
    NotifierKind,
    PeerClosed,
    default_kind,
    event_pair,
)
from vhostuser.transport.unix import (
    Listener,
    NotAChannel,
    SocketPathError,
    adopt,
    adopt_channel,
    channel_pair,
    connect,
    listen,
    socket_pair,
)

__all__ = [
    "Channel",
    "ChannelOptions",
    "Direction",
    "EventConsumer",
    "EventNotifier",
    "Listener",
    "NotAChannel",
    "NotANotifier",
    "NotifierKind",
    "Observer",
    "PeerClosed",
    "PeerCredentials",
    "SocketPathError",
    "adopt",
    "adopt_channel",
    "channel_pair",
    "connect",
    "default_kind",
    "event_pair",
    "listen",
    "socket_pair",
]
