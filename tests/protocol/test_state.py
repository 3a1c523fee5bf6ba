"""Every message in every state, as a sender must obey and as a receiver may be lenient.

The states are those that differ in what the document permits:

    F fresh       nobody has said anything
    O offered     GET_FEATURES and GET_PROTOCOL_FEATURES are answered, nothing is acknowledged
    L legacy      features without bit 30: no protocol features at all
    N negotiated  everything is acknowledged
    C configured  memory, size and addresses of ring 0 are there
    S started     SET_VRING_KICK has come, the ring is disabled
    R running     and it is enabled
    D drained     and GET_VRING_BASE has stopped it again
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from tests.protocol.helpers import (
    ALL,
    CONFIGURED,
    FEATURES,
    NEGOTIATED,
    OTHER_REGION,
    REGION,
    RUNNING,
    after,
    legacy,
    offered,
    ring_addr,
    tell,
    unconfigured,
)
from tests.protocol.samples import BY_NAME, SAMPLES, Sample
from vhostuser.errors import LocalProtocolError
from vhostuser.wire import backend_messages as b
from vhostuser.wire import frontend_messages as f
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.messages import CATALOG
from vhostuser.wire.records import U64, Config, ConfigFlags, VringState, XenMemoryRegion, XenMmapFlags
from vhostuser.wire.requests import Role

if TYPE_CHECKING:
    from vhostuser.protocol import ProtocolState
    from vhostuser.wire.catalog import Message

TRANSLATED = FEATURES | V.ACCESS_PLATFORM

# message: states in which it may be sent [+ states in which a receiver takes it although it should not have come]
TABLE = """
GET_FEATURES                    F O L N C S R D
SET_FEATURES                    - O - N C S R D
SET_OWNER                       F O L N C S R D
RESET_OWNER                     F O L N C S R D
SET_MEM_TABLE                   F O L N C S R D
SET_LOG_BASE                    - - - N C S R D
SET_LOG_FD                      F O L N C S R D
SET_VRING_NUM                   F O L N C S - D
SET_VRING_ADDR                  F O L N C S R D
SET_VRING_BASE                  F O L N C S - D
GET_VRING_BASE                  F O L N C S R D
SET_VRING_KICK                  - - - - C S R D
SET_VRING_CALL                  F O L N C S R D
SET_VRING_ERR                   F O L N C S R D
GET_PROTOCOL_FEATURES           - O - N C S R D
SET_PROTOCOL_FEATURES           - O - N C S R D
GET_QUEUE_NUM                   - O - N C S R D
SET_VRING_ENABLE                - - - N C S R D + O
SEND_RARP                       - - - N C S R D
NET_SET_MTU                     - - - N C S R D
SET_BACKEND_REQ_FD              - - - N C S R D
IOTLB_MSG                       - - - N C S R D
SET_VRING_ENDIAN                - - - N C - - D
GET_CONFIG                      - - - N C S R D
SET_CONFIG                      - - - N C S R D
CREATE_CRYPTO_SESSION           - - - N C S R D
CLOSE_CRYPTO_SESSION            - - - N C S R D
POSTCOPY_ADVISE                 - - - N C S R D
POSTCOPY_LISTEN                 - - - N C S R D
POSTCOPY_END                    - - - N C S R D
GET_INFLIGHT_FD                 - - - N C S R D
SET_INFLIGHT_FD                 - - - N C S R D
GPU_SET_SOCKET                  F O L N C S R D
RESET_DEVICE                    - - - N C S R D
VRING_KICK                      - - - - C S R D
GET_MAX_MEM_SLOTS               - - - N C S R D
ADD_MEM_REG                     - - - N C S R D
REM_MEM_REG                     - - - - C S R D
SET_STATUS                      - - - N C S R D
GET_STATUS                      - - - N C S R D
GET_SHARED_OBJECT               - - - N C S R D
SET_DEVICE_STATE_FD             - - - N C - - D
CHECK_DEVICE_STATE              - - - N C - - D
GET_SHMEM_CONFIG                - - - N C S R D
BACKEND_IOTLB_MSG               - - - - - S R - + N C D
BACKEND_CONFIG_CHANGE_MSG       - - - - - S R - + N C D
BACKEND_VRING_HOST_NOTIFIER_MSG - - - - - S R - + N C D
BACKEND_VRING_CALL              - - - - - S R - + N C D
BACKEND_VRING_ERR               - - - - - S R - + N C D
BACKEND_SHARED_OBJECT_ADD       - - - - - S R - + N C D
BACKEND_SHARED_OBJECT_REMOVE    - - - - - S R - + N C D
BACKEND_SHARED_OBJECT_LOOKUP    - - - - - S R - + N C D
BACKEND_SHMEM_MAP               - - - - - S R - + N C D
BACKEND_SHMEM_UNMAP             - - - - - S R - + N C D
"""


def expectations() -> dict[str, tuple[set[str], set[str]]]:
    found = {}
    for line in TABLE.split("\n")[1:-1]:
        name, _, columns = line.partition(" ")
        strict, _, lenient = columns.partition("+")
        may_send = set(strict.split()) - {"-"}
        found[name] = may_send, may_send | set(lenient.split())
    return found


EXPECTED = expectations()


def representative(letter: str) -> ProtocolState:
    if letter == "F":
        return unconfigured()
    if letter == "L":
        return legacy()
    messages: dict[str, tuple[Message, ...]] = {
        "O": (),
        "N": NEGOTIATED,
        "C": CONFIGURED,
        "S": RUNNING[:-1],
        "R": RUNNING,
        "D": (*RUNNING, f.GetVringBase(0)),
    }
    state = after(*messages[letter], features=TRANSLATED)
    return state if letter == "O" else tell(state, f.SetFeatures(TRANSLATED))


def test_the_table_has_every_message() -> None:
    assert sorted(EXPECTED) == sorted(spec.name for spec in CATALOG.values())
    assert sorted(EXPECTED) == sorted(BY_NAME)


def refusal(state: ProtocolState, sample: Sample, *, received: bool) -> LocalProtocolError | None:
    try:
        state.observe(sample.message.spec.sender, sample.message, sample.fd_count, received=received)
    except LocalProtocolError as error:
        return error
    return None


@pytest.mark.parametrize("received", [False, True], ids=["sent", "received"])
@pytest.mark.parametrize("letter", "FOLNCSRD")
def test_every_message_is_permitted_exactly_where_the_table_says(letter: str, received: bool) -> None:
    permitted, before = set(), representative(letter)
    for sample in SAMPLES:
        state = copy.copy(before)
        error = refusal(state, sample, received=received)
        if error is None:
            permitted.add(sample.name)
        else:
            assert state == before, f"{sample.name} was refused and changed something"
            assert str(error).startswith(f"{sample.name}: found ")
            assert ", expected " in str(error)
            assert error.section == sample.message.spec.section
    assert permitted == {name for name, letters in EXPECTED.items() if letter in letters[received]}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_message_may_be_sent_by_one_role_only(sample: Sample) -> None:
    state = representative("R")
    with pytest.raises(LocalProtocolError, match="end sending, expected only a"):
        state.observe(sample.message.spec.sender.peer, sample.message, sample.fd_count, received=True)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_a_message_with_a_descriptor_too_many_or_too_few_is_refused(sample: Sample) -> None:
    spec = sample.message.spec
    tolerated = {"REM_MEM_REG": 1}
    for count in {sample.fd_count - 1, sample.fd_count + 1 + tolerated.get(sample.name, 0)} - {-1}:
        state = representative("N" if "DEVICE_STATE" in sample.name or "ENDIAN" in sample.name else "C")
        with pytest.raises(LocalProtocolError, match=f"found {count} file descriptors, expected"):
            state.observe(spec.sender, sample.message, count, received=True)


def test_allows_looks_at_features_only() -> None:
    assert representative("N").allows(f.VringKick(0).spec)
    assert not representative("O").allows(f.VringKick(0).spec)
    assert representative("O").missing(f.VringKick(0).spec) == ["INBAND_NOTIFICATIONS"]
    assert legacy().missing(f.GetProtocolFeatures().spec) == ["PROTOCOL_FEATURES"]


# --- features ----------------------------------------------------------------------------------------------------


def test_nothing_can_be_acknowledged_before_it_was_offered() -> None:
    with pytest.raises(LocalProtocolError, match="before any were offered, expected a reply to GET_FEATURES first"):
        tell(unconfigured(), f.SetFeatures(0))


@pytest.mark.parametrize(("surplus", "name"), [(V.RING_PACKED, "RING_PACKED"), (1 << 63, "bit 63"), (1 << 5, "bit 5")])
def test_virtio_features_that_were_never_offered_are_refused_by_name(surplus: int, name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"found {name}, never offered, expected a subset of {FEATURES:#x}"):
        after(f.SetFeatures(FEATURES | surplus))


@pytest.mark.parametrize(
    ("surplus", "name"), [(P.XEN_MMAP, "XEN_MMAP"), (P(1 << 40), "bit 40"), (P(1 << 63), "bit 63")]
)
def test_protocol_features_that_were_never_offered_are_refused_by_name(surplus: P, name: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"found {name}, never offered"):
        after(f.SetProtocolFeatures(P.MQ | surplus))


@pytest.mark.parametrize(
    ("features", "found"),
    [
        (P.INBAND_NOTIFICATIONS, "INBAND_NOTIFICATIONS without REPLY_ACK and BACKEND_REQ"),
        (P.INBAND_NOTIFICATIONS | P.REPLY_ACK, "INBAND_NOTIFICATIONS without BACKEND_REQ"),
        (P.GET_VRING_BASE_INFLIGHT | P.REPLY_ACK, "GET_VRING_BASE_INFLIGHT without INFLIGHT_SHMFD"),
    ],
)
def test_a_protocol_feature_needs_its_prerequisites(features: P, found: str) -> None:
    with pytest.raises(LocalProtocolError, match=found):
        after(f.SetProtocolFeatures(features))


def test_features_may_be_set_again_and_take_away() -> None:
    state = after(*NEGOTIATED, f.SetFeatures(V.PROTOCOL_FEATURES), f.SetProtocolFeatures(P.MQ))
    assert state.features == V.PROTOCOL_FEATURES
    assert state.protocol_features == P.MQ
    assert not state.reply_ack


def test_owner_may_come_late_and_twice_and_reset_owner_changes_nothing() -> None:
    state = after(*RUNNING)
    before = copy.copy(state)
    assert tell(state, f.SetOwner(), f.SetOwner(), f.ResetOwner()) == before


def test_reset_device_stops_and_disables_all_rings_and_keeps_the_rest() -> None:
    state = after(*RUNNING, f.SetVringEnable(1, 1), f.SetStatus(15))
    table, features = state.regions, state.features
    tell(state, f.ResetDevice())
    assert [(ring.started, ring.enabled) for ring in state.rings] == [(False, False)] * 2
    assert (state.regions, state.features, state.owner, state.status) == (table, features, True, 0)
    assert state.rings[0].size == 256


# --- rings -------------------------------------------------------------------------------------------------------


def test_features_without_bit_30_enable_every_ring_and_with_it_leave_them_alone() -> None:
    state = after(*CONFIGURED)
    tell(state, f.SetFeatures(FEATURES))
    assert [ring.enabled for ring in state.rings] == [False, False]
    tell(state, f.SetFeatures(V.VERSION_1))
    assert [ring.enabled for ring in state.rings] == [True, True]
    tell(state, f.SetFeatures(FEATURES))
    assert [ring.enabled for ring in state.rings] == [True, True]


def test_a_ring_is_enabled_long_before_it_is_configured() -> None:
    state = after(*NEGOTIATED, f.SetVringEnable(1, 1))
    assert state.rings[1].enabled
    assert not state.rings[1].started
    assert not state.rings[0].enabled


def test_a_ring_can_be_configured_in_any_order_and_started_again_with_another_size() -> None:
    state = after(*NEGOTIATED, ring_addr(0), f.SetVringBase(0, 3), f.SetVringCall.of(0), f.SetVringNum(0, 256))
    tell(state, f.SetMemTable((REGION,)), f.SetVringErr.of(0), f.SetVringKick.of(0), f.SetVringEnable(0, 1))
    assert state.rings[0].running
    tell(state, f.GetVringBase(0))
    state.observe_reply(f.GetVringBase(0), VringState(0, 77))
    assert (state.rings[0].started, state.rings[0].base) == (False, 77)
    tell(state, f.SetVringNum(0, 1024), f.SetVringBase(0, 0), ring_addr(0, avail=0x40000), f.SetVringKick.of(0))
    assert state.rings[0].running
    assert (state.rings[0].size, state.rings[0].base) == (1024, 0)


def test_kick_and_call_may_be_replaced_while_the_ring_runs_even_if_its_memory_is_gone() -> None:
    state = after(*RUNNING, f.RemMemReg(REGION))
    tell(state, f.SetVringKick.of(0, no_fd=True), f.SetVringCall.of(0))
    assert state.rings[0].running


def test_packed_rings_have_other_rules() -> None:
    features = FEATURES | V.RING_PACKED
    state = after(*NEGOTIATED, f.SetFeatures(features), f.SetMemTable((REGION,)), features=features)
    tell(state, f.SetVringNum(0, 300), f.SetVringBase(0, 0x80008000), ring_addr(0), f.SetVringKick.of(0))
    assert state.rings[0].started


def test_a_ring_whose_addresses_are_translated_starts_anywhere() -> None:
    state = after(*CONFIGURED, f.SetFeatures(TRANSLATED), ring_addr(0, desc=1 << 40), features=TRANSLATED)
    assert tell(state, f.SetVringKick.of(0)).rings[0].started


def test_a_state_is_suspended_while_all_rings_are_stopped() -> None:
    state = after(*CONFIGURED)
    assert state.suspended
    assert not tell(state, f.SetVringKick.of(0)).suspended
    assert tell(state, f.GetVringBase(0)).suspended


# --- memory ------------------------------------------------------------------------------------------------------


def test_a_memory_table_replaces_the_one_before() -> None:
    assert after(*CONFIGURED, f.SetMemTable((OTHER_REGION,))).regions == (OTHER_REGION,)


def test_regions_come_and_go_one_by_one() -> None:
    state = after(*NEGOTIATED, f.AddMemReg(REGION), f.AddMemReg(OTHER_REGION), f.RemMemReg(REGION))
    assert state.regions == (OTHER_REGION,)


def test_no_more_regions_are_added_than_there_are_slots() -> None:
    state = after(*NEGOTIATED)
    state.observe_reply(f.GetMaxMemSlots(), U64(1))
    tell(state, f.AddMemReg(REGION))
    with pytest.raises(LocalProtocolError, match="1 regions there already, expected at most 1"):
        tell(state, f.AddMemReg(OTHER_REGION))


def test_xen_regions_come_in_messages_of_their_own() -> None:
    region = XenMemoryRegion(0x1000, 0x1000, 0x1000, 0, XenMmapFlags.FOREIGN, 3)
    state = offered(protocol_features=ALL | P.XEN_MMAP)
    tell(state, f.SetProtocolFeatures(P.XEN_MMAP | P.CONFIGURE_MEM_SLOTS), f.XenSetMemTable((region,)))
    assert state.regions == (region,)
    assert tell(state, f.XenRemMemReg(region)).regions == ()
    assert tell(state, f.XenAddMemReg(region)).regions == (region,)
    with pytest.raises(LocalProtocolError, match="41 bytes behind the regions, expected unused places of 40 bytes"):
        tell(state, f.XenSetMemTable((region,), bytes(41)))
    with pytest.raises(LocalProtocolError, match="payload of SetMemTable, expected XenSetMemTable"):
        tell(state, f.SetMemTable((REGION,)))


def test_with_guest_addresses_in_front_end_messages_user_addresses_repeat_them() -> None:
    state = offered(protocol_features=P.GPA_ADDRESSES)
    tell(state, f.SetProtocolFeatures(P.GPA_ADDRESSES))
    with pytest.raises(LocalProtocolError, match=r"the guest address repeated as user address \(GPA_ADDRESSES\)"):
        tell(state, f.SetMemTable((REGION,)))


# --- replies -----------------------------------------------------------------------------------------------------


def test_replies_are_noted() -> None:
    state = after(*NEGOTIATED)
    state.observe_reply(f.GetQueueNum(), U64(5))
    state.observe_reply(f.GetMaxMemSlots(), U64(32))
    state.observe_reply(f.GetStatus(), U64(0x4F))
    assert (state.queue_num, state.max_mem_slots, state.status) == (5, 32, 0x4F)


@pytest.mark.parametrize(
    ("to", "reply", "reason"),
    [
        (f.GetVringBase(1), VringState(0, 7), "found ring index 0, expected 1"),
        (f.GetConfig(0, 8), Config(0, 4, ConfigFlags(0), bytes(4)), "found a size of 4 bytes, expected 8"),
        (f.GetConfig(0, 8), Config(0, 8, ConfigFlags(0), bytes(4)), "found 4 bytes of data, expected as many"),
    ],
)
def test_a_reply_to_another_question_is_refused(to: Message, reply: VringState | Config, reason: str) -> None:
    state = after(*NEGOTIATED)
    with pytest.raises(LocalProtocolError, match=f"reply to {to.spec.name}: {reason}"):
        state.observe_reply(to, reply)


def test_a_snapshot_brings_a_state_back() -> None:
    state = after(*CONFIGURED)
    before, snapshot = copy.copy(state), state.snapshot()
    tell(state, f.SetVringKick.of(0), f.SetStatus(1), f.SetMemTable(()))
    assert state != before
    state.restore(snapshot)
    assert state == before


def test_a_host_notifier_names_a_ring_that_exists() -> None:
    with pytest.raises(LocalProtocolError, match="ring index 2, expected less than 2"):
        after(*RUNNING).observe(Role.BACKEND, b.BackendVringHostNotifierMsg(2, 4096, 0), 1)


def test_a_back_end_needs_leave_to_send_descriptors() -> None:
    state = after(*RUNNING, f.SetProtocolFeatures(ALL & ~P.BACKEND_SEND_FD))
    with pytest.raises(LocalProtocolError, match="1 file descriptors, expected BACKEND_SEND_FD to be negotiated first"):
        state.observe(Role.BACKEND, b.BackendVringHostNotifierMsg(0, 4096, 0), 1)
    state.observe(Role.BACKEND, b.BackendVringHostNotifierMsg(0x100, 4096, 0), 0)
