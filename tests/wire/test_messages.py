"""The catalogue against a table typed from the document: who sends what, how it is answered, what it needs."""

from __future__ import annotations

import subprocess
import sys
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.strategies import records as records_of
from vhostuser.wire import records
from vhostuser.wire.catalog import (
    NO_PROTOCOL_FEATURE,
    NO_VIRTIO_FEATURE,
    Answer,
    FdRule,
    Gate,
    Message,
    MessageSpec,
)
from vhostuser.wire.features import ProtocolFeature as P
from vhostuser.wire.features import VirtioFeature as V
from vhostuser.wire.messages import CATALOG
from vhostuser.wire.parts import fixed_size
from vhostuser.wire.requests import BackendRequest, FrontendRequest, Role, request_of
from vhostuser.wire.schema import FormatError, Structure


class Row(NamedTuple):
    """One line of the document's two lists, in its own words."""

    number: int
    name: str
    payload: str  # bytes, or bytes and what follows
    fds: str
    answer: str  # "-": only an acknowledgement that is asked for
    gate: str


FRONTEND = [
    Row(1, "GET_FEATURES", "0", "0", "u64", "-"),
    Row(2, "SET_FEATURES", "8", "0", "-", "-"),
    Row(15, "GET_PROTOCOL_FEATURES", "0", "0", "u64", "PROTOCOL_FEATURES offered"),
    Row(16, "SET_PROTOCOL_FEATURES", "8", "0", "-", "PROTOCOL_FEATURES offered"),
    Row(3, "SET_OWNER", "0", "0", "-", "-"),
    Row(4, "RESET_OWNER", "0", "0", "-", "-"),
    Row(5, "SET_MEM_TABLE", "8 + 32n", "n", "same in postcopy", "-"),
    Row(6, "SET_LOG_BASE", "16", "1 if LOG_SHMFD", "anything if LOG_SHMFD", "-"),
    Row(7, "SET_LOG_FD", "0", "1", "-", "-"),
    Row(8, "SET_VRING_NUM", "8", "0", "-", "-"),
    Row(9, "SET_VRING_ADDR", "40", "0", "-", "-"),
    Row(10, "SET_VRING_BASE", "8", "0", "-", "-"),
    Row(11, "GET_VRING_BASE", "8", "0", "state", "-"),
    Row(12, "SET_VRING_KICK", "8", "1 unless bit 8", "-", "-"),
    Row(13, "SET_VRING_CALL", "8", "1 unless bit 8", "-", "-"),
    Row(14, "SET_VRING_ERR", "8", "1 unless bit 8", "-", "-"),
    Row(17, "GET_QUEUE_NUM", "0", "0", "u64", "MQ offered"),
    Row(18, "SET_VRING_ENABLE", "8", "0", "-", "PROTOCOL_FEATURES"),
    Row(19, "SEND_RARP", "8", "0", "-", "RARP"),
    Row(20, "NET_SET_MTU", "8", "0", "-", "MTU"),
    Row(21, "SET_BACKEND_REQ_FD", "0", "1", "-", "BACKEND_REQ"),
    Row(22, "IOTLB_MSG", "26 + any", "0", "u64", "ACCESS_PLATFORM"),
    Row(23, "SET_VRING_ENDIAN", "8", "0", "-", "CROSS_ENDIAN"),
    Row(24, "GET_CONFIG", "12 + any", "0", "config", "CONFIG"),
    Row(25, "SET_CONFIG", "12 + any", "0", "-", "CONFIG"),
    Row(26, "CREATE_CRYPTO_SESSION", "0 + any", "0", "session", "CRYPTO_SESSION"),
    Row(27, "CLOSE_CRYPTO_SESSION", "8", "0", "-", "CRYPTO_SESSION"),
    Row(28, "POSTCOPY_ADVISE", "0", "0", "empty and fd", "PAGEFAULT"),
    Row(29, "POSTCOPY_LISTEN", "0", "0", "-", "PAGEFAULT"),
    Row(30, "POSTCOPY_END", "0", "0", "u64", "PAGEFAULT"),
    Row(31, "GET_INFLIGHT_FD", "24", "0", "inflight and maybe fd", "INFLIGHT_SHMFD"),
    Row(32, "SET_INFLIGHT_FD", "24", "1", "-", "INFLIGHT_SHMFD"),
    Row(33, "GPU_SET_SOCKET", "0", "1", "-", "-"),
    Row(34, "RESET_DEVICE", "0", "0", "-", "RESET_DEVICE"),
    Row(35, "VRING_KICK", "8", "0", "-", "INBAND_NOTIFICATIONS"),
    Row(36, "GET_MAX_MEM_SLOTS", "0", "0", "u64", "CONFIGURE_MEM_SLOTS"),
    Row(37, "ADD_MEM_REG", "40", "1", "same in postcopy", "CONFIGURE_MEM_SLOTS"),
    Row(38, "REM_MEM_REG", "40", "0, tolerates 1", "-", "CONFIGURE_MEM_SLOTS"),
    Row(39, "SET_STATUS", "8", "0", "-", "STATUS"),
    Row(40, "GET_STATUS", "0", "0", "u64", "STATUS"),
    Row(41, "GET_SHARED_OBJECT", "16", "0", "anything and maybe fd", "SHARED_OBJECT"),
    Row(42, "SET_DEVICE_STATE_FD", "8", "1", "u64 and maybe fd", "DEVICE_STATE"),
    Row(43, "CHECK_DEVICE_STATE", "0", "0", "u64", "DEVICE_STATE"),
    Row(44, "GET_SHMEM_CONFIG", "0", "0", "shmem config", "SHMEM"),
]

BACKEND = [
    Row(1, "BACKEND_IOTLB_MSG", "26 + any", "0", "-", "BACKEND_REQ ACCESS_PLATFORM"),
    Row(2, "BACKEND_CONFIG_CHANGE_MSG", "0", "0", "-", "BACKEND_REQ CONFIG"),
    Row(3, "BACKEND_VRING_HOST_NOTIFIER_MSG", "24", "1 unless bit 8", "-", "BACKEND_REQ HOST_NOTIFIER"),
    Row(4, "BACKEND_VRING_CALL", "8", "0", "-", "BACKEND_REQ INBAND_NOTIFICATIONS"),
    Row(5, "BACKEND_VRING_ERR", "8", "0", "-", "BACKEND_REQ INBAND_NOTIFICATIONS"),
    Row(6, "BACKEND_SHARED_OBJECT_ADD", "16", "0", "-", "BACKEND_REQ SHARED_OBJECT"),
    Row(7, "BACKEND_SHARED_OBJECT_REMOVE", "16", "0", "-", "BACKEND_REQ SHARED_OBJECT"),
    Row(8, "BACKEND_SHARED_OBJECT_LOOKUP", "16", "0", "u64 and maybe fd", "BACKEND_REQ SHARED_OBJECT"),
    Row(9, "BACKEND_SHMEM_MAP", "40", "1", "-", "BACKEND_REQ SHMEM"),
    Row(10, "BACKEND_SHMEM_UNMAP", "40", "0", "-", "BACKEND_REQ SHMEM"),
]

FDS = {
    "0": FdRule.NONE,
    "1": FdRule.ONE,
    "n": FdRule.PER_REGION,
    "1 unless bit 8": FdRule.UNLESS_NOFD,
    "1 if LOG_SHMFD": FdRule.WITH_REPLY,
    "0, tolerates 1": FdRule.TOLERATED,
}
ANSWERS: dict[str, tuple[Answer, type[Structure] | None]] = {
    "-": (Answer.ACK_IF_ASKED, None),
    "u64": (Answer.ALWAYS, records.U64),
    "empty": (Answer.ALWAYS, records.Empty),
    "anything": (Answer.ALWAYS, records.Opaque),
    "anything if LOG_SHMFD": (Answer.WITH_FEATURE, records.Opaque),
    "state": (Answer.ALWAYS, records.VringState),
    "config": (Answer.ALWAYS, records.Config),
    "session": (Answer.ALWAYS, records.CryptoSession),
    "inflight": (Answer.ALWAYS, records.Inflight),
    "shmem config": (Answer.ALWAYS, records.ShmemConfig),
}
REPLY_FDS = {"": FdRule.NONE, "fd": FdRule.ONE, "maybe fd": FdRule.OPTIONAL}
REGIONS = {5: records.MemoryTable, 37: records.SingleRegion}
ROWS = [(Role.FRONTEND, row) for row in FRONTEND] + [(Role.BACKEND, row) for row in BACKEND]
SPECS = list(CATALOG.values())
PAYLOADS = [cls for spec in SPECS for cls in (spec.message, *spec.variants.values())]
REPLIES = list(dict.fromkeys(spec.reply for spec in SPECS if spec.reply))


def test_the_catalogue_lists_every_message_in_the_order_of_the_document() -> None:
    assert [(spec.sender, int(spec.request), spec.name) for spec in SPECS] == [
        (sender, row.number, row.name) for sender, row in ROWS
    ]


def test_there_are_44_and_10_requests_without_gaps() -> None:
    assert sorted(FrontendRequest) == list(range(1, 45))
    assert sorted(BackendRequest) == list(range(1, 11))
    assert len(CATALOG) == 54


@pytest.mark.parametrize("module", ["messages", "frontend_messages", "backend_messages", "reference"])
def test_the_order_does_not_depend_on_what_was_imported_first(module: str) -> None:
    program = (
        f"import vhostuser.wire.{module}, vhostuser.wire.messages as m; "
        "print(*(spec.name for spec in m.CATALOG.values()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [row.name for _, row in ROWS]


@pytest.mark.parametrize(("sender", "row"), [pytest.param(*each, id=each[1].name) for each in ROWS])
class TestEachRow:
    """A row of the catalogue says what the document's row says."""

    def test_is_found_by_sender_and_number(self, sender: Role, row: Row) -> None:
        spec = CATALOG[sender, row.number]
        assert spec.name == row.name
        assert spec.section == f"VHOST_USER_{row.name}"
        assert spec.message.spec is spec
        assert request_of(sender, row.number) is spec.request

    def test_has_a_payload_of_that_size(self, sender: Role, row: Row) -> None:
        cls = CATALOG[sender, row.number].message
        fixed, _, more = row.payload.partition(" + ")
        assert fixed_size(cls) == int(fixed)
        if more:
            with pytest.raises(TypeError):
                cls.wire_size()
        else:
            assert cls.wire_size() == int(fixed)

    def test_brings_that_many_descriptors(self, sender: Role, row: Row) -> None:
        assert CATALOG[sender, row.number].fds is FDS[row.fds]

    def test_is_answered_so(self, sender: Role, row: Row) -> None:
        spec = CATALOG[sender, row.number]
        payload, _, fd = row.answer.partition(" and ")
        expected = (Answer.IN_POSTCOPY, REGIONS[row.number]) if payload == "same in postcopy" else ANSWERS[payload]
        assert (spec.answer, spec.reply) == expected
        assert spec.reply_fds is REPLY_FDS[fd]
        assert spec.reply_feature == (P.LOG_SHMFD if payload.endswith("LOG_SHMFD") else NO_PROTOCOL_FEATURE)

    def test_needs_those_features(self, sender: Role, row: Row) -> None:
        spec = CATALOG[sender, row.number]
        words = row.gate.removesuffix(" offered").replace("-", "").split()
        names = {each.name for each in spec.needs} | {each.name for each in spec.needs_virtio}
        assert names == set(words)
        assert spec.gate is (Gate.OFFERED if row.gate.endswith("offered") else Gate.ACKED)


def test_virtio_features_are_told_from_protocol_features() -> None:
    with_virtio = {spec.name: spec.needs_virtio for spec in SPECS if spec.needs_virtio}
    assert with_virtio == {
        "GET_PROTOCOL_FEATURES": V.PROTOCOL_FEATURES,
        "SET_PROTOCOL_FEATURES": V.PROTOCOL_FEATURES,
        "SET_VRING_ENABLE": V.PROTOCOL_FEATURES,
        "IOTLB_MSG": V.ACCESS_PLATFORM,
        "BACKEND_IOTLB_MSG": V.ACCESS_PLATFORM,
    }
    assert CATALOG[Role.FRONTEND, 1].needs_virtio == NO_VIRTIO_FEATURE


def test_only_get_config_has_a_payload_that_says_no() -> None:
    assert {spec.name: spec.refusal for spec in SPECS if spec.refusal} == {"GET_CONFIG": records.Empty}


def test_descriptors_on_the_back_end_channel_need_a_feature_of_their_own() -> None:
    assert {spec.name: spec.fds_need for spec in SPECS if spec.fds_need} == {
        "BACKEND_VRING_HOST_NOTIFIER_MSG": P.BACKEND_SEND_FD,
        "BACKEND_SHMEM_MAP": P.BACKEND_SEND_FD,
    }


def test_an_unknown_number_is_no_request() -> None:
    assert request_of(Role.FRONTEND, 0) is None
    assert request_of(Role.FRONTEND, 45) is None
    assert request_of(Role.BACKEND, 11) is None


def test_each_role_is_the_peer_of_the_other() -> None:
    assert Role.FRONTEND.peer is Role.BACKEND
    assert Role.BACKEND.peer is Role.FRONTEND


# --- what depends on negotiation ---------------------------------------------------------------------------------


def test_regions_grow_once_xen_mmap_is_negotiated() -> None:
    with_variants = [spec for spec in SPECS if spec.variants]
    assert [spec.name for spec in with_variants] == ["SET_MEM_TABLE", "ADD_MEM_REG", "REM_MEM_REG"]
    for spec in with_variants:
        assert spec.payload(P.REPLY_ACK) is spec.message
        variant = spec.payload(P.XEN_MMAP | P.REPLY_ACK)
        assert variant is spec.variants[P.XEN_MMAP]
        assert variant.spec is spec
        if spec.request is not FrontendRequest.SET_MEM_TABLE:
            assert variant.wire_size() == 48


def spec_of(number: int) -> MessageSpec:
    return CATALOG[Role.FRONTEND, number]


def test_set_log_base_is_replied_to_and_brings_the_log_once_log_shmfd_is_negotiated() -> None:
    spec = spec_of(FrontendRequest.SET_LOG_BASE)
    assert spec.replies(P.LOG_SHMFD)
    assert not spec.replies(P.REPLY_ACK)
    assert list(spec.fd_limits(P.LOG_SHMFD)) == [1]
    assert list(spec.fd_limits(P.REPLY_ACK)) == [0]


def test_own_replies_depend_on_nothing_and_acks_are_none() -> None:
    assert spec_of(FrontendRequest.GET_FEATURES).replies(NO_PROTOCOL_FEATURE)
    assert not spec_of(FrontendRequest.SET_FEATURES).replies(P.REPLY_ACK)
    assert not spec_of(FrontendRequest.SET_MEM_TABLE).replies(P.REPLY_ACK)


@pytest.mark.parametrize(
    ("request_", "regions", "no_fd", "counts"),
    [
        (FrontendRequest.GET_FEATURES, 0, False, [0]),
        (FrontendRequest.ADD_MEM_REG, 0, False, [1]),
        (FrontendRequest.REM_MEM_REG, 0, False, [0, 1]),
        (FrontendRequest.SET_MEM_TABLE, 3, False, [3]),
        (FrontendRequest.SET_VRING_KICK, 0, False, [1]),
        (FrontendRequest.SET_VRING_KICK, 0, True, [0]),
    ],
)
def test_so_many_descriptors_may_come(request_: FrontendRequest, regions: int, no_fd: bool, counts: list[int]) -> None:
    assert list(spec_of(request_).fd_limits(NO_PROTOCOL_FEATURE, regions=regions, no_fd=no_fd)) == counts


# --- bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [*PAYLOADS, *REPLIES], ids=lambda cls: cls.__name__)
@settings(max_examples=20)
@given(data=st.data())
def test_what_is_built_is_parsed_again(cls: type[Structure], data: st.DataObject) -> None:
    value = data.draw(records_of(cls))
    built = value.build()
    assert cls.parse(built) == value
    assert cls.parse(built).build() == built


@pytest.mark.parametrize("cls", [*PAYLOADS, *REPLIES], ids=lambda cls: cls.__name__)
def test_every_truncation_of_the_fields_is_refused(cls: type[Structure]) -> None:
    for length in range(fixed_size(cls)):
        with pytest.raises(FormatError, match=f"{cls.__name__}: {length} bytes are too few"):
            cls.parse(bytes(length))


def has_fixed_size(cls: type[Message]) -> bool:
    try:
        cls.wire_size()
    except TypeError:
        return False
    return True


@pytest.mark.parametrize("cls", [cls for cls in PAYLOADS if has_fixed_size(cls)], ids=lambda cls: cls.__name__)
def test_one_byte_more_than_the_fields_is_refused(cls: type[Message]) -> None:
    size = cls.wire_size()
    with pytest.raises(FormatError, match=f"{cls.__name__}: {size + 1} bytes found, {size} expected"):
        cls.parse(bytes(size + 1))
