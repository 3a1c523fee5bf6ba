"""The two machines that the same tests run on, and memory to put into their slots."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

from frontend.guest.kvm import KvmMachine
from frontend.guest.mmio import MmioExit
from frontend.guest.slots import PAGE, Machine, MemorySlot, SlotFlags, SoftwareSlots
from vhostuser.memory.map import GuestAddr

if TYPE_CHECKING:
    from frontend.guest.mmio import MmioHandler

FLOATING: Final = 0xEE
"""What `Exits` answers loads with."""
LOG = SlotFlags.LOG_DIRTY_PAGES
READONLY = SlotFlags.READONLY


class Exits(list[MmioExit]):
    """A handler that remembers what it was asked."""

    def __call__(self, access: MmioExit) -> bytes:
        self.append(access)
        return bytes([FLOATING] * access.length)


def memory(pages: int) -> memoryview:
    """Zeros, page-aligned, of this process alone."""
    return memoryview(mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


def at(page: int, offset: int = 0) -> GuestAddr:
    return GuestAddr(page * PAGE + offset)


def slot(number: int, page: int, view: memoryview, flags: SlotFlags = SlotFlags.NONE) -> MemorySlot:
    return MemorySlot(number, at(page), view, flags)


def software(handler: MmioHandler) -> Machine:
    return SoftwareSlots(handler)


def kvm(handler: MmioHandler) -> Machine:
    return KvmMachine(handler)
