"""Guest memory in blocks: what is offered to a back-end, what is not and why, and the buffers in it."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from frontend.guest.layout import LayoutError, Place
from frontend.guest.memory import FIRST_ADDR, GuestRam, NotShareable, OutOfGuestMemory
from frontend.guest.slots import MemorySlot, SlotFlags, SoftwareSlots, slots_for
from vhostuser.memory.backends import MemoryBackendError, MemoryBackendFile, MemoryBackendRam, MemoryBackendShm
from vhostuser.memory.map import GuestAddr, GuestAddressError, GuestMemory, MappingError

if TYPE_CHECKING:
    from pathlib import Path

PAGE = mmap.PAGESIZE
MIB = 1 << 20
GIB = 1 << 30


def shared(size: int = MIB, name: str = "ram") -> MemoryBackendShm:
    return MemoryBackendShm(id=name, size=size)


def private(size: int = MIB, name: str = "scratch") -> MemoryBackendRam:
    return MemoryBackendRam(id=name, size=size)


def test_one_backend_is_one_region_at_the_first_address() -> None:
    with GuestRam(shared()) as ram:
        assert [(region.guest_addr, region.size, region.mmap_offset) for region in ram.regions] == [
            (FIRST_ADDR, MIB, 0)
        ]


def test_a_block_across_the_hole_is_two_regions_of_one_file() -> None:
    with GuestRam(shared(4 * GIB)) as ram, ram.duplicate_fds() as fds:
        low = 3 * GIB - FIRST_ADDR
        assert [(region.guest_addr, region.size, region.mmap_offset) for region in ram.regions] == [
            (FIRST_ADDR, low, 0),
            (4 * GIB, 4 * GIB - low, low),
        ]
        assert len(ram.blocks) == 1
        assert len({os.fstat(fd.fileno()).st_ino for fd in fds}) == 1
        assert ram.regions[1].user_addr == ram.regions[0].user_addr + low


def test_what_a_backend_maps_is_what_the_guest_has_above_the_hole() -> None:
    with GuestRam(shared(4 * GIB)) as ram:
        ram.memory.view(GuestAddr(4 * GIB + 5), 5)[:] = b"above"
        theirs = GuestMemory.map(ram.regions, ram.duplicate_fds())
        assert bytes(theirs.view(GuestAddr(4 * GIB + 5), 5)) == b"above"


def test_a_buffer_never_lies_across_the_hole() -> None:
    with GuestRam(Place(shared(4 * PAGE), GuestAddr(3 * GIB)), Place(shared(4 * PAGE), GuestAddr(4 * GIB))) as ram:
        buffers = [ram.buffer(3 * PAGE, align=PAGE) for _ in range(2)]
        assert [buffer.addr for buffer in buffers] == [3 * GIB, 4 * GIB]
        with pytest.raises(OutOfGuestMemory, match="has 8192 left"):
            ram.buffer(2 * PAGE)


def test_released_buffers_are_used_again() -> None:
    with GuestRam(shared(4 * PAGE)) as ram:
        for _ in range(10):
            pieces = [ram.buffer(PAGE, align=PAGE) for _ in range(4)]
            for piece in (pieces[1], pieces[3], pieces[0], pieces[2]):
                ram.release(piece)
        assert len(ram.buffer(4 * PAGE)) == 4 * PAGE


def test_rom_and_private_blocks_are_in_the_layout_but_not_offered() -> None:
    bios = Place(private(PAGE, "bios"), GuestAddr(0xF0000), rom=True)
    shared_bios = Place(shared(PAGE, "shared-bios"), GuestAddr(0xE0000), rom=True)
    with GuestRam(shared(), private(), bios, shared_bios) as ram, ram.duplicate_fds() as fds:
        assert [(block.memory.backend.id, block.rom, block.why_not_offered is None) for block in ram.layout] == [
            ("shared-bios", True, False),
            ("bios", True, False),
            ("ram", False, True),
            ("scratch", False, False),
        ]
        reasons = {block.memory.backend.id: block.why_not_offered for block in ram.layout}
        assert reasons["scratch"] == (
            "memory-backend-ram scratch has share=off, so it has no fd to share: set share=on"
        )
        assert reasons["shared-bios"] == "memory-backend-shm shared-bios is ROM for the guest: back-ends need RAM"
        assert len(ram.regions) == len(fds) == len(ram.memory.regions) == 1


def test_a_guest_with_nothing_to_offer_says_which_property_to_change() -> None:
    with pytest.raises(NotShareable) as caught:
        GuestRam(private(), Place(shared(PAGE, "bios"), GuestAddr(0), rom=True))
    assert "ram scratch has share=off, so it has no fd to share: set share=on" in str(caught.value)
    assert "memory-backend-shm bios is ROM" in str(caught.value)


def test_a_guest_without_memory_is_an_error() -> None:
    with pytest.raises(NotShareable, match="no memory at all"):
        GuestRam()


def test_blocks_that_overlap_leave_nothing_behind() -> None:
    with pytest.raises(LayoutError, match="overlaps"):
        GuestRam(Place(shared(), GuestAddr(0)), Place(shared(), GuestAddr(PAGE)))


def test_a_block_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(MemoryBackendError, match="can't open backing store"):
        GuestRam(shared(), MemoryBackendFile(size=PAGE, mem_path=str(tmp_path / "none"), readonly=True))


def test_a_file_that_is_only_read_is_rom_without_being_told(tmp_path: Path) -> None:
    (tmp_path / "bios").write_bytes(b"BIOS".ljust(PAGE))
    bios = MemoryBackendFile(id="bios", size=PAGE, mem_path=str(tmp_path / "bios"), readonly=True, share=True)
    with GuestRam(shared(), Place(bios, GuestAddr(0xF0000))) as ram:
        assert [(block.rom, block.why_not_offered is None) for block in ram.layout] == [(True, False), (False, True)]
        assert "bios" in str(ram.layout[0].why_not_offered)
        assert bytes(ram.layout[0].view[:4]) == b"BIOS"


def test_a_file_that_begins_in_the_middle_is_offered_from_there(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(3 * PAGE))
    backend = MemoryBackendFile(size=2 * PAGE, mem_path=str(tmp_path / "ram"), share=True, offset=PAGE)
    hole = 3 * GIB - PAGE
    with GuestRam(Place(shared(hole - FIRST_ADDR), GuestAddr(FIRST_ADDR)), backend) as ram:
        assert [(region.guest_addr, region.mmap_offset) for region in ram.regions[1:]] == [
            (hole, PAGE),
            (4 * GIB, 2 * PAGE),
        ]


def test_user_addresses_lead_to_the_same_bytes() -> None:
    with GuestRam(shared()) as ram:
        buffer = ram.buffer(100)
        assert ram.user_addr(buffer.addr) == buffer.user_addr
        assert ram.memory.guest_addr(buffer.user_addr) == buffer.addr  # type: ignore[arg-type]
        with pytest.raises(GuestAddressError):
            ram.user_addr(GuestAddr(0))


def test_a_layout_becomes_slots() -> None:
    bios = Place(private(PAGE, "bios"), GuestAddr(0xF0000), rom=True)
    with GuestRam(shared(), bios) as ram:
        slots = slots_for(ram.layout, log_dirty=True)
        assert slots == [
            MemorySlot(0, GuestAddr(0xF0000), slots[0].view, SlotFlags.READONLY),
            MemorySlot(1, GuestAddr(FIRST_ADDR), slots[1].view, SlotFlags.LOG_DIRTY_PAGES),
        ]
        machine = SoftwareSlots()
        for slot in slots:
            machine.set(slot)
        machine.write(GuestAddr(FIRST_ADDR + 3), b"abc")
        assert bytes(ram.memory.view(GuestAddr(FIRST_ADDR + 3), 3)) == b"abc"
        assert slots_for(ram.layout)[1].flags == SlotFlags.NONE


def test_memory_for_a_guest_has_no_gaps_that_a_backend_could_fall_into() -> None:
    with GuestRam(shared()) as ram, pytest.raises(MappingError):
        GuestMemory([*ram.memory.mapped, *ram.memory.mapped])
