"""A thread that writes into guest memory while the back-end works: what a guest with several processors can do."""

from __future__ import annotations

import itertools
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LONGEST = 5.0
"""Seconds after which the thread ends whatever happens."""


@contextmanager
def meddling(write: Callable[[int], None]) -> Iterator[None]:
    """Call ``write`` over and over in a thread, with 0, 1, 2, …, for the length of the block."""
    stop = threading.Event()
    limit = time.monotonic() + LONGEST

    def run() -> None:
        for turn in itertools.count():
            if turn % 200 == 0 and (stop.is_set() or time.monotonic() > limit):
                return
            write(turn)

    thread = threading.Thread(target=run, name="meddling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()  # two hundred writes at most
