"""Translation: which bytes an address means, and which addresses mean none.  Nothing is mapped here."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.files import USER_BASE, region
from vhostuser.memory import GuestAddr, GuestAddressError, GuestMemory, MappingError, UserAddr

if TYPE_CHECKING:
    from vhostuser.wire.records import MemoryRegion

TOP = 1 << 64


def filled(size: int, first: int = 0) -> memoryview:
    """Bytes that differ from their neighbours, so that a wrong offset shows."""
    return memoryview(bytearray((first + index) % 251 for index in range(size)))


def memory_of(*regions: MemoryRegion) -> GuestMemory:
    return GuestMemory.of(*((one, filled(one.size, index * 100)) for index, one in enumerate(regions)))


# Two neighbours, a hole, and a third that ends with the address space.
LOW, NEXT, HIGH = region(0x1000, 0x100), region(0x1100, 0x80), region(TOP - 0x40, 0x40, user_addr=0x100)
MEMORY = memory_of(HIGH, LOW, NEXT)
LOW_BYTES, NEXT_BYTES, HIGH_BYTES = (bytes(one.view) for one in MEMORY.mapped)


@pytest.mark.parametrize(
    ("addr", "length", "expected"),
    [
        pytest.param(0x1000, 1, [LOW_BYTES[:1]], id="first byte"),
        pytest.param(0x10FF, 1, [LOW_BYTES[-1:]], id="last byte"),
        pytest.param(0x1010, 0x10, [LOW_BYTES[0x10:0x20]], id="inside"),
        pytest.param(0x1000, 0x100, [LOW_BYTES], id="a whole region"),
        pytest.param(0x1100, 0x10, [NEXT_BYTES[:0x10]], id="the neighbour's beginning"),
        pytest.param(0x10F0, 0x20, [LOW_BYTES[-0x10:], NEXT_BYTES[:0x10]], id="across two neighbours"),
        pytest.param(0x1000, 0x180, [LOW_BYTES, NEXT_BYTES], id="both neighbours"),
        pytest.param(TOP - 1, 1, [HIGH_BYTES[-1:]], id="the last byte of the address space"),
        pytest.param(TOP - 0x40, 0x40, [HIGH_BYTES], id="up to the end of the address space"),
        pytest.param(0x1010, 0, [], id="no bytes"),
        pytest.param(0x9999, 0, [], id="no bytes, in a hole"),
    ],
)
def test_views_are_the_bytes_in_order_one_per_region(addr: int, length: int, expected: list[bytes]) -> None:
    assert [bytes(view) for view in MEMORY.views(GuestAddr(addr), length)] == expected


@pytest.mark.parametrize(
    ("addr", "length", "why"),
    [
        pytest.param(0x0FFF, 1, "there is nothing at 0xfff", id="before the first region"),
        pytest.param(0x0FF0, 0x20, "there is nothing at 0xff0", id="beginning before the first region"),
        pytest.param(0x1180, 1, "there is nothing at 0x1180", id="right behind a region"),
        pytest.param(0x117F, 2, "there is nothing at 0x1180", id="ending one byte too late"),
        pytest.param(0x1000, 0x181, "there is nothing at 0x1180", id="ending behind both neighbours"),
        pytest.param(0x1000, TOP - 0x1000, "there is nothing at 0x1180", id="across the hole"),
        pytest.param(TOP - 1, 2, "wraps past 2^64", id="beyond the address space"),
        pytest.param(TOP, 1, "wraps past 2^64", id="not an address any more"),
        pytest.param(0x1000, TOP, "wraps past 2^64", id="a length that wraps"),
        pytest.param(-1, 1, "neither may be negative", id="negative address"),
        pytest.param(0x1010, -1, "neither may be negative", id="negative length"),
    ],
)
def test_bytes_that_are_not_there_are_an_error_that_says_which(addr: int, length: int, why: str) -> None:
    with pytest.raises(GuestAddressError) as caught:
        MEMORY.views(GuestAddr(addr), length)
    assert (caught.value.address, caught.value.length) == (addr, length)
    assert caught.value.why.startswith(why)
    assert str(caught.value).startswith(f"{length:#x} bytes at {addr:#x}: {why}")


def test_an_error_says_what_memory_there_is() -> None:
    with pytest.raises(GuestAddressError) as caught:
        MEMORY.views(GuestAddr(0), 1)
    assert str(caught.value) == (
        "0x1 bytes at 0x0: there is nothing at 0x0; guest memory is 0x1000+0x100, 0x1100+0x80, 0xffffffffffffffc0+0x40"
    )


def test_a_view_is_the_memory_itself_and_not_a_copy() -> None:
    memory = memory_of(LOW, NEXT)
    first, second = memory.views(GuestAddr(0x10FE), 4)
    first[:], second[:] = b"ab", b"cd"
    assert bytes(memory.mapped[0].view[-2:]) == b"ab"
    assert bytes(memory.mapped[1].view[:2]) == b"cd"


def test_a_single_view_lies_inside_one_region() -> None:
    assert bytes(MEMORY.view(GuestAddr(0x1100), 0x80)) == NEXT_BYTES
    assert bytes(MEMORY.view(GuestAddr(0x1180), 0)) == b""
    with pytest.raises(GuestAddressError, match="0x2 bytes at 0x10ff: not inside one region; guest memory is 0x1000"):
        MEMORY.view(GuestAddr(0x10FF), 2)


def test_a_user_address_finds_its_bytes_wherever_the_guest_has_them() -> None:
    assert bytes(MEMORY.user_view(UserAddr(0x110), 0x30)) == HIGH_BYTES[0x10:]
    assert bytes(MEMORY.user_view(UserAddr(USER_BASE + 0x1000), 0x100)) == LOW_BYTES


@pytest.mark.parametrize(
    ("user", "length", "why"),
    [
        (0xFF, 1, "not inside one region; user memory is 0x100+0x40, 0x7f0000001000+0x100"),
        (0x100, 0x41, "not inside one region"),
        (USER_BASE + 0x10FF, 2, "not inside one region"),
        (0x100, TOP, "wraps past 2^64"),
        (-0x100, 1, "neither may be negative"),
    ],
)
def test_a_user_address_outside_is_an_error(user: int, length: int, why: str) -> None:
    with pytest.raises(GuestAddressError) as caught:
        MEMORY.user_view(UserAddr(user), length)
    assert caught.value.why.startswith(why)


def test_a_user_address_translates_to_the_guests() -> None:
    assert MEMORY.guest_addr(UserAddr(0x100)) == TOP - 0x40
    assert MEMORY.guest_addr(UserAddr(USER_BASE + 0x117F)) == 0x117F
    with pytest.raises(GuestAddressError, match="0x1 bytes at 0x140: not inside one region"):
        MEMORY.guest_addr(UserAddr(0x140))


def test_empty_memory_has_no_bytes() -> None:
    assert GuestMemory.EMPTY.regions == ()
    assert GuestMemory.EMPTY.views(GuestAddr(0), 0) == []
    with pytest.raises(GuestAddressError, match="there is nothing at 0x0; guest memory is empty"):
        GuestMemory.EMPTY.views(GuestAddr(0), 1)
    with pytest.raises(GuestAddressError, match="not inside one region; user memory is empty"):
        GuestMemory.EMPTY.guest_addr(UserAddr(0))


def test_regions_come_back_sorted_by_guest_address() -> None:
    assert MEMORY.regions == (LOW, NEXT, HIGH)
    assert repr(MEMORY) == "<GuestMemory: guest memory is 0x1000+0x100, 0x1100+0x80, 0xffffffffffffffc0+0x40>"


def test_memory_of_our_own_is_never_damaged() -> None:
    assert not MEMORY.damaged


def test_views_of_other_items_become_bytes() -> None:
    memory = GuestMemory.of((region(0, 8), memoryview(bytearray(8)).cast("Q")))
    memory.view(GuestAddr(0), 8)[:2] = b"ab"
    assert memory.mapped[0].view.format == "B"


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (memoryview(bytes(16)), "must be writable"),
        (memoryview(bytearray(32))[::2], "without gaps"),
        (memoryview(bytearray(15)), "its view has 0xf bytes"),
    ],
)
def test_a_view_that_does_not_fit_its_region_is_refused(view: memoryview, why: str) -> None:
    with pytest.raises(MappingError, match=f"guest address 0x40, size 0x10: .*{why}"):
        GuestMemory.of((region(0x40, 16), view))


@pytest.mark.parametrize(
    ("regions", "why"),
    [
        ([region(0x10, 8), region(0x17, 8, user_addr=0)], "overlap in guest addresses: 0x10.0x8 and 0x17.0x8"),
        ([region(0x17, 8, user_addr=0), region(0x10, 8)], "overlap in guest addresses: 0x10.0x8 and 0x17.0x8"),
        ([region(0x10, 8), region(0x10, 8, user_addr=0)], "overlap in guest addresses: 0x10.0x8 and 0x10.0x8"),
        ([region(0, 8, user_addr=0), region(8, 8, user_addr=7)], "overlap in user addresses: 0x0.0x8 and 0x7.0x8"),
    ],
)
def test_regions_that_overlap_are_refused(regions: list[MemoryRegion], why: str) -> None:
    with pytest.raises(MappingError, match=why):
        memory_of(*regions)


def test_a_region_is_removed_by_its_addresses_and_size() -> None:
    """QEMU and others do not agree on the mmap offset that REM_MEM_REG carries."""
    without = MEMORY.without_region(region(0x1000, 0x100, mmap_offset=0x5000))
    assert without.regions == (NEXT, HIGH)
    assert MEMORY.regions == (LOW, NEXT, HIGH)


@pytest.mark.parametrize(
    "other",
    [region(0x1001, 0x100), region(0x1000, 0xFF), region(0x1000, 0x100, user_addr=USER_BASE)],
    ids=["guest address", "size", "user address"],
)
def test_removing_a_region_that_differs_is_refused(other: MemoryRegion) -> None:
    with pytest.raises(MappingError, match=r"not mapped; guest memory is 0x1000\+0x100, .*, user memory is 0x100\+"):
        MEMORY.without_region(other)


# --- against a model that knows every byte by itself ------------------------------------------------------------------

SPACE = 96


@st.composite
def memories(draw: st.DrawFn) -> tuple[GuestMemory, dict[int, int], dict[int, tuple[int, int]]]:
    """Memory somewhere in the address space, what each guest address holds, and where user addresses lead."""
    base = draw(st.sampled_from([0, 0x1000, (1 << 63) - 30, TOP - SPACE]))
    cuts = sorted(draw(st.sets(st.integers(0, SPACE), max_size=9)))
    spans = [(begin, end) for begin, end in pairwise(cuts) if draw(st.booleans())]
    model: dict[int, int] = {}
    users: dict[int, tuple[int, int]] = {}
    pairs = []
    user = 0x100
    for index, (begin, end) in enumerate(draw(st.permutations(spans))):
        view = filled(end - begin, index * 50)
        pairs.append((region(base + begin, end - begin, user_addr=user), view))
        for offset, byte in enumerate(view):
            model[base + begin + offset] = byte
            users[user + offset] = (base + begin + offset, end - begin - offset)
        user += end - begin + draw(st.integers(0, 3))
    return GuestMemory.of(*pairs), model, users


@given(memories(), st.data())
def test_translation_agrees_with_a_model_that_knows_every_byte(
    case: tuple[GuestMemory, dict[int, int], dict[int, tuple[int, int]]], data: st.DataObject
) -> None:
    memory, model, _ = case
    near = st.sampled_from([*(end for one in memory.mapped for end in (one.guest_addr, one.guest_addr + one.size)), 0])
    addr = data.draw(near) + data.draw(st.integers(-3, SPACE))
    length = data.draw(st.integers(0, SPACE))
    wanted = range(addr, addr + length)
    if addr < 0 or addr + length > TOP or any(byte not in model for byte in wanted):
        with pytest.raises(GuestAddressError):
            memory.views(GuestAddr(addr), length)
        return
    views = memory.views(GuestAddr(addr), length)
    assert b"".join(views) == bytes(model[byte] for byte in wanted)
    touched = [one for one in memory.mapped if addr < one.guest_addr + one.size and one.guest_addr < addr + length]
    assert len(views) == (len(touched) if length else 0)
    if len(views) == 1:
        assert bytes(memory.view(GuestAddr(addr), length)) == bytes(views[0])


@given(memories(), st.integers(0, 0x100 + 2 * SPACE), st.integers(1, SPACE))
def test_user_addresses_agree_with_the_model(
    case: tuple[GuestMemory, dict[int, int], dict[int, tuple[int, int]]], user: int, length: int
) -> None:
    memory, model, users = case
    if user not in users:
        with pytest.raises(GuestAddressError):
            memory.guest_addr(UserAddr(user))
        return
    guest_addr, left = users[user]
    assert memory.guest_addr(UserAddr(user)) == guest_addr
    if length > left:
        with pytest.raises(GuestAddressError):
            memory.user_view(UserAddr(user), length)
    else:
        expected = bytes(model[byte] for byte in range(guest_addr, guest_addr + length))
        assert bytes(memory.user_view(UserAddr(user), length)) == expected
