"""Faults of headers, and of how bytes are made into messages."""

from __future__ import annotations

from typing import Any

from tests.conformance.mutants.registry import edit, mutant, wrap
from vhostuser.errors import RemoteProtocolError
from vhostuser.protocol import responder
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.state import ProtocolState
from vhostuser.transport.channel import Channel

FLAGS = "_REPLY_FLAGS"


@mutant("B-HDR-01")
def reply_code() -> None:
    """Replies carry the number of the request plus one."""
    edit(responder, "_frame", "Header(handled.header.request", "Header(handled.header.request + 1")


@mutant("B-HDR-02")
def reply_without_bit_2() -> None:
    """Replies lack bit 2 of the flags."""
    edit(responder, "_frame", FLAGS, "HeaderFlags.VERSION_1")


@mutant("B-HDR-03")
def reply_of_version_0() -> None:
    """Replies say version 0."""
    edit(responder, "_frame", FLAGS, "HeaderFlags.REPLY")


@mutant("B-HDR-04")
def reply_with_bit_4() -> None:
    """Replies have a bit in their flags that nobody assigned."""
    edit(responder, "_frame", FLAGS, "HeaderFlags(0x15)")


@mutant("B-HDR-05")
def reply_copies_need_reply() -> None:
    """Replies copy need_reply from their request."""
    edit(responder, "_frame", FLAGS, "HeaderFlags(5 | handled.header.flags & 8)")


@mutant("B-HDR-06")
def reply_size_too_large() -> None:
    """The size in a reply's header counts the header too."""
    edit(responder, "_frame", "len(payload))", "len(payload) + 12)")


@mutant("B-HDR-06")
def reply_size_too_small() -> None:
    """Replies have a byte more than their size says."""
    edit(responder, "_frame", "len(payload)), payload", "len(payload)), payload + bytes(1)")


@mutant("B-HDR-07")
def replies_in_the_other_byte_order() -> None:
    """Replies of 64 bits are in the other byte order."""
    edit(BackendProtocol, "answer", "U64(value)", "U64(int.from_bytes(int(value).to_bytes(8, 'big'), 'little'))")


@mutant("B-HDR-07")
def requests_in_the_other_byte_order() -> None:
    """The size of a ring is read in the other byte order."""
    edit(
        ProtocolState,
        "_check_ring",
        "check_size(index, num,",
        "check_size(index, int.from_bytes(num.to_bytes(4, 'big'), 'little'),",
    )


@mutant("B-FEAT-01")
def features_in_32_bits() -> None:
    """GET_FEATURES is answered with 4 bytes."""
    edit(responder, "_frame", "value.build()", "value.build()[: 4 if handled.header.request == 1 else None]")


@mutant("B-HDR-12")
def set_features_is_answered() -> None:
    """SET_FEATURES is answered with the features, though nobody asked for that."""
    edit(
        responder.Responder,
        "ack",
        "U64(error) if handled.ack else None",
        "U64(error) if handled.ack or handled.header.request == 2 else None",
    )


@mutant("B-HDR-08", "B-HDR-10")
def one_read_per_message() -> None:
    """What arrives in pieces is taken for a broken connection."""

    @wrap(Channel, "_take")
    def take(original: Any, self: Channel, received: Any) -> Any:
        if 0 < len(received.data) < self._deframer.needed:
            received.fds.close()
            raise RemoteProtocolError("a short read")
        return original(self, received)


@mutant("B-HDR-09")
def payload_has_to_be_there() -> None:
    """A payload that has not arrived with its header is taken for a broken connection."""
    edit(
        Channel,
        "_receive_now",
        "return None",
        "if self._deframer.idle: return None\n                raise RemoteProtocolError('no payload')",
    )


@mutant("B-HDR-11", "B-HDR-13")
def glued_messages_are_lost() -> None:
    """All that is there is read at once, and what comes behind the first message is forgotten."""
    edit(
        Channel,
        "_receive_now",
        "frame = self._take(received)",
        "frame = self._take(received)\n            if frame: _drop(self._sock)",
    )
    Channel._receive_now.__globals__["_drop"] = _drop


def _drop(sock: Any) -> None:
    try:
        while sock.recv(4096, 0x40):  # MSG_DONTWAIT
            pass
    except BlockingIOError:
        pass


@mutant("B-HDR-14")
def slow_readers_lose_replies() -> None:
    """A reply that the socket has no room for at once is dropped."""
    edit(Channel, "_send_beginning", "await trio.lowlevel.wait_writable(self._sock)", "return len(data)")


@mutant("B-HDR-13")
def replies_change_places() -> None:
    """A reply waits for the next one, and goes after it, when another request is there already."""
    from vhostuser.backend.connection import Backend

    @wrap(Backend, "_serve")
    async def serve(original: Any, self: Backend, channel: Channel) -> None:
        send = channel.send
        held: list[Any] = []

        async def late(frame: Any) -> None:
            try:
                more = channel._sock.recv(1, 0x42)  # MSG_PEEK | MSG_DONTWAIT
            except BlockingIOError:
                more = b""
            if more and not held:
                held.append(frame)
                return
            await send(frame)
            while held:
                await send(held.pop())

        channel.send = late  # type: ignore[method-assign]
        await original(self, channel)
