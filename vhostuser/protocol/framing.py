"""From a byte stream to frames, without reading one byte too many.

The socket is a stream: the kernel joins a message without descriptors to a following one that has some, and the
descriptors then sit with the wrong message.  So the deframer says how many bytes it wants next (a header, then that
header's payload) and whoever reads asks the socket for exactly that.  Every descriptor that arrives meanwhile
belongs to the message by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vhostuser.errors import RemoteProtocolError
from vhostuser.fd import NO_FDS, Fd, Fds
from vhostuser.wire.requests import HEADER_SIZE, Header

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_MAX_PAYLOAD = 4096
"""Bytes.  rust-vmm's limit; QEMU's largest message has 2056, libvhost-user's 272."""
DEFAULT_MAX_FDS = 32
"""rust-vmm's limit.  The document allows 8 per message; one more is then an error we can name, not a truncation."""


@dataclass(slots=True, eq=False)
class Frame:
    """One message as it travels: header, payload bytes, and the descriptors it owns."""

    header: Header
    payload: bytes = b""
    fds: Fds = NO_FDS

    def build(self) -> bytes:
        """Header and payload, ready for one ``sendmsg``."""
        return self.header.build() + self.payload

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        self.fds.close()


class Deframer:
    """Puts frames together out of exactly the bytes it asked for.

    Args:
        max_payload: largest payload to accept, in bytes; a header that says more ends the connection before
            anything of that size is read.
    """

    def __init__(self, *, max_payload: int = DEFAULT_MAX_PAYLOAD) -> None:
        self._max_payload = max_payload
        self._header: Header | None = None
        self._data = bytearray()
        self._fds: list[Fd] = []

    @property
    def needed(self) -> int:
        """Bytes to feed next, at most; always above 0."""
        size = HEADER_SIZE if self._header is None else self._header.size
        return size - len(self._data)

    @property
    def idle(self) -> bool:
        """True between two messages: the stream may end here."""
        return self._header is None and not self._data and not self._fds

    def feed(self, data: bytes, fds: Iterable[Fd] = ()) -> Frame | None:
        """Take ``data`` (at most `needed` bytes) and own ``fds``; the frame, once it is whole.

        Raises:
            RemoteProtocolError: the header announces a payload above the limit.  Close the connection.
            ValueError: more bytes than asked for.
        """
        self._fds.extend(fds)
        needed = self.needed
        if len(data) > needed:
            raise ValueError(f"{len(data)} bytes fed, at most {needed} were asked for")
        self._data += data
        if len(data) < needed:
            return None
        if self._header is None:
            self._header = self._take_header()
            if self._header.size:
                return None
        return self._take_frame(self._header)

    def close(self) -> None:
        """Close the descriptors of a half-read message, and forget it."""
        Fds(self._fds).close()
        self._fds = []
        self._header = None
        self._data.clear()

    def _take_header(self) -> Header:
        header = Header.parse(self._data)
        self._data.clear()
        if header.size > self._max_payload:
            raise RemoteProtocolError(
                f"request {header.request} announces a payload of {header.size} bytes, limit {self._max_payload}",
                section="Header",
            )
        return header

    def _take_frame(self, header: Header) -> Frame:
        frame = Frame(header, bytes(self._data), Fds(self._fds))
        self._header = None
        self._data.clear()
        self._fds = []
        return frame
