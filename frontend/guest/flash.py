"""A NOR flash: memory for reading, a device for writing (ROMD).  An example of what an `MmioExit` is good for.

The first write of the guest's is a command, and it comes out of the read-only slot as an exit.  While a command is at
work, loads mean something else too (status, identity), so the slot is taken away and *every* access exits; when the
guest asks for the array again, the slot comes back and loads are as fast as RAM's.  It is why deleting a slot and
making it again has to be cheap, and why READONLY cannot be toggled: there is nothing to toggle it to.

The commands are those of Intel's set, one byte wide: enough to identify, program and erase it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from frontend.guest.slots import MemorySlot

if TYPE_CHECKING:
    from frontend.guest.slots import MemorySlots

MANUFACTURER = 0x89
DEVICE = 0x17
READY = 0x80
ERASE_ERROR = 0x20
PROGRAM_ERROR = 0x10
BLOCK_SIZE = 4096


class Command(IntEnum):
    """What the guest stores, anywhere in the flash."""

    PROGRAM_SETUP = 0x10
    ERASE_SETUP = 0x20
    PROGRAM = 0x40
    CLEAR_STATUS = 0x50
    READ_STATUS = 0x70
    READ_IDENTITY = 0x90
    CONFIRM = 0xD0
    READ_ARRAY = 0xFF


class Flash:
    """The device behind a read-only slot; put it on the bus at the slot's address.

    Args:
        slots: where the slot is set and taken away.
        slot: the flash's memory; it has to be writable for this process, and READONLY for the guest.
    """

    def __init__(self, slots: MemorySlots, slot: MemorySlot) -> None:
        self._slots = slots
        self._slot = slot
        self._view = slot.view
        self._status = READY
        self._mode: int = Command.READ_ARRAY
        slots.set(slot)

    @property
    def reading(self) -> bool:
        """Whether the guest sees the array, as memory."""
        return self._mode == Command.READ_ARRAY

    def load(self, offset: int, length: int) -> bytes:
        """Status or identity, whichever was asked for; the array only where there are no read-only slots."""
        if self.reading:
            return bytes(self._view[offset : offset + length])
        if self._mode == Command.READ_IDENTITY:
            return bytes((MANUFACTURER, DEVICE)[(offset + index) % 2] for index in range(length))
        return bytes([self._status] * length)

    def store(self, offset: int, data: bytes) -> None:
        """A command, or the second half of one."""
        for index, value in enumerate(data):
            self._take(offset + index, value)

    def _take(self, offset: int, value: int) -> None:
        if self._mode in (Command.PROGRAM, Command.PROGRAM_SETUP):
            self._view[offset] &= value  # programming turns ones into zeros; only erasing turns them back
            self._show(Command.READ_STATUS)
        elif self._mode == Command.ERASE_SETUP:
            self._erase(offset, value)
        elif value == Command.CLEAR_STATUS:
            self._status = READY
        elif value in (Command.PROGRAM, Command.PROGRAM_SETUP, Command.ERASE_SETUP, Command.READ_IDENTITY):
            self._show(value)
        elif value == Command.READ_STATUS:
            self._show(Command.READ_STATUS)
        else:  # READ_ARRAY, and whatever is not a command
            self._show(Command.READ_ARRAY)

    def _erase(self, offset: int, value: int) -> None:
        if value == Command.CONFIRM:
            begin = offset // BLOCK_SIZE * BLOCK_SIZE
            block = self._view[begin : begin + BLOCK_SIZE]
            block[:] = b"\xff" * len(block)
        else:
            self._status |= ERASE_ERROR | PROGRAM_ERROR  # both together: a wrong sequence of commands
        self._show(Command.READ_STATUS)

    def _show(self, mode: int) -> None:
        before, self._mode = self.reading, mode
        if before != self.reading:
            self._slots.set(self._slot if self.reading else MemorySlot.nothing(self._slot.slot))
