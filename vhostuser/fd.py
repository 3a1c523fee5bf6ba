"""File descriptors with one owner.

A number is not an owner: it can be copied, closed twice, and reused by the kernel for something else.  `Fd` holds
one descriptor; closing or taking it leaves the holder empty, and an empty holder cannot be used by mistake.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Self

from vhostuser.errors import VhostUserError

if TYPE_CHECKING:
    from collections.abc import Iterable

_EMPTY = -1


class ClosedFd(VhostUserError, ValueError):
    """The descriptor was closed, or handed over to somebody else, before."""


class Fd:
    """One open file descriptor and the duty to close it.

    Args:
        fd: an open descriptor; this object owns it from now on.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = _EMPTY  # so that __del__ finds something when the check below raises
        if fd < 0:
            raise ValueError(f"not a file descriptor: {fd}")
        self._fd = fd

    @property
    def closed(self) -> bool:
        """True when nothing is held any more."""
        return self._fd == _EMPTY

    def fileno(self) -> int:
        """The number, still owned by this object.

        Raises:
            ClosedFd: nothing is held any more.
        """
        if self._fd == _EMPTY:
            raise ClosedFd("this file descriptor was closed or handed over")
        return self._fd

    def take(self) -> int:
        """Hand the number over: the caller owns it now, and this holder is empty."""
        fd = self.fileno()
        self._fd = _EMPTY
        return fd

    def move(self) -> Fd:
        """A new holder for the same descriptor; this one is empty afterwards."""
        return Fd(self.take())

    def duplicate(self) -> Fd:
        """A second descriptor for the same open file, not inherited by child processes."""
        return Fd(os.dup(self.fileno()))

    def close(self) -> None:
        """Close what is held; closing an empty holder does nothing."""
        if self._fd != _EMPTY:
            os.close(self.take())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._fd != _EMPTY:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __repr__(self) -> str:
        return "<Fd closed>" if self.closed else f"<Fd {self._fd}>"


class Fds(tuple[Fd, ...]):
    """The descriptors that travel with one message, in their order.

    Whoever holds an `Fds` owns what is in it.  Taking one out with `move` empties its place, so `close` at the end
    closes exactly what nobody wanted.
    """

    __slots__ = ()

    @classmethod
    def of(cls, *fds: Fd) -> Fds:
        """The given holders as one bundle."""
        return cls(fds)

    @classmethod
    def adopt(cls, numbers: Iterable[int]) -> Fds:
        """Own each of these raw descriptors, as they come out of ``recvmsg``."""
        return cls([Fd(number) for number in numbers])

    def numbers(self) -> list[int]:
        """The raw numbers, still owned here: what ``sendmsg`` wants."""
        return [fd.fileno() for fd in self]

    def take_all(self) -> Fds:
        """All descriptors in new holders; the holders in here are empty afterwards."""
        return Fds([fd.move() for fd in self])

    def duplicate(self) -> Fds:
        """A second descriptor for each of them."""
        copies: list[Fd] = []
        try:
            copies.extend(fd.duplicate() for fd in self)
        except BaseException:
            Fds(copies).close()
            raise
        return Fds(copies)

    def close(self) -> None:
        """Close what is still held."""
        for fd in self:
            fd.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


NO_FDS = Fds()
