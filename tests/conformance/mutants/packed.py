"""Faults of packed rings."""

from __future__ import annotations

from tests.conformance.mutants.registry import edit, mutant
from vhostuser.virtqueue import packed_device, packed_ring
from vhostuser.virtqueue.packed_device import PackedDevice
from vhostuser.virtqueue.packed_walk import PackedWalker

MOVE_AVAIL = "self._next_avail = (self._next_avail + chain.entries) % self._span"


@mutant("B-PKD-01")
def packed_used_flags_missing() -> None:
    """A used descriptor is written without the flags that say so."""
    edit(PackedDevice, "_give_back", "USED[lap] | WRITE if written else USED[lap]", "USED[lap] ^ 0x8000")


@mutant("B-PKD-02")
def packed_wrap_counter_stays() -> None:
    """The used wrap counter does not flip at the end of the ring."""
    edit(PackedDevice, "_give_back", "lap, offset = divmod(next_used, size)", "lap, offset = 0, next_used % size")


@mutant("B-PKD-03")
def packed_size_is_a_power_of_two() -> None:
    """Positions wrap at the next power of two, not at the size of the ring."""
    edit(
        PackedDevice,
        "_pop_into",
        MOVE_AVAIL,
        f"{MOVE_AVAIL.replace('self._span', '(1 << self._span.bit_length() - (self._span & self._span - 1 == 0))')}",
    )


@mutant("B-PKD-04")
def packed_id_is_the_slot() -> None:
    """The used descriptor names its slot, not the buffer id."""
    edit(
        PackedDevice,
        "_give_back",
        "words[offset * DESC_WORDS + ID] = chain.head",
        "words[offset * DESC_WORDS + ID] = offset",
    )


@mutant("B-PKD-04")
def packed_id_of_the_first_descriptor() -> None:
    """The buffer id is taken from the first descriptor of a chain, not from the last."""
    edit(
        PackedWalker,
        "chain",
        "return self._assemble(head, elements, len(elements))",
        "return self._assemble(_unpack_from(self._table, offset * DESC_SIZE)[2], elements, len(elements))",
    )


@mutant("B-PKD-05")
def packed_skips_one_entry() -> None:
    """After a chain the next used descriptor goes to the next entry, however many the chain had."""
    edit(PackedDevice, "_give_back", "(next_used + chain.entries) % span", "(next_used + 1) % span")


@mutant("B-PKD-06")
def packed_table_needs_next() -> None:
    """In an indirect table the first descriptor without NEXT is taken for the last."""
    edit(
        PackedWalker,
        "_copied",
        "for addr, length, _, flags in _iter_unpack(table)]",
        "for addr, length, _, flags in [next(_iter_unpack(table))]]",
    )


@mutant("B-PKD-07")
def packed_disable_ignored() -> None:
    """Event suppression is ignored: every completion is followed by a call."""
    edit(packed_device, "is_asked", "if flags == _DISABLE:", "if False:")


@mutant("B-PKD-07")
def packed_never_calls() -> None:
    """No completion is followed by a call."""
    edit(packed_device, "is_asked", "return True", "return False")


@mutant("B-PKD-08")
def packed_off_wrap_ignored() -> None:
    """With EVENT_IDX every completion is followed by a call, whatever descriptor was named."""
    edit(packed_device, "is_asked", "needs_event(wanted, new, old, 2 * queue_size)", "True")


@mutant("B-PKD-08")
def packed_off_wrap_without_the_wrap() -> None:
    """Of off_wrap the wrap counter is ignored."""
    edit(packed_device, "is_asked", "position_of(event[_OFF_WRAP], queue_size)", "event[_OFF_WRAP] & 0x7FFF")


@mutant("B-PKD-09")
def packed_base_without_its_upper_half() -> None:
    """The upper half of SET_VRING_BASE is ignored: used begins where available does."""
    edit(packed_ring, "positions_of", "return avail, used", "return avail, position_of(0x8000, queue_size)")
    packed_device.__dict__["positions_of"] = packed_ring.positions_of


@mutant("B-PKD-10")
def packed_base_tells_its_lower_half() -> None:
    """GET_VRING_BASE tells the lower 16 bits of the position only."""
    edit(PackedDevice, "base", "self._queue_size)", "self._queue_size) & 0xFFFF")


@mutant("B-PKD-10")
def packed_base_without_wrap_counters() -> None:
    """GET_VRING_BASE tells the position without wrap counters."""
    edit(PackedDevice, "base", "self._queue_size)", "self._queue_size) & 0x7FFF7FFF")


@mutant("B-PKD-14")
def packed_ring_begins_at_0() -> None:
    """A packed ring begins with wrap counters of 0."""
    edit(PackedDevice, "__init__", "positions_of(base,", "positions_of(base & 0x7FFF7FFF,")


@mutant("B-PKD-12")
def packed_base_off_by_one() -> None:
    """GET_VRING_BASE tells a position that is one entry too far."""
    edit(PackedDevice, "base", "base_of(self._next_avail,", "base_of((self._next_avail + 1) % self._span,")


@mutant("B-PKD-13")
def packed_base_of_a_split_ring_ends_the_program() -> None:
    """A base of more than 16 bits for a split ring ends the program."""
    from vhostuser.protocol import rings

    edit(rings, "check_base", "expect(packed or base <= 0xFFFF,", "assert packed or base <= 0xFFFF; expect(True,")
