"""16-bit words in shared memory: ring indices, flags and event words.

Theory.  The other side reads and writes these words while we do, so each access must be *single-copy atomic*: it
transfers both bytes at once or it is *torn*, a mix of old and new that nobody ever wrote.  Hardware promises that for
one aligned 16-bit load or store, and CPython makes exactly one of them for an item of ``memoryview.cast("H")``: a copy
of a fixed two bytes, which compilers turn into a plain move.  Nothing else in Python does:

* ``struct.pack_into`` first fills its target with zeros: a reader saw 1.1 million words that were never written, in
  2000 million reads (measured); an index that flashes to 0 makes a driver declare its ring broken.
* A two-byte slice is copied by ``memcpy`` of a length known only at run time: torn as well (measured, rarely).

virtio 1.x structures are little-endian everywhere, and ``cast`` knows only the machine's own order; so what a word
holds goes through `le16` on its way in and out.  Nearly always that does nothing, and the hot path may skip it where
`NATIVE_IS_LITTLE` says so.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Final

NATIVE_IS_LITTLE: Final = sys.byteorder == "little"
"""Whether a word as the machine reads it is a word as virtio means it."""


def words(view: memoryview) -> memoryview:
    """The same memory as 16-bit words in the machine's order; reading or writing an item is single-copy atomic.

    Args:
        view: writable shared memory, an even number of bytes at an even address.

    Raises:
        ValueError: length or address is odd.
    """
    if view.nbytes % 2:
        raise ValueError(f"found {view.nbytes} bytes, expected an even number: they are to be 16-bit words")
    # The address in this process is what counts; a region that begins at an odd guest address is at an even one here.
    if view.nbytes and ctypes.addressof(ctypes.c_char.from_buffer(view)) % 2:
        raise ValueError("found 16-bit words at an odd address, expected an even one: no access would be atomic")
    return view.cast("H")


def swap16(value: int) -> int:
    """The 16-bit ``value`` with its two bytes exchanged."""
    return value >> 8 | (value & 0xFF) << 8


def unchanged(value: int) -> int:
    """``value`` itself."""
    return value


le16 = unchanged if NATIVE_IS_LITTLE else swap16
"""From the machine's order to little-endian, or back: the same exchange both ways."""
to_le16 = le16
