"""Memory slots: what a guest's CPU finds at an address, by the rules of KVM.

Theory.  KVM knows a guest's memory as numbered slots: guest addresses, bytes of this process, two flags.  The rules
are KVM_SET_USER_MEMORY_REGION's, and `why_refused` states them once:

* Slots do not overlap.  Addresses, sizes and the bytes themselves are whole pages.
* Setting a number again changes that slot: it may move, and it may begin or stop to log dirty pages.  It keeps its
  size, its bytes and READONLY; whoever wants those changed takes the slot away (size 0) and makes it anew.
* LOG_DIRTY_PAGES: one bit a page, set by the guest's stores, cleared by reading the log.  What this process or a
  back-end writes is not seen by it: a back-end has a log of its own, in vhost-user.
* READONLY: loads are as from RAM.  A store does not reach memory and comes out as an `MmioExit`, as does any access
  where no slot is.

`SoftwareSlots` keeps these rules in Python, for machines without KVM and as the model that tests compare KVM with.
"""

from __future__ import annotations

import errno
import mmap
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, Final, Protocol

from frontend.guest.mmio import MmioBus, MmioExit, accesses
from vhostuser.errors import VhostUserError
from vhostuser.memory.address import address_of
from vhostuser.memory.map import GuestAddr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from frontend.guest.memory import GuestBlock
    from frontend.guest.mmio import MmioHandler

PAGE: Final = mmap.PAGESIZE
MAX_SLOTS: Final = 509
"""Numbers that every KVM takes, newer ones take more: 512 without three of its own.  It is where vhost's limit of 509
regions comes from."""

_WORD: Final = 8  # a dirty log is an array of unsigned longs


class SlotFlags(IntFlag):
    """KVM_MEM_LOG_DIRTY_PAGES and KVM_MEM_READONLY."""

    NONE = 0
    LOG_DIRTY_PAGES = 1
    READONLY = 2


class SlotError(VhostUserError, OSError):
    """A slot cannot be set, or has no dirty log.

    Attributes:
        errno: as KVM has it: EINVAL, EEXIST, ENOENT.
    """

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True, slots=True)
class MemorySlot:
    """A numbered piece of guest memory.

    Attributes:
        slot: its number.
        guest_addr: where it begins for the guest.
        view: its bytes; an empty view is "no slot".
        flags: what happens when the guest writes.
    """

    slot: int
    guest_addr: GuestAddr
    view: memoryview = field(repr=False, compare=False)
    flags: SlotFlags = SlotFlags.NONE

    @classmethod
    def nothing(cls, slot: int) -> MemorySlot:
        """What to set in order to take a slot away."""
        return cls(slot, GuestAddr(0), memoryview(b""))

    @property
    def size(self) -> int:
        """Bytes."""
        return self.view.nbytes

    @property
    def end(self) -> int:
        """The guest address behind its last byte."""
        return self.guest_addr + self.size

    @property
    def readonly(self) -> bool:
        """Whether a store of the guest's exits."""
        return bool(self.flags & SlotFlags.READONLY)

    def __str__(self) -> str:
        return f"slot {self.slot} ({self.guest_addr:#x}+{self.size:#x})"


class MemorySlots(Protocol):
    """Slots that can be set and asked for their dirty log."""

    def set(self, slot: MemorySlot) -> None:
        """Make, change or (size 0) take away the slot of that number.

        Raises:
            SlotError: it breaks a rule; nothing has changed then.
        """

    def dirty_log(self, number: int) -> bytes:
        """Which pages of a slot the guest has written since the last time, one bit each, lowest first; cleared by this.

        Whole words of eight bytes, as KVM's; `dirty_pages` makes numbers of them.

        Raises:
            SlotError: there is no such slot, or it does not log.
        """

    @property
    def table(self) -> Mapping[int, MemorySlot]:
        """What is set, by number."""


class Machine(MemorySlots, Protocol):
    """Slots, and a CPU that works in them."""

    def read(self, addr: GuestAddr, length: int) -> bytes:
        """Have the guest's CPU load bytes, in naturally aligned pieces of at most four."""

    def write(self, addr: GuestAddr, data: bytes) -> None:
        """Have it store bytes, in the same way."""


class SoftwareSlots:
    """The rules above in Python: a `Machine` for any system.

    Args:
        handler: gets the accesses that memory does not answer; called in the middle of `read` and `write`.
    """

    def __init__(self, handler: MmioHandler | None = None) -> None:
        self.handler: MmioHandler = handler if handler is not None else MmioBus()
        self._table: dict[int, MemorySlot] = {}
        self._dirty: dict[int, bytearray] = {}

    @property
    def table(self) -> Mapping[int, MemorySlot]:
        """What is set, by number."""
        return dict(self._table)

    def set(self, slot: MemorySlot) -> None:
        """See `MemorySlots.set`."""
        if (refusal := why_refused(self._table, slot)) is not None:
            raise refusal
        if not slot.size:
            del self._table[slot.slot]
        else:
            self._table[slot.slot] = slot
        if not slot.size or not slot.flags & SlotFlags.LOG_DIRTY_PAGES:
            self._dirty.pop(slot.slot, None)
        else:
            self._dirty.setdefault(slot.slot, bytearray(log_size(slot.size)))

    def dirty_log(self, number: int) -> bytes:
        """See `MemorySlots.dirty_log`."""
        if number not in self._dirty:
            raise no_dirty_log(self._table, number)
        log = self._dirty[number]
        found, log[:] = bytes(log), bytes(len(log))
        return found

    def read(self, addr: GuestAddr, length: int) -> bytes:
        """See `Machine.read`."""
        found = bytearray()
        for slot, begin, size in self._pieces(addr, length, stores=False):
            if slot is None:
                found += self.handler(MmioExit.load(begin, size))
            else:
                found += slot.view[begin - slot.guest_addr :][:size]
        return bytes(found)

    def write(self, addr: GuestAddr, data: bytes) -> None:
        """See `Machine.write`."""
        for slot, begin, size in self._pieces(addr, len(data), stores=True):
            piece = data[begin - addr :][:size]
            if slot is None:
                self.handler(MmioExit.store(begin, piece))
            else:
                self._store(slot, begin - slot.guest_addr, piece)

    def _store(self, slot: MemorySlot, offset: int, data: bytes) -> None:
        slot.view[offset : offset + len(data)] = data
        if (log := self._dirty.get(slot.slot)) is not None:
            for page in range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1):
                log[page // 8] |= 1 << page % 8

    def _pieces(self, addr: int, length: int, *, stores: bool) -> Iterator[tuple[MemorySlot | None, int, int]]:
        """The bytes from ``addr`` on, as (slot, address, size); without a slot, it is one access and exits.

        The table is looked at again for each piece, because a handler may have changed it.
        """
        end = addr + length
        while addr < end:
            slot = self._slot_at(addr)
            if slot is None or (stores and slot.readonly):
                slot, (_, size) = None, next(accesses(addr, end - addr))
            else:
                size = min(end, slot.end) - addr
            yield slot, addr, size
            addr += size

    def _slot_at(self, addr: int) -> MemorySlot | None:
        return next((slot for slot in self._table.values() if slot.guest_addr <= addr < slot.end), None)


def why_refused(table: Mapping[int, MemorySlot], new: MemorySlot) -> SlotError | None:
    """Why ``new`` may not be set where ``table`` is set already; None when it may."""
    old = table.get(new.slot)
    if int(new.flags) & ~int(SlotFlags.LOG_DIRTY_PAGES | SlotFlags.READONLY):  # as ints: ~ of flags forgets the unknown
        return SlotError(errno.EINVAL, f"{new}: unknown flags {int(new.flags):#x}")
    if not new.size:
        return None if old else SlotError(errno.EINVAL, f"slot {new.slot} is not there, so it cannot be taken away")
    if (unaligned := _unaligned(new)) is not None:
        return SlotError(errno.EINVAL, f"{new}: {unaligned}, expected whole pages of {PAGE:#x}")
    if new.guest_addr + new.size > 1 << 64:
        return SlotError(errno.EINVAL, f"{new}: guest addresses end at 2^64")
    if old is not None and (fixed := _fixed(old, new)) is not None:
        return SlotError(errno.EINVAL, f"{new}: {fixed}; take the slot away (size 0), then make it anew")
    for other in table.values():
        if other.slot != new.slot and new.guest_addr < other.end and other.guest_addr < new.end:
            return SlotError(errno.EEXIST, f"{new} overlaps {other}")
    if not 0 <= new.slot < MAX_SLOTS:  # last, because a newer KVM has more, and may have refused it for another reason
        return SlotError(errno.EINVAL, f"slot numbers go from 0 to {MAX_SLOTS - 1}, found {new.slot}")
    return None


def no_dirty_log(table: Mapping[int, MemorySlot], number: int) -> SlotError:
    """The error for a slot that has no dirty log."""
    if number not in table:
        return SlotError(errno.ENOENT, f"slot {number} is not there")
    return SlotError(errno.ENOENT, f"{table[number]} does not log: set it with LOG_DIRTY_PAGES")


def log_size(size: int) -> int:
    """Bytes of the dirty log of ``size`` bytes of memory."""
    return -(-size // PAGE // 8 // _WORD) * _WORD


def dirty_pages(log: bytes) -> list[int]:
    """The numbers of the pages whose bits are set."""
    return [index * 8 + bit for index, byte in enumerate(log) if byte for bit in range(8) if byte >> bit & 1]


def slots_for(layout: Iterable[GuestBlock], *, log_dirty: bool = False) -> list[MemorySlot]:
    """A slot for each block of a guest's memory, numbered from 0; READONLY for ROM.

    Args:
        layout: `GuestRam.layout`.
        log_dirty: whether RAM logs its dirty pages.
    """
    ram = SlotFlags.LOG_DIRTY_PAGES if log_dirty else SlotFlags.NONE
    return [
        MemorySlot(number, block.guest_addr, block.view, SlotFlags.READONLY if block.rom else ram)
        for number, block in enumerate(layout)
    ]


def _unaligned(slot: MemorySlot) -> str | None:
    for name, value in (("address", slot.guest_addr), ("size", slot.size), ("memory", address_of(slot.view))):
        if value % PAGE or value < 0:
            return f"{name} {value:#x}"
    return None


def _fixed(old: MemorySlot, new: MemorySlot) -> str | None:
    """What ``new`` would change of ``old`` that cannot be changed."""
    if new.size != old.size:
        return f"its size is {old.size:#x}"
    if address_of(new.view) != address_of(old.view):
        return "its bytes lie elsewhere"
    if (new.flags ^ old.flags) & SlotFlags.READONLY:
        return "READONLY cannot be toggled"
    return None
