"""Faults of the memory table and of memory slots."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from tests.conformance.mutants.registry import edit, mutant, wrap
from vhostuser.backend.connection import Backend
from vhostuser.memory import map as memory_map
from vhostuser.memory import region
from vhostuser.memory.map import GuestAddressError, GuestMemory
from vhostuser.protocol import memory_table
from vhostuser.protocol.backend import BackendProtocol
from vhostuser.protocol.state import ProtocolState
from vhostuser.wire.frontend_messages import AddMemReg

if TYPE_CHECKING:
    from vhostuser.fd import Fds

KEPT: list[object] = []


@mutant("B-MEM-04")
def mmap_offset_ignored() -> None:
    """Every region is mapped from the start of its file."""
    edit(region, "file_range", "return region.mmap_offset, region.size", "return 0, region.size")


@mutant("B-MEM-03")
def descriptors_in_the_wrong_order() -> None:
    """The descriptors of a memory table go to its regions backwards."""
    edit(Backend, "_act", "frame.fds.take_all()", "type(frame.fds)(reversed(frame.fds.take_all()))")


@mutant("B-MEM-06")
def ring_addresses_taken_for_guest_addresses() -> None:
    """A ring is looked for at guest addresses."""
    wrap(GuestMemory, "_be")(lambda original, self, guest, user: original(self, guest, guest))


@mutant("B-MEM-07")
def descriptors_taken_for_user_addresses() -> None:
    """A buffer is looked for at user addresses."""
    wrap(GuestMemory, "_be")(lambda original, self, guest, user: original(self, user, user))


@mutant("B-MEM-08")
def old_table_kept() -> None:
    """A memory table is added to the one before."""

    @wrap(Backend, "_use_memory")
    async def use(original: Any, self: Backend, memory: GuestMemory) -> None:
        new = {one.guest_addr for one in memory.mapped}
        old = [one for one in self.memory.mapped if one.guest_addr not in new]
        await original(self, GuestMemory((*memory.mapped, *old)))


@mutant("B-MEM-02")
def only_one_region() -> None:
    """Of a memory table only the first region is used."""

    @wrap(Backend, "_use_memory")
    async def use(original: Any, self: Backend, memory: GuestMemory) -> None:
        await original(self, GuestMemory(memory.mapped[:1]))


@mutant("B-MEM-16")
def descriptor_kept_for_each_table() -> None:
    """Every memory table leaves a descriptor open."""
    edit(Backend, "_act", "frame.fds.take_all()", "KEPT.append(frame.fds[0].duplicate()) or frame.fds.take_all()")
    Backend._act.__globals__["KEPT"] = KEPT


@mutant("B-MEM-16")
def mapping_kept_for_each_table() -> None:
    """Every memory table stays mapped."""

    @wrap(Backend, "_use_memory")
    async def use(original: Any, self: Backend, memory: GuestMemory) -> None:
        KEPT.append(memory)
        await original(self, memory)


@mutant("B-MEM-12", "B-MEM-14")
def whole_file_is_memory() -> None:
    """Buffers may lie behind their region, as far as its file goes."""

    @wrap(GuestMemory, "map")
    def mapped(original: Any, regions: Any, fds: Fds, **options: Any) -> GuestMemory:
        sizes = [os.fstat(fd.fileno()).st_size - each.mmap_offset for each, fd in zip(regions, fds, strict=True)]
        kind = type(regions[0])
        grown = [
            kind(each.guest_addr, size, each.user_addr, each.mmap_offset)
            for each, size in zip(regions, sizes, strict=True)
        ]
        memory: GuestMemory = original(grown, fds, **options)
        return memory


@mutant("B-MEM-12")
def a_gap_leads_to_the_next_region() -> None:
    """A buffer between two regions is taken to lie at the beginning of the second."""

    @wrap(GuestMemory, "views")
    def views(original: Any, self: GuestMemory, addr: int, length: int) -> Any:
        try:
            return original(self, addr, length)
        except GuestAddressError:
            return [self.mapped[-1].view[:length]]


@mutant("B-MEM-12")
def a_gap_swallows_what_is_written() -> None:
    """What is written between two regions is thrown away, and the request is done."""

    @wrap(GuestMemory, "views")
    def views(original: Any, self: GuestMemory, addr: int, length: int) -> Any:
        try:
            return original(self, addr, length)
        except GuestAddressError:
            return [memoryview(bytearray(length))]


@mutant("B-MEM-17[split]", "B-MEM-17[packed]")
def a_table_counts_from_the_next_message_on() -> None:
    """A memory table is acknowledged, and used when the next message has come."""
    late: list[GuestMemory] = []
    use_now = Backend._use_memory

    @wrap(Backend, "_use_memory")
    async def use(original: Any, self: Backend, memory: GuestMemory) -> None:
        late.append(memory)

    @wrap(Backend, "_handle")
    async def handle(original: Any, self: Backend, frame: Any) -> Any:
        while late:
            await use_now(self, late.pop(0))
        return await original(self, frame)


@mutant("B-MEM-10")
def table_has_eight_places() -> None:
    """A memory table that is not 264 bytes long is refused."""
    edit(
        Backend,
        "_act",
        "case SetMemTable(regions):",
        "case SetMemTable(regions) if len(frame.payload) != 264: raise MappingError('short')\n"
        "            case SetMemTable(regions):",
    )


@mutant("B-MEM-09")
def a_running_ring_breaks_with_a_new_table() -> None:
    """A running ring stops when a memory table comes."""
    edit(Backend, "_use_memory", "await self._follow_all()", "await self._stop_rings()")


@mutant("B-MEM-05")
def a_file_only_once() -> None:
    """A file that comes twice in one table is refused."""

    @wrap(GuestMemory, "map")
    def mapped(original: Any, regions: Any, fds: Fds, **options: Any) -> Any:
        if len({os.fstat(fd.fileno()).st_ino for fd in fds}) < len(fds):
            fds.close()
            raise region.MappingError("twice")
        return original(regions, fds, **options)


# --- slots -----------------------------------------------------------------------------------------------------------


@mutant("B-SLOT-01")
def no_slots() -> None:
    """GET_MAX_MEM_SLOTS says 0."""
    edit(BackendProtocol, "_known", "return self.state.max_mem_slots", "return 0")


@mutant("B-SLOT-12")
def fewer_slots_than_said() -> None:
    """There is room for half as many slots as GET_MAX_MEM_SLOTS says."""
    edit(memory_table, "added", "limit is not None and len(table) >= limit", "len(table) >= limit // 2")


@mutant("B-SLOT-13", offers=True)
def slots_asserted() -> None:
    """There are 16 slots, and one region more ends the program."""
    edit(BackendProtocol, "__init__", "max_mem_slots=max_mem_slots", "max_mem_slots=16")
    edit(memory_table, "added", "expect(not full,", "assert not full; expect(True,")


@mutant("B-SLOT-04")
def a_slot_replaces_the_others() -> None:
    """ADD_MEM_REG drops the regions that were there before."""
    edit(Backend, "_act", "self.memory.with_region(", "GuestMemory.EMPTY.with_region(")


@mutant("B-SLOT-03")
def a_slot_at_the_start_of_its_file() -> None:
    """The user address of a region that is added is taken to be its guest address."""
    edit(
        Backend,
        "_act",
        "self.memory.with_region(region,",
        "self.memory.with_region(type(region)(region.guest_addr, region.size, region.guest_addr, region.mmap_offset),",
    )


@mutant("B-SLOT-05")
def a_slot_is_only_for_rings_to_come() -> None:
    """A region that is added is unknown to rings that run already."""
    edit(
        Backend,
        "_act",
        "await self._use_memory(self.memory.with_region(region, frame.fds[0].move()))",
        "self.memory = self.memory.with_region(region, frame.fds[0].move())",
    )


@mutant("B-SLOT-06")
def a_removed_slot_is_used_on() -> None:
    """REM_MEM_REG removes nothing."""
    edit(Backend, "_act", "await self._use_memory(self.memory.without_region(region))", "pass")


@mutant("B-SLOT-07")
def removal_compares_the_offset() -> None:
    """REM_MEM_REG has to name the offset in the file too."""
    edit(memory_table, "_identity", "region.size", "region.size, region.mmap_offset")


@mutant("B-SLOT-08")
def removal_by_guest_address() -> None:
    """REM_MEM_REG looks at the guest address only."""
    edit(memory_table, "_identity", "region.user_addr, region.size", "0, 0")
    edit(memory_map, "_identity", "region.user_addr, region.size", "0, 0")


@mutant("B-SLOT-09")
def removal_with_a_descriptor_ends_the_program() -> None:
    """A descriptor with REM_MEM_REG ends the program."""
    edit(Backend, "_act", "self.memory.without_region(region)", "self.memory.without_region([region, *frame.fds][-1])")


@mutant("B-SLOT-10")
def removal_keeps_its_descriptor() -> None:
    """A descriptor that comes with REM_MEM_REG stays open."""
    edit(
        Backend,
        "_act",
        "self.memory.without_region(region)",
        "self.memory.without_region(KEPT.append(frame.fds.take_all()) or region)",
    )
    Backend._act.__globals__["KEPT"] = KEPT


@mutant("B-SLOT-11")
def descriptor_kept_for_each_slot() -> None:
    """Every ADD_MEM_REG leaves a descriptor open."""
    edit(
        Backend,
        "_act",
        "self.memory.with_region(region, ",
        "KEPT.append(frame.fds[0].duplicate()) or self.memory.with_region(region, ",
    )
    Backend._act.__globals__["KEPT"] = KEPT


@mutant("B-SLOT-11")
def a_range_only_once() -> None:
    """A range that was removed cannot be added again."""
    seen: set[int] = set()

    @wrap(Backend, "_act")
    async def act(original: Any, self: Backend, message: Any, frame: Any) -> Any:
        if isinstance(message, AddMemReg):
            if message.region.guest_addr in seen:
                raise region.MappingError("again")
            seen.add(message.region.guest_addr)
        return await original(self, message, frame)


@mutant("B-SLOT-15")
def a_slot_without_a_descriptor_ends_the_program() -> None:
    """ADD_MEM_REG without a descriptor ends the program."""
    edit(
        ProtocolState,
        "_check_fds",
        "expect(fd_count in limits,",
        "expect(fd_count in limits or spec.request == 37 and not fd_count,",
    )


@mutant("B-SLOT-16")
def surplus_descriptor_of_a_slot_kept() -> None:
    """The second descriptor of an ADD_MEM_REG stays open."""
    edit(ProtocolState, "_check_fds", "expect(fd_count in limits,", "expect(fd_count in limits or spec.request == 37,")
    edit(
        Backend,
        "_act",
        "self.memory.with_region(region, ",
        "KEPT.extend(fd.move() for fd in frame.fds[1:]) or self.memory.with_region(region, ",
    )
    Backend._act.__globals__["KEPT"] = KEPT


@mutant("B-SLOT-14")
def slot_payload_of_32_bytes() -> None:
    """ADD_MEM_REG with its padding is refused."""
    edit(
        Backend,
        "_act",
        "case AddMemReg(region):",
        "case AddMemReg(region) if len(frame.payload) == 40: raise MappingError('40')\n"
        "            case AddMemReg(region):",
    )


@mutant("B-SLOT-17")
def unknown_slot_ends_the_program() -> None:
    """The removal of a region that is not there ends the program."""
    edit(memory_table, "removed", "expect(len(rest) < len(table),", "assert len(rest) < len(table); expect(True,")
