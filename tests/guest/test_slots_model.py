"""Slots against a model, with whatever Hypothesis thinks of: sets, stores, loads and logs in any order.

The model knows nothing of slots' ways of doing it: it keeps the bytes of each block and a set of dirty pages for each
slot, and looks every byte of an access up by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from frontend.guest.kvm import KvmMachine
from frontend.guest.mmio import MAX_ACCESS, MmioExit
from frontend.guest.slots import PAGE, Machine, MemorySlot, SlotError, SlotFlags, SoftwareSlots, dirty_pages
from tests.guest.machines import FLOATING, LOG, READONLY, Exits, memory
from vhostuser.memory.map import GuestAddr

FIRST = 256
"""Pages begin here, away from what the machine has for itself."""
PAGES = 12
NUMBERS = 4
BLOCK_PAGES = 3
FLAGS = [SlotFlags.NONE, LOG, READONLY, LOG | READONLY]


@dataclass
class ModelSlot:
    first: int
    pages: int
    block: int
    flags: SlotFlags
    dirty: set[int] = field(default_factory=set)

    def has(self, page: int) -> bool:
        return self.first <= page < self.first + self.pages


class SlotsModel(RuleBasedStateMachine):
    machine: Machine
    exits: Exits

    def open(self) -> Machine:
        return SoftwareSlots(self.exits)

    @initialize()
    def begin(self) -> None:
        self.exits = Exits()
        self.machine = self.open()
        self.slots: dict[int, ModelSlot] = {}
        self.views = [memory(BLOCK_PAGES) for _ in range(NUMBERS)]
        self.blocks = [bytearray(BLOCK_PAGES * PAGE) for _ in range(NUMBERS)]

    @rule(
        number=st.integers(0, NUMBERS - 1),
        first=st.integers(FIRST, FIRST + PAGES - 1),
        pages=st.integers(0, BLOCK_PAGES),
        block=st.integers(0, NUMBERS - 1),
        flags=st.sampled_from(FLAGS),
    )
    def set_slot(self, number: int, first: int, pages: int, block: int, flags: SlotFlags) -> None:
        new = MemorySlot(number, GuestAddr(first * PAGE), self.views[block][: pages * PAGE], flags)
        old = self.slots.get(number)
        if self.allowed(number, first, pages, block, flags):
            self.machine.set(new)
        else:
            with pytest.raises(SlotError):
                self.machine.set(new)
            return
        if not pages:
            del self.slots[number]
        else:
            kept = old.dirty if old and old.flags & flags & LOG else set()
            self.slots[number] = ModelSlot(first, pages, block, flags, kept)

    def allowed(self, number: int, first: int, pages: int, block: int, flags: SlotFlags) -> bool:
        old = self.slots.get(number)
        if not pages:
            return old is not None
        if old and (old.pages, old.block, old.flags & READONLY) != (pages, block, flags & READONLY):
            return False
        others = [slot for key, slot in self.slots.items() if key != number]
        return not any(slot.has(page) for slot in others for page in range(first, first + pages))

    @rule(
        addr=st.integers(FIRST * PAGE - 8, (FIRST + PAGES + BLOCK_PAGES) * PAGE),
        data=st.binary(min_size=1, max_size=20),
    )
    def store_anywhere(self, addr: int, data: bytes) -> None:
        self.store(addr, data)

    @rule(page=st.integers(FIRST, FIRST + PAGES), before=st.integers(0, 9), data=st.binary(min_size=1, max_size=20))
    def store_at_a_border(self, page: int, before: int, data: bytes) -> None:
        self.store(page * PAGE - before, data)

    def store(self, addr: int, data: bytes) -> None:
        self.exits.clear()
        self.machine.write(GuestAddr(addr), data)
        outside = set()
        for where, byte in enumerate(data, addr):
            slot = self.slot_at(where)
            if slot is None or slot.flags & READONLY:
                outside.add((where, byte))
                continue
            offset = where - slot.first * PAGE
            self.blocks[slot.block][offset] = byte
            if slot.flags & LOG:
                slot.dirty.add(offset // PAGE)
        self.check_exits(outside, stores=True)

    @rule(page=st.integers(FIRST, FIRST + PAGES), before=st.integers(0, 9), length=st.integers(1, 20))
    def load(self, page: int, before: int, length: int) -> None:
        self.exits.clear()
        addr = page * PAGE - before
        expected = bytearray()
        outside = set()
        for where in range(addr, addr + length):
            slot = self.slot_at(where)
            if slot is None:
                outside.add((where, FLOATING))
                expected.append(FLOATING)
            else:
                expected.append(self.blocks[slot.block][where - slot.first * PAGE])
        assert self.machine.read(GuestAddr(addr), length) == expected
        self.check_exits(outside, stores=False)

    @rule(number=st.integers(0, NUMBERS - 1))
    def read_log(self, number: int) -> None:
        slot = self.slots.get(number)
        if slot is None or not slot.flags & LOG:
            with pytest.raises(SlotError):
                self.machine.dirty_log(number)
        else:
            self.check_log(slot, set(dirty_pages(self.machine.dirty_log(number))))
            slot.dirty = set()

    def check_log(self, slot: ModelSlot, found: set[int]) -> None:
        assert found == slot.dirty

    def check_exits(self, outside: set[tuple[int, int]], *, stores: bool) -> None:
        seen = [(where, byte) for access in self.exits for where, byte in bytes_of(access)]
        assert len(seen) == len(outside)
        assert set(seen) == outside
        for access in self.exits:
            assert (access.data is not None) == stores
            assert access.length <= MAX_ACCESS
            assert access.address % access.length == 0

    def slot_at(self, addr: int) -> ModelSlot | None:
        return next((slot for slot in self.slots.values() if slot.has(addr // PAGE)), None)

    @invariant()
    def memory_is_as_it_should_be(self) -> None:
        assert [bytes(view) for view in self.views] == [bytes(block) for block in self.blocks]

    @invariant()
    def the_table_is_as_it_should_be(self) -> None:
        found = {key: (slot.guest_addr // PAGE, slot.size // PAGE) for key, slot in self.machine.table.items()}
        assert found == {key: (slot.first, slot.pages) for key, slot in self.slots.items()}


def bytes_of(access: MmioExit) -> list[tuple[int, int]]:
    data = bytes([FLOATING] * access.length) if access.data is None else access.data
    return list(enumerate(data, access.address))


class KvmModel(SlotsModel):
    def open(self) -> Machine:
        return KvmMachine(self.exits)

    def check_log(self, slot: ModelSlot, found: set[int]) -> None:
        """KVM may log a page that was only read; Python's slots know better."""
        assert slot.dirty <= found <= set(range(slot.pages))

    def teardown(self) -> None:
        if isinstance(machine := getattr(self, "machine", None), KvmMachine):
            machine.close()


def test_python_slots_do_what_a_model_says() -> None:
    run_state_machine_as_test(SlotsModel, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


@pytest.mark.usefixtures("kvm_here")
def test_kvm_does_what_the_same_model_says() -> None:
    run_state_machine_as_test(KvmModel, settings=settings(max_examples=30, stateful_step_count=20, deadline=None))
