"""Ring states against the document's table, typed again."""

from __future__ import annotations

import itertools

import pytest

from tests.protocol.helpers import OTHER_REGION, REGION, ring_addr
from vhostuser.errors import LocalProtocolError
from vhostuser.protocol import rings
from vhostuser.protocol.rings import Notify, RingEvent, RingState
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.catalog import CATALOG, Message
from vhostuser.wire.features import VirtioFeature
from vhostuser.wire.records import VringAddrFlags

BIT_30 = int(VirtioFeature.PROTOCOL_FEATURES)

# (started, enabled) before -> after, for 00 01 10 11 in this order.
AFTER: dict[str, tuple[Message, str]] = {
    "SET_VRING_KICK with a descriptor": (f.SetVringKick.of(0), "10 11 10 11"),
    "SET_VRING_KICK without": (f.SetVringKick.of(0, no_fd=True), "10 11 10 11"),
    "VRING_KICK": (f.VringKick(0), "10 11 10 11"),
    "GET_VRING_BASE": (f.GetVringBase(0), "00 01 00 01"),
    "SET_VRING_ENABLE 1": (f.SetVringEnable(0, 1), "01 01 11 11"),
    "SET_VRING_ENABLE 0": (f.SetVringEnable(0, 0), "00 00 10 10"),
    "SET_FEATURES without bit 30": (f.SetFeatures(BIT_30 << 1), "01 01 11 11"),
    "SET_FEATURES with bit 30": (f.SetFeatures(BIT_30), "00 01 10 11"),
    "RESET_DEVICE": (f.ResetDevice(), "00 00 00 00"),
    "SET_STATUS 0": (f.SetStatus(0), "00 01 00 01"),
    "RESET_OWNER": (f.ResetOwner(), "00 01 10 11"),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_message_moves_a_ring_as_the_document_says(name: str) -> None:
    message, after = AFTER[name]
    event = rings.event_of(message)
    assert event is not None
    for (started, enabled), expected in zip(itertools.product((False, True), repeat=2), after.split(), strict=True):
        moved = rings.moved(RingState(3, started=started, enabled=enabled, size=8), event)
        assert f"{moved.started:d}{moved.enabled:d}" == expected
        assert (moved.index, moved.size) == (3, 8)


def test_every_event_has_its_transition_and_a_message_that_causes_it() -> None:
    assert set(rings.TRANSITIONS) == set(RingEvent)
    assert {rings.event_of(message) for message, _ in AFTER.values()} == set(RingEvent)


def test_no_other_message_moves_rings() -> None:
    movers = {type(message) for message, _ in AFTER.values()}
    for spec in CATALOG.values():
        if spec.message not in movers:
            assert rings.event_of(spec.message.__new__(spec.message)) is None


def test_a_device_status_other_than_0_moves_no_ring() -> None:
    assert rings.event_of(f.SetStatus(1)) is None


def test_a_ring_begins_stopped_and_disabled_with_nothing_set() -> None:
    assert RingState(5) == RingState(5, 0, None, 0, False, False, Notify.UNSET, Notify.UNSET, Notify.UNSET)


@pytest.mark.parametrize(("started", "enabled"), list(itertools.product((False, True), repeat=2)))
def test_a_ring_runs_when_it_is_started_and_enabled(started: bool, enabled: bool) -> None:
    assert RingState(0, started=started, enabled=enabled).running == (started and enabled)


@pytest.mark.parametrize(
    ("message", "field", "value"),
    [
        (f.SetVringNum(1, 64), "size", 64),
        (f.SetVringBase(1, 7), "base", 7),
        (ring_addr(1), "addr", ring_addr(1)),
        (f.SetVringKick.of(1), "kick", Notify.FD),
        (f.SetVringKick.of(1, no_fd=True), "kick", Notify.POLL),
        (f.SetVringCall.of(1), "call", Notify.FD),
        (f.SetVringErr.of(1, no_fd=True), "err", Notify.POLL),
    ],
)
def test_a_message_sets_one_thing_of_a_ring(message: Message, field: str, value: object) -> None:
    ring = rings.configured(RingState(1), message)
    assert getattr(ring, field) == value
    assert [name for name in RingState.__slots__ if getattr(ring, name) != getattr(RingState(1), name)] == [field]


def test_get_vring_base_drops_kick_and_call_but_keeps_err() -> None:
    ring = RingState(0, size=8, base=3, kick=Notify.FD, call=Notify.FD, err=Notify.FD)
    assert rings.configured(ring, f.GetVringBase(0)) == RingState(0, size=8, base=3, err=Notify.FD)


@pytest.mark.parametrize(
    ("size", "packed", "fits"),
    [
        (0, False, False),
        (1, False, True),
        (2, False, True),
        (3, False, False),
        (300, False, False),
        (1024, False, True),
        (1023, False, False),
        (2048, False, False),
        (0xFFFFFFFF, False, False),
        (0, True, False),
        (300, True, True),
        (1024, True, True),
        (1025, True, False),
    ],
)
def test_a_ring_size_is_checked_against_limit_and_format(size: int, packed: bool, fits: bool) -> None:
    if fits:
        rings.check_size(2, size, 1024, packed=packed)
        return
    with pytest.raises(LocalProtocolError, match=f"ring 2 with {size} entries, expected .* from 1 to 1024"):
        rings.check_size(2, size, 1024, packed=packed)


@pytest.mark.parametrize(
    ("desc", "avail", "used", "packed", "bad"),
    [
        (16, 2, 4, False, None),
        (8, 2, 4, False, "descriptor table"),
        (16, 1, 4, False, "available ring"),
        (16, 2, 2, False, "used ring"),
        (16, 4, 4, True, None),
        (17, 4, 4, True, "descriptor ring"),
        (16, 2, 4, True, "driver event"),
        (16, 4, 6, True, "device event"),
    ],
)
def test_each_part_of_a_ring_has_its_alignment(desc: int, avail: int, used: int, packed: bool, bad: str | None) -> None:
    addr = f.SetVringAddr(0, VringAddrFlags(0), descriptor=desc, available=avail, used=used, log=0)
    if bad is None:
        rings.check_alignment(addr, packed=packed)
        return
    with pytest.raises(LocalProtocolError, match=f"ring 0: {bad}.* expected a multiple of"):
        rings.check_alignment(addr, packed=packed)


def test_the_parts_of_a_split_ring_have_the_sizes_of_the_standard() -> None:
    parts = rings.areas(ring_addr(), 256, packed=False)
    assert [part.size for part in parts] == [16 * 256, 6 + 2 * 256, 6 + 8 * 256]


def test_the_parts_of_a_packed_ring_have_the_sizes_of_the_standard() -> None:
    parts = rings.areas(ring_addr(), 300, packed=True)
    assert [part.size for part in parts] == [16 * 300, 4, 4]


@pytest.mark.parametrize(
    ("base", "packed", "fits"), [(0xFFFF, False, True), (0x10000, False, False), (1 << 31, True, True)]
)
def test_the_base_of_a_split_ring_has_16_bits(base: int, packed: bool, fits: bool) -> None:
    if fits:
        rings.check_base(0, base, packed=packed)
        return
    with pytest.raises(LocalProtocolError, match="16 bits"):
        rings.check_base(0, base, packed=packed)


READY = RingState(0, size=256, addr=ring_addr())


@pytest.mark.parametrize(
    ("ring", "reason"),
    [
        (RingState(0, addr=ring_addr()), "without a size"),
        (RingState(0, size=256), "without addresses"),
        (RingState(0, size=2048, addr=ring_addr()), "with 2048 entries"),
        (RingState(0, size=256, addr=ring_addr(desc=REGION.size)), "descriptor table at .* outside memory"),
        (RingState(0, size=256, addr=ring_addr(desc=-16)), "descriptor table at .* outside memory"),
        (RingState(0, size=256, addr=ring_addr(avail=REGION.size - 516)), "available ring at .* outside memory"),
        (RingState(0, size=256, addr=ring_addr(used=REGION.size - 2052)), "used ring at .* outside memory"),
    ],
)
def test_a_ring_does_not_start_without_all_it_needs(ring: RingState, reason: str) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        rings.check_startable(ring, (REGION, OTHER_REGION), 1024, packed=False, translated=False)


def test_a_ring_does_not_start_without_memory() -> None:
    with pytest.raises(LocalProtocolError, match="without memory, expected a memory table"):
        rings.check_startable(READY, (), 1024, packed=False, translated=False)


def test_a_ring_that_has_it_all_starts() -> None:
    rings.check_startable(READY, (OTHER_REGION, REGION), 1024, packed=False, translated=False)


def test_a_ring_may_end_where_its_region_ends() -> None:
    ring = RingState(0, size=256, addr=ring_addr(avail=REGION.size - 518))
    rings.check_startable(ring, (REGION,), 1024, packed=False, translated=False)


def test_translated_addresses_are_not_looked_up_in_the_memory_table() -> None:
    ring = RingState(0, size=256, addr=ring_addr(desc=REGION.size))
    rings.check_startable(ring, (REGION,), 1024, packed=False, translated=True)
