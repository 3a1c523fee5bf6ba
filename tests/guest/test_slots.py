"""Memory slots, by KVM's rules: the same tests for Python's slots and for KVM's own."""

from __future__ import annotations

import errno
import mmap

import pytest

from frontend.guest.mmio import MmioExit
from frontend.guest.slots import (
    MAX_SLOTS,
    PAGE,
    Machine,
    MemorySlot,
    SlotError,
    SlotFlags,
    SoftwareSlots,
    dirty_pages,
    log_size,
)
from tests.guest.machines import FLOATING, LOG, READONLY, Exits, at, memory, slot
from vhostuser.memory.map import GuestAddr

# --- what a CPU finds ---


def test_ram_is_read_and_written(machine: Machine, exits: Exits) -> None:
    ram = memory(2)
    machine.set(slot(0, 16, ram))
    machine.write(at(16, PAGE - 3), b"across the border")
    assert bytes(ram[PAGE - 3 :][:17]) == b"across the border"
    assert machine.read(at(16, PAGE - 3), 17) == b"across the border"
    assert exits == []


def test_a_write_of_ours_is_what_the_guest_reads(machine: Machine) -> None:
    ram = memory(1)
    machine.set(slot(0, 16, ram))
    ram[8:13] = b"hello"
    assert machine.read(at(16, 8), 5) == b"hello"


def test_rom_is_read(machine: Machine, exits: Exits) -> None:
    rom = memory(1)
    rom[:8] = b"firmware"
    machine.set(slot(1, 240, rom, READONLY))
    assert machine.read(at(240), 8) == b"firmware"
    assert exits == []


def test_a_store_to_rom_exits_and_changes_nothing(machine: Machine, exits: Exits) -> None:
    rom = memory(1)
    rom[:8] = b"firmware"
    machine.set(slot(1, 240, rom, READONLY))
    machine.write(at(240, 4), b"\x01\x02\x03\x04")
    assert exits == [MmioExit(at(240, 4), b"\x01\x02\x03\x04", 4)]
    assert machine.read(at(240), 8) == bytes(rom[:8]) == b"firmware"


def test_memory_that_this_process_cannot_write_can_be_rom(machine: Machine) -> None:
    rom = memoryview(mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ))
    machine.set(slot(1, 240, rom, READONLY))
    machine.write(at(240), b"x")
    assert machine.read(at(240), 4) == bytes(4)


def test_where_no_slot_is_both_loads_and_stores_exit(machine: Machine, exits: Exits) -> None:
    machine.write(at(300, 2), b"ab")
    assert machine.read(at(300, 4), 4) == bytes([FLOATING] * 4)
    assert exits == [MmioExit.store(at(300, 2), b"ab"), MmioExit.load(at(300, 4), 4)]


def test_a_long_store_exits_in_naturally_aligned_pieces(machine: Machine, exits: Exits) -> None:
    machine.write(at(300, 1), b"abcdefgh")
    assert [(access.address % PAGE, access.data) for access in exits] == [
        (1, b"a"),
        (2, b"bc"),
        (4, b"defg"),
        (8, b"h"),
    ]


def test_an_access_may_begin_in_memory_and_end_outside(machine: Machine, exits: Exits) -> None:
    ram = memory(1)
    machine.set(slot(0, 16, ram))
    machine.write(at(16, PAGE - 4), b"in..out!")
    assert bytes(ram[-4:]) == b"in.."
    assert machine.read(at(16, PAGE - 4), 8) == b"in.." + bytes([FLOATING] * 4)
    assert exits == [MmioExit.store(at(17), b"out!"), MmioExit.load(at(17), 4)]


def test_neighbours_are_one_memory_for_the_guest(machine: Machine, exits: Exits) -> None:
    low, high = memory(1), memory(1)
    machine.set(slot(0, 16, low))
    machine.set(slot(1, 17, high))
    machine.write(at(16, PAGE - 2), b"abcd")
    assert (bytes(low[-2:]), bytes(high[:2])) == (b"ab", b"cd")
    assert exits == []


# --- slots that change ---


def test_size_0_takes_a_slot_away(machine: Machine, exits: Exits) -> None:
    machine.set(slot(3, 16, memory(1)))
    machine.set(MemorySlot.nothing(3))
    assert machine.table == {}
    machine.read(at(16), 4)
    assert exits == [MmioExit.load(at(16), 4)]


def test_a_slot_can_move(machine: Machine, exits: Exits) -> None:
    ram = memory(1)
    ram[:4] = b"here"
    machine.set(slot(0, 16, ram))
    machine.set(slot(0, 32, ram))
    assert machine.read(at(32), 4) == b"here"
    machine.read(at(16), 4)
    assert exits == [MmioExit.load(at(16), 4)]


def test_a_slot_may_move_to_where_it_overlaps_itself(machine: Machine) -> None:
    ram = memory(2)
    machine.set(slot(0, 16, ram))
    machine.set(slot(0, 17, ram))
    assert list(machine.table.values()) == [slot(0, 17, ram)]


def test_two_slots_may_show_the_same_bytes(machine: Machine) -> None:
    ram = memory(1)
    machine.set(slot(0, 16, ram))
    machine.set(slot(1, 32, ram, READONLY))
    machine.write(at(16), b"same")
    assert machine.read(at(32), 4) == b"same"


def refused(machine: Machine, new: MemorySlot, number: int) -> str:
    before = dict(machine.table)
    with pytest.raises(SlotError) as caught:
        machine.set(new)
    assert caught.value.errno == number
    assert machine.table == before
    return str(caught.value)


def test_slots_do_not_overlap(machine: Machine) -> None:
    machine.set(slot(0, 16, memory(4)))
    assert "slot 1 (0x13000+0x1000) overlaps slot 0" in refused(machine, slot(1, 19, memory(1)), errno.EEXIST)
    machine.set(slot(1, 20, memory(1)))
    refused(machine, slot(0, 17, machine.table[0].view), errno.EEXIST)


def test_an_existing_slot_keeps_its_size(machine: Machine) -> None:
    ram = memory(2)
    machine.set(slot(0, 16, ram))
    for other in (ram[:PAGE], memory(3)):
        assert "its size is 0x2000; take the slot away" in refused(machine, slot(0, 16, other), errno.EINVAL)


def test_an_existing_slot_keeps_its_bytes(machine: Machine) -> None:
    machine.set(slot(0, 16, memory(1)))
    assert "its bytes lie elsewhere" in refused(machine, slot(0, 16, memory(1)), errno.EINVAL)


def test_readonly_cannot_be_toggled_only_made_anew(machine: Machine, exits: Exits) -> None:
    ram = memory(1)
    machine.set(slot(0, 16, ram))
    assert "READONLY cannot be toggled" in refused(machine, slot(0, 16, ram, READONLY), errno.EINVAL)
    machine.set(MemorySlot.nothing(0))
    machine.set(slot(0, 16, ram, READONLY))
    refused(machine, slot(0, 16, ram), errno.EINVAL)
    machine.write(at(16), b"x")
    assert len(exits) == 1


def test_a_slot_that_is_not_there_cannot_be_taken_away(machine: Machine) -> None:
    assert "slot 7 is not there" in refused(machine, MemorySlot.nothing(7), errno.EINVAL)


@pytest.mark.parametrize("flags", [4, 1 << 31])
def test_unknown_flags_are_refused(machine: Machine, flags: int) -> None:
    assert "unknown flags" in refused(machine, slot(0, 16, memory(1), SlotFlags(flags)), errno.EINVAL)


@pytest.mark.parametrize(
    ("addr", "begin", "size", "found"),
    [(PAGE + 512, 0, PAGE, "address 0x1200"), (PAGE, 0, 512, "size 0x200"), (PAGE, 512, PAGE, "memory 0x")],
)
def test_slots_are_whole_pages(machine: Machine, addr: int, begin: int, size: int, found: str) -> None:
    view = memory(2)[begin : begin + size]
    assert found in refused(machine, MemorySlot(0, GuestAddr(addr), view), errno.EINVAL)


def test_a_slot_does_not_wrap(machine: Machine) -> None:
    assert "end at 2^64" in refused(machine, slot(0, (1 << 64) // PAGE - 1, memory(2)), errno.EINVAL)


@pytest.mark.parametrize("number", [-1, MAX_SLOTS])
def test_slot_numbers_have_a_limit_in_python(number: int) -> None:
    """KVM's own limit depends on the kernel."""
    assert f"found {number}" in refused(SoftwareSlots(), slot(number, 16, memory(1)), errno.EINVAL)


# --- the dirty log ---


def test_the_log_has_a_bit_for_each_page_that_the_guest_wrote(machine: Machine) -> None:
    machine.set(slot(0, 16, memory(70), LOG))
    machine.write(at(16, 5), b"x")
    machine.write(at(17, PAGE - 2), b"abcd")
    machine.write(at(16 + 69), b"x")
    log = machine.dirty_log(0)
    assert dirty_pages(log) == [0, 1, 2, 69]
    assert len(log) == 16


def test_reading_the_log_clears_it(machine: Machine) -> None:
    machine.set(slot(0, 16, memory(4), LOG))
    machine.write(at(17), b"x")
    assert dirty_pages(machine.dirty_log(0)) == [1]
    assert dirty_pages(machine.dirty_log(0)) == []
    machine.write(at(17), b"y")
    assert dirty_pages(machine.dirty_log(0)) == [1]


def test_what_we_write_ourselves_is_not_logged(machine: Machine) -> None:
    """So a back-end's writes are not either: those have to come through vhost-user's own log."""
    ram = memory(4)
    machine.set(slot(0, 16, ram, LOG))
    ram[PAGE : PAGE + 4] = b"ours"
    assert dirty_pages(machine.dirty_log(0)) == []


def test_logging_is_toggled_in_place(machine: Machine) -> None:
    ram = memory(4)
    machine.set(slot(0, 16, ram))
    machine.write(at(16), b"x")
    machine.set(slot(0, 16, ram, LOG))
    assert dirty_pages(machine.dirty_log(0)) == []
    machine.write(at(18), b"x")
    machine.set(slot(0, 16, ram))
    with pytest.raises(SlotError, match="does not log: set it with LOG_DIRTY_PAGES"):
        machine.dirty_log(0)
    machine.set(slot(0, 16, ram, LOG))
    assert dirty_pages(machine.dirty_log(0)) == []


def test_a_slot_that_is_not_there_has_no_log(machine: Machine) -> None:
    with pytest.raises(SlotError, match="slot 5 is not there") as caught:
        machine.dirty_log(5)
    assert caught.value.errno == errno.ENOENT


def test_a_store_to_rom_is_not_logged(machine: Machine) -> None:
    machine.set(slot(0, 16, memory(1), READONLY | LOG))
    machine.write(at(16), b"x")
    assert dirty_pages(machine.dirty_log(0)) == []


def test_the_log_of_a_slot_that_moved_goes_on(machine: Machine) -> None:
    ram = memory(4)
    machine.set(slot(0, 16, ram, LOG))
    machine.write(at(17), b"x")
    machine.set(slot(0, 32, ram, LOG))
    machine.write(at(34), b"x")
    assert dirty_pages(machine.dirty_log(0)) == [1, 2]


def test_a_log_is_whole_words() -> None:
    assert [log_size(pages * PAGE) for pages in (1, 64, 65)] == [8, 8, 16]
