"""Memory fences: in which order the other side sees what we did to shared memory.

Theory.  A processor lets a store wait in a buffer while later loads go ahead.  Its own program never notices; another
processor does.  Both sides of a virtqueue do this at the end of a batch:

    we:    publish our index;        read whether they want a notification
    they:  ask for notifications;    read our index once more, then sleep

If both loads overtake the stores before them, we see "no notification wanted" and they see "nothing new": the ring
stands still for ever.  It happens on every architecture, x86 included (measured here without a fence: 25 times in 3
million rounds between two CPython processes; with one: never).  What forbids it is a *full* fence between the two, on
both sides; virtio 1.3, 2.7.7.2 and 2.7.10.1 ask for it.  A driver or device that always notifies needs none.

Weaker orders.  Two more rules hold the ring together: what an index announces is written before the index (*release*),
and read after it (*acquire*).  x86 keeps stores in order among themselves, and loads too, so there these two cost
nothing.  arm64, POWER and RISC-V do not, and there CPython's own instructions do not help: however many lie between
two accesses, none of them is a barrier.  The fences below are then real ones.

The means.  Python has no fence, so one is borrowed:

* ``atomic_thread_fence(memory_order_seq_cst)`` of libatomic (GCC), or ``OSMemoryBarrier`` of macOS: the right thing on
  any architecture.  94 ns measured through ctypes, half of it the call; ``PyDLL`` because giving the GIL away and
  taking it back costs more than that.
* A lock.  Taking a free one is an atomic read-modify-write, on x86 with a LOCK prefix, which is a full fence whatever
  address it works on.  Each fence takes a *new* lock, so nobody can ever wait for it: no thread that was interrupted
  while it held the lock, and no signal handler that came in between.  150 ns measured.

On other architectures taking a lock orders in one direction only.  Where no library comes to help there,
`FENCE_IS_FULL` is false, and one must neither suppress notifications nor believe the other side's suppression.
"""

from __future__ import annotations

import _thread
import ctypes
import platform
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

Fence = Callable[[], object]

TOTAL_STORE_ORDER: Final = frozenset({"x86_64", "amd64", "i386", "i686"})
"""Machines, as ``platform.machine().lower()`` names them, that reorder nothing but a store with a later load."""

SEQ_CST: Final = 5
"""memory_order_seq_cst of <stdatomic.h>, as GCC and clang number it."""

Source = tuple[str | None, str, tuple[int, ...]]

SOURCES: Final[tuple[Source, ...]] = (
    ("libatomic.so.1", "atomic_thread_fence", (SEQ_CST,)),
    (None, "OSMemoryBarrier", ()),  # None: what the interpreter itself is linked with
)
"""Where a full fence may be found: library, function, arguments."""


def library_fence(sources: Iterable[Source] = SOURCES) -> Fence | None:
    """The first full fence that a library of this machine has, if one has."""
    for library, function, arguments in sources:
        try:
            found = getattr(ctypes.PyDLL(library), function)
        except (OSError, AttributeError):
            continue
        found.restype = None
        return partial(found, *arguments)
    return None


def lock_fence() -> None:
    """Take a lock that nobody else knows: a full fence on x86."""
    _thread.allocate_lock().acquire()


def no_fence() -> None:
    """Nothing: this processor keeps the order by itself."""


def choose(machine: str, library: Fence | None) -> tuple[Fence, Fence, bool]:
    """The full fence, the fence for weaker orders, and whether the first is what it is called.

    Args:
        machine: what ``platform.machine()`` says.
        library: a full fence, if one was found.
    """
    ordered = machine.lower() in TOTAL_STORE_ORDER
    full = library or lock_fence
    return full, no_fence if ordered else full, ordered or library is not None


_full, _weak, _is_full = choose(platform.machine(), library_fence())

FENCE_IS_FULL: Final = _is_full
"""Whether `full_fence` keeps stores before it and loads after it apart, here."""

full_fence: Final = _full
"""Everything before it happens before everything after it, for whoever else looks at shared memory."""

acquire_fence: Final = _weak
"""Loads before it (an index) happen before all after it (what the index announced)."""

release_fence: Final = _weak
"""All before it (what an index announces) happens before the stores after it (the index)."""
