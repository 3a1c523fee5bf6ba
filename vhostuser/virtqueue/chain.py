"""A descriptor chain as a device sees it: a stream of bytes to read, and one to fill.

Where the driver cut its buffers means nothing (virtio 1.3, 2.6.4): a request header may come in three pieces, a
status byte may share its piece with data.  So devices get two flattened streams (``streams.py``) and never an element.

**Frames.**  Nearly every request is cut the same way all the same: a header of fixed size, data in one direction, a
status at the very end.  `Chain.frame` looks at such a chain in one step, for a third of what the streams cost, and
consumes nothing: a device that does not like what it sees still has the whole chain for its streams.  If it does like
it, it moves the data, by `Chain.dataout`, `Chain.datain` or `Chain.fill`, and then it answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vhostuser.virtqueue.streams import Reader, ShortChain, Writer

if TYPE_CHECKING:
    from struct import Struct
    from typing import TypeAlias

    from vhostuser.wire.schema import Buffer

    Frame: TypeAlias = tuple[tuple[Any, ...], int, int]

__all__ = ["Chain", "Frame", "Reader", "ShortChain", "Writer"]


class Chain:
    """One buffer that the driver made available, to be given back with `DeviceQueue.complete`.

    It keeps the memory it points into mapped for as long as it lives.

    Args:
        head: what the ring calls this chain.
        readable: pieces the device reads, none of them empty; this object owns the list.
        writable: pieces the device fills, none of them empty; this object owns the list.
        entries: how many entries of a packed ring it takes.
    """

    # Of the class until a chain has its own: an object with eight slots to fill takes half as long again to make.
    _reader: Reader | None = None
    _writer: Writer | None = None
    _header = 0
    _trailer = 0
    _room = 0
    _answered = False

    def __init__(self, head: int, readable: list[memoryview], writable: list[memoryview], entries: int = 1) -> None:
        self.head = head
        self.entries = entries
        self._readable = readable
        self._writable = writable

    @property
    def readable(self) -> Reader:
        """The stream of bytes to read."""
        if self._reader is None:
            self._reader = Reader(self._readable)
        return self._reader

    @property
    def writable(self) -> Writer:
        """The stream of bytes to fill."""
        if self._writer is None:
            self._writer = Writer(self._writable)
        return self._writer

    @property
    def written(self) -> int:
        """Bytes written from the start without a gap: the used length."""
        if self._answered:
            return self._room + self._trailer
        return 0 if self._writer is None else self._writer.written

    # --- the chain as a frame ---

    def frame(self, header: Struct, trailer: int) -> Frame | None:
        """Look at a chain that is cut in the usual way; nothing is consumed.

        Args:
            header: what the device reads first.
            trailer: how many bytes it fills last, with `answer`.

        Returns:
            The header's fields, copied; how many bytes follow it; how many are to be filled in front of the trailer.
            None where header or trailer are not in one piece, or a stream has been asked for before.
        """
        readable, writable = self._readable, self._writable
        if self._reader is not None or self._writer is not None or not readable or not writable:
            return None
        size = header.size
        out, room = len(readable[0]) - size, len(writable[-1]) - trailer
        if out < 0 or room < 0:
            return None
        for piece in readable[1:]:
            out += len(piece)
        for piece in writable[:-1]:
            room += len(piece)
        self._header, self._trailer, self._room = size, trailer, room
        return header.unpack_from(readable[0]), out, room

    def dataout(self) -> list[memoryview]:
        """What follows the header of the frame, where it is; read-only, not copied."""
        first, *others = self._readable
        pieces = others if len(first) == self._header else [first[self._header :], *others]
        return [piece.toreadonly() for piece in pieces]

    def datain(self) -> list[memoryview]:
        """What is to be filled in front of the trailer, as for ``preadv``; `answer` says that it has been."""
        *others, last = self._writable
        return others if len(last) == self._trailer else [*others, last[: len(last) - self._trailer]]

    def fill(self, data: Buffer) -> None:
        """Copy ``data`` to what is to be filled.

        Raises:
            ValueError: it is not exactly as long.  Nothing is written then.
        """
        source = memoryview(data).cast("B")
        if len(source) != self._room:
            raise ValueError(f"{len(source)} bytes, the frame has room for {self._room}")
        start = 0
        for piece in self.datain():
            piece[:] = source[start : start + len(piece)]
            start += len(piece)

    def answer(self, trailer: bytes) -> None:
        """Write the trailer, and say that all bytes in front of it have been filled: all of them are ``written`` now.

        Raises:
            ValueError: `frame` was told another length.
        """
        if len(trailer) != self._trailer:
            raise ValueError(f"a trailer of {len(trailer)} bytes, the frame has {self._trailer}")
        if trailer:
            last = self._writable[-1]
            last[len(last) - len(trailer) :] = trailer
        self._answered = True

    def __repr__(self) -> str:
        to_read, to_write = self.readable.remaining, self.writable.remaining
        return f"<Chain {self.head}: {to_read} to read, {self.written} written, {to_write} to write>"
