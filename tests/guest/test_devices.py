"""What is behind addresses that are not memory: the bus, ROM that counts, a doorbell, a flash."""

from __future__ import annotations

import pytest

from frontend.guest.flash import BLOCK_SIZE, DEVICE, MANUFACTURER, READY, Command, Flash
from frontend.guest.kvm import KvmMachine
from frontend.guest.mmio import Doorbell, MmioBus, MmioExit, Rom
from frontend.guest.slots import Machine, SoftwareSlots
from tests.guest.machines import READONLY, Exits, at, memory, slot


@pytest.fixture
def bus(machine: Machine) -> MmioBus:
    """A bus in the place of ``exits``."""
    bus = MmioBus()
    assert isinstance(machine, SoftwareSlots | KvmMachine)
    machine.handler = bus
    return bus


def test_stores_to_rom_are_dropped_and_counted(machine: Machine, bus: MmioBus) -> None:
    view = memory(1)
    view[:4] = b"BIOS"
    rom = Rom(view)
    machine.set(slot(0, 240, view, READONLY))
    bus.add(at(240), len(view), rom)
    machine.write(at(240), b"evil")
    machine.write(at(240, 8), b"x")
    assert rom.dropped == 2
    assert machine.read(at(240), 4) == b"BIOS"


def test_rom_without_a_slot_is_slow_but_right(machine: Machine, bus: MmioBus) -> None:
    view = memory(1)
    view[:6] = b"BIOS!!"
    bus.add(at(240), len(view), Rom(view))
    assert machine.read(at(240, 1), 5) == b"IOS!!"


def test_a_doorbell_hears_the_queue_number(machine: Machine, bus: MmioBus) -> None:
    heard: list[int] = []
    bus.add(at(300), 4, Doorbell(heard.append))
    machine.write(at(300), (3).to_bytes(4, "little"))
    assert heard == [3]
    assert machine.read(at(300), 4) == bytes(4)


def test_where_nobody_is_the_bus_floats(machine: Machine, bus: MmioBus) -> None:
    machine.write(at(300), b"lost")
    assert machine.read(at(300), 4) == b"\xff" * 4
    assert bus.unclaimed == 2


def test_two_devices_cannot_have_the_same_address() -> None:
    bus = MmioBus()
    bus.add(0x1000, 0x100, Rom(memory(1)))
    with pytest.raises(ValueError, match="0x10ff\\+0x1 is taken: Rom"):
        bus.add(0x10FF, 1, Rom(memory(1)))
    bus.add(0x1100, 1, Rom(memory(1)))


def test_exits_say_what_they_are() -> None:
    assert str(MmioExit.store(0xF0010, b"\xa5\x01")) == "store of a5 01 at 0xf0010"
    assert str(MmioExit.load(0xF0010, 4)) == "load of 4 bytes at 0xf0010"


# --- the flash ---


@pytest.fixture
def flash(machine: Machine, bus: MmioBus) -> Flash:
    view = memory(2)
    view[:] = b"\xff" * len(view)
    flash = Flash(machine, slot(4, 512, view, READONLY))
    bus.add(at(512), len(view), flash)
    return flash


def command(machine: Machine, *bytes_: int, offset: int = 0) -> None:
    for each in bytes_:
        machine.write(at(512, offset), bytes([each]))


def program(machine: Machine, offset: int, data: bytes) -> None:
    for index, each in enumerate(data):
        command(machine, Command.PROGRAM, each, offset=offset + index)
    command(machine, Command.READ_ARRAY)


def test_a_flash_is_memory_until_it_gets_a_command(machine: Machine, bus: MmioBus, flash: Flash) -> None:
    assert machine.read(at(512), 4) == b"\xff" * 4
    assert bool(flash.reading)
    command(machine, Command.READ_IDENTITY)
    assert not flash.reading
    assert machine.table == {}
    assert machine.read(at(512), 4) == bytes([MANUFACTURER, DEVICE] * 2)
    command(machine, Command.READ_ARRAY)
    assert machine.table.keys() == {4}
    assert machine.read(at(512), 4) == b"\xff" * 4


def test_a_flash_is_programmed_byte_by_byte(machine: Machine, flash: Flash) -> None:
    program(machine, 100, b"written")
    assert machine.read(at(512, 99), 9) == b"\xffwritten\xff"


def test_programming_turns_no_zero_into_a_one(machine: Machine, flash: Flash) -> None:
    program(machine, 0, b"\x0f")
    program(machine, 0, b"\x3c")
    assert machine.read(at(512), 1) == b"\x0c"


def test_erasing_sets_a_block_to_ones_and_no_other(machine: Machine, flash: Flash) -> None:
    program(machine, 10, b"gone")
    program(machine, BLOCK_SIZE, b"stays")
    command(machine, Command.ERASE_SETUP, Command.CONFIRM, offset=20)
    assert machine.read(at(512), 1) == bytes([READY])
    command(machine, Command.READ_ARRAY)
    assert machine.read(at(512, 10), 4) == b"\xff" * 4
    assert machine.read(at(512, BLOCK_SIZE), 5) == b"stays"


def test_an_erase_that_is_not_confirmed_is_an_error_in_the_status(machine: Machine, flash: Flash) -> None:
    program(machine, 10, b"stays")
    command(machine, Command.ERASE_SETUP, 0x00)
    assert machine.read(at(512), 1) == b"\xb0"
    command(machine, Command.CLEAR_STATUS, Command.READ_STATUS)
    assert machine.read(at(512), 1) == bytes([READY])
    command(machine, 0x00)
    assert machine.read(at(512, 10), 5) == b"stays"


def test_a_flash_without_read_only_slots_serves_its_array_itself(flash: Flash) -> None:
    assert flash.load(0, 2) == b"\xff\xff"


def test_a_handler_may_answer_without_a_bus(exits: Exits) -> None:
    machine = SoftwareSlots(exits)
    machine.write(at(1), b"x")
    assert exits == [MmioExit.store(at(1), b"x")]
