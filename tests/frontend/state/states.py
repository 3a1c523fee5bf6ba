"""Guest memory with something in it, saved; for the tests of saved state."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from frontend.bringup import RingPosition
from frontend.guest.memory import GuestRam
from frontend.state import read_state, restore, save
from frontend.state.layout import CHUNK_SIZE
from vhostuser.memory.backends import MemoryBackendShm

if TYPE_CHECKING:
    from pathlib import Path

    from vhostuser.memory.backends import MemoryBlock

SIZE = 64 * CHUNK_SIZE
RINGS = [RingPosition(queue_size=128, base=77, descriptor=0x100000, driver=0x100800, device=0x100A00)]
FILLED = {0: CHUNK_SIZE, 5 * CHUNK_SIZE + 100: 10, SIZE - 1: 1}
"""Offsets that get random bytes, and how many: a chunk, the middle of one, the last byte."""


def fill(memory: MemoryBlock) -> bytes:
    """Put data into memory here and there; all of it afterwards."""
    view = memory.view
    for offset, length in FILLED.items():
        view[offset : offset + length] = os.urandom(length - 1) + b"\xff"
    return bytes(view)


def saved(path: Path) -> bytes:
    """Save a guest with one block of shared memory; what was in it."""
    with GuestRam(MemoryBackendShm(id="m0", size=SIZE)) as ram:
        data = fill(ram.blocks[0])
        save(path, ram, rings=RINGS, features=1 << 32, extra=b"the caller's own")
    return data


def restored(path: Path) -> bytes:
    """All of the memory that a saved state brings back."""
    state = read_state(path)
    with GuestRam(*state.places()) as ram:
        restore(state, ram)
        return b"".join(bytes(memory.view) for memory in ram.blocks)
