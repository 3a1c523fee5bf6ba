"""Makes a guest's memory as GuestRam would, but whether or not a back-end could have it, to show what it is."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.commands.outcome import Failed
from frontend.guest.layout import LayoutError, Place, lay_out
from frontend.guest.memory import FIRST_ADDR, GuestBlock
from vhostuser.memory.backends import MemoryBackendError, MemoryBackendFile, help_wanted, parse_objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vhostuser.memory.backends import MemoryBackend


class OfferError(ValueError):
    """An option does not describe a memory backend."""


def asked_for_help(objects: Sequence[str]) -> str | None:
    """The help that one of the options asks for.

    Raises:
        OfferError: there is no help about that.
    """
    try:
        return next(filter(None, map(help_wanted, objects)), None)
    except MemoryBackendError as error:
        raise OfferError(str(error)) from error


@contextmanager
def make_offer(objects: Sequence[str]) -> Iterator[list[GuestBlock]]:
    """The blocks of a guest whose memory the options describe; gone with the block of code.

    Raises:
        OfferError: the options are wrong.
        Failed: the memory cannot be made, or does not fit into a guest.
    """
    try:
        places = [Place(backend) for backend in parse_objects(objects).values()]
    except MemoryBackendError as error:
        raise OfferError(str(error)) from error
    with ExitStack() as made:
        for place in places:
            _leave_no_file(place.backend, made)
        try:
            spans = lay_out(places, first=FIRST_ADDR)
            memory = [made.enter_context(place.backend.allocate()) for place in places]
        except (MemoryBackendError, LayoutError) as error:
            raise Failed(str(error)) from error
        yield [GuestBlock.of(span, places[span.index], memory[span.index]) for span in spans]


def _leave_no_file(backend: MemoryBackend, undo: ExitStack) -> None:
    """A file that is made if it is not there was wanted for a guest, not for being shown."""
    if isinstance(backend, MemoryBackendFile) and not os.path.exists(backend.mem_path):
        undo.callback(Path(backend.mem_path).unlink, missing_ok=True)
