"""The two streams of a chain: bytes to read, and bytes to fill (``chain.py`` says how a device comes by them).

**Used length.**  2.7.8.2: the device must have written at least the first ``used_length`` bytes of the writable
stream; drivers must not look further.  Nobody therefore returns a length by hand: the `Writer` counts bytes written
*without a gap from the start*.  A tail set aside with `Writer.reserve_last` counts once everything before it is
written.  For a block device this gives

* a read that succeeds: data + 1 (the status);
* a write or flush: 1, for the status is the first byte of the stream as well as the last;
* a read that fails: what was written before it failed, mostly 0.  The status byte is there, and drivers look at it
  (2.7.8 lets them: they know where the device put it), but the data in front of it was never written and must not
  be promised.  Filling it with zeros first would be just as true and cost a memory write.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from vhostuser.errors import VhostUserError
from vhostuser.wire.schema import Structure

if TYPE_CHECKING:
    from vhostuser.wire.schema import Buffer

S = TypeVar("S", bound=Structure)

_sizes: dict[type[Structure], int] = {}  # construct adds a size up anew each time, in 8 µs


class ShortChain(VhostUserError):
    """The chain has fewer bytes than the request needs: a bad request in a good ring."""


class _Stream:
    """Pieces of memory, used up from the front."""

    __slots__ = ("_first", "_pieces", "remaining")

    _what = "stream"

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = pieces
        self._first = 0
        self.remaining = sum(map(len, pieces))

    def _check(self, length: int) -> None:
        if length < 0:
            raise ValueError(f"{length} bytes asked for")
        if length > self.remaining:
            raise ShortChain(f"{length} {self._what} bytes needed, the chain has {self.remaining} left")

    def _take(self, length: int) -> list[memoryview]:
        """Use up ``length`` bytes."""
        self._check(length)
        self.remaining -= length
        if length and len(piece := self._pieces[self._first]) == length:
            self._first += 1  # a header, a status byte: mostly a piece of its own
            return [piece]
        taken = []
        while length:
            piece = self._pieces[self._first]
            if len(piece) > length:
                self._pieces[self._first] = piece[length:]
                piece = piece[:length]
            else:
                self._first += 1
            taken.append(piece)
            length -= len(piece)
        return taken

    def _skip(self, length: int) -> None:
        """Use up ``length`` bytes that nobody wants to see."""
        if length == self.remaining:
            self._first, self.remaining = len(self._pieces), 0
        else:
            self._take(length)

    def _peek(self, length: int | None) -> list[memoryview]:
        """The next ``length`` bytes, or all."""
        if length is None or length == self.remaining:
            return self._pieces[self._first :]
        self._check(length)
        shown = []
        for piece in islice(self._pieces, self._first, None):
            if not length:
                break
            shown.append(piece[:length])
            length -= len(shown[-1])
        return shown


class Reader(_Stream):
    """The device-readable bytes of a chain, in order.

    The driver can change them while we look: copy what a decision depends on (`read`), and decide on the copy.

    Attributes:
        remaining: bytes not read yet.
    """

    __slots__ = ()

    _what = "readable"

    def read(self, length: int | None = None) -> bytes:
        """A copy of the next ``length`` bytes, or of all that remain.

        Raises:
            ShortChain: fewer remain.  Nothing is consumed then.
        """
        return b"".join(self._take(self.remaining if length is None else length))

    def read_record(self, cls: type[S]) -> S:
        """The next record, of a type with a fixed size.

        Convenient, and 13 µs: a device that counts requests per second unpacks ``read(size)`` with
        `vhostuser.wire.schema.codec`.

        Raises:
            ShortChain: fewer bytes remain than the record has.
        """
        size = _sizes.get(cls) or _sizes.setdefault(cls, cls.wire_size())
        return cls.parse(self.read(size))

    def skip(self, length: int) -> None:
        """Use up ``length`` bytes without looking, as after a ``pwritev`` of `views`.

        Raises:
            ShortChain: fewer remain.
        """
        self._skip(length)

    def views(self, length: int | None = None) -> list[memoryview]:
        """The next ``length`` bytes, or all that remain, where they are: read-only, not copied, not consumed.

        Raises:
            ShortChain: fewer remain.
        """
        return [piece.toreadonly() for piece in self._peek(length)]


class Writer(_Stream):
    """The device-writable bytes of a chain, filled from the front.

    Attributes:
        remaining: bytes not written yet, those set aside not counted.
    """

    __slots__ = ("_size", "_tail")

    _what = "writable"

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = pieces
        self._first = 0
        self._size = self.remaining = sum(map(len, pieces))
        self._tail: Writer | None = None

    @property
    def written(self) -> int:
        """Bytes written from the start without a gap: the used length (see the top of this file)."""
        if self.remaining or self._tail is None:
            return self._size - self.remaining
        return self._size + self._tail.written

    def write(self, data: Buffer) -> None:
        """Append ``data``.

        Raises:
            ShortChain: there is no room for all of it.  Nothing is written then.
        """
        source = data if type(data) is bytes else memoryview(data).cast("B")
        pieces = self._take(len(source))
        if len(pieces) == 1:
            pieces[0][:] = source
            return
        start = 0
        for piece in pieces:
            piece[:] = source[start : start + len(piece)]
            start += len(piece)

    def write_record(self, record: Structure) -> None:
        """Append the bytes of ``record``.

        Raises:
            ShortChain: there is no room for all of it.
        """
        self.write(record.build())

    def views(self, length: int | None = None) -> list[memoryview]:
        """The next ``length`` bytes to fill, or all that remain: for ``preadv``, followed by `wrote`.

        Raises:
            ShortChain: fewer remain.
        """
        return self._peek(length)

    def wrote(self, length: int) -> None:
        """Say that the first ``length`` bytes of `views` have been filled.

        Raises:
            ShortChain: there are not that many.
        """
        self._skip(length)

    def reserve_last(self, length: int) -> Writer:
        """Set the last ``length`` bytes of the stream aside, as for a status that is written at the end.

        What is set aside is no longer part of this writer.  Calling this again sets aside what comes before.

        Raises:
            ShortChain: fewer bytes remain.
        """
        self._check(length)
        self.remaining -= length
        self._size -= length
        tail = Writer(self._cut_last(length))
        tail._tail, self._tail = self._tail, tail
        return tail

    def _cut_last(self, length: int) -> list[memoryview]:
        pieces = self._pieces
        if length and len(pieces[-1]) == length:
            return [pieces.pop()]
        last: list[memoryview] = []
        while length:
            piece = pieces.pop()
            if len(piece) > length:
                pieces.append(piece[:-length])
                piece = piece[-length:]
            last.append(piece)
            length -= len(piece)
        return last[::-1]
