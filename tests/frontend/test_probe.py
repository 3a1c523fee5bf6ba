"""What a probe makes of back-ends that are good, odd, and hopeless."""

from __future__ import annotations

import array
import re
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import frontend.probe
from frontend.background import background
from frontend.probe import Difference, NoAnswer, NotAReport, Quirk, Report, differences, probe
from frontend.probe.config import decode, sizes_to_ask
from frontend.probe.guess import guess, guess_from_config
from frontend.probe.needs import note_oddities
from frontend.probe.report import TypeGuess, type_name
from tests.frontend.strangers import (
    FEATURES,
    HANG_UP,
    PROTOCOL_FEATURES,
    Stranger,
    connected_to,
    number,
    reply,
)
from vhostuser.backend import serve_one
from vhostuser.devices.blk import BlkDevice, MemoryStorage
from vhostuser.devices.rng import RngDevice
from vhostuser.transport import Channel, channel_pair
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.requests import FrontendRequest as Request
from vhostuser.wire.virtio.blk import BlkConfig, BlkFeature
from vhostuser.wire.virtio.fs import FsConfig
from vhostuser.wire.virtio.gpu import GpuFeature
from vhostuser.wire.virtio.ids import DeviceType
from vhostuser.wire.virtio.net import NetConfig, NetFeature
from vhostuser.wire.virtio.vsock import VsockConfig, VsockFeature

if TYPE_CHECKING:
    import trio.testing

    from vhostuser.device import Device


async def probed(stranger: Stranger, device_type: int | None = None, config_size: int | None = None) -> Report:
    async with connected_to(stranger) as channel:
        return await probe(channel, device_type=device_type, config_size=config_size)


async def probed_device(device: Device, device_type: int | None = None) -> Report:
    ours, theirs = channel_pair()
    async with background() as nursery:
        nursery.start_soon(serve_one, device, theirs)
        return await probe(ours, device_type=device_type)


def quirk_ids(report: Report) -> list[str]:
    return [quirk.id for quirk in report.quirks]


# --- good ones ---


async def test_a_disk_of_ours_tells_all_and_has_no_quirks() -> None:
    report = await probed_device(BlkDevice(MemoryStorage(1 << 20), num_queues=3))
    assert report.quirks == []
    assert (report.queues, report.status, report.need_reply, report.ended) == (3, 0, "answered", "")
    assert report.device.type == DeviceType.BLOCK
    assert report.memory_slots
    assert report.config_fields["capacity"] == 2048
    assert report.config_fields["num_queues"] == 3
    assert "size_max" not in report.config_fields
    assert len(report.round_trips) == 20


async def test_a_source_of_entropy_is_guessed_by_what_it_lacks() -> None:
    report = await probed_device(RngDevice())
    assert (report.device.type, report.config, report.quirks) == (DeviceType.RNG, None, [])
    assert report.device.why


async def test_a_type_that_is_told_is_no_guess() -> None:
    report = await probed_device(RngDevice(), DeviceType.RNG)
    assert report.device == TypeGuess(DeviceType.RNG)
    assert report.to_json()["type_guessed_from"] is None


async def test_nothing_is_set_up_and_only_what_was_offered_is_acknowledged() -> None:
    acknowledged = []
    stranger = Stranger(protocol_features=int(ProtocolFeature.REPLY_ACK | ProtocolFeature.INFLIGHT_SHMFD))

    def acknowledge(payload: bytes, _: bool) -> bytes:
        acknowledged.append(struct.unpack("=Q", payload)[0])
        return b""

    stranger.otherwise[Request.SET_PROTOCOL_FEATURES] = acknowledge
    report = await probed(stranger)
    assert report.quirks == []
    assert acknowledged == [ProtocolFeature.REPLY_ACK]
    assert set(stranger.heard) == {
        Request.GET_FEATURES,
        Request.GET_PROTOCOL_FEATURES,
        Request.SET_PROTOCOL_FEATURES,
        Request.SET_OWNER,
    }


async def test_without_protocol_features_nothing_more_is_asked() -> None:
    stranger = Stranger(features=int(VirtioFeature.VERSION_1))
    report = await probed(stranger)
    assert quirk_ids(report) == ["no-protocol-features"]
    assert (report.protocol_features, report.queues, report.need_reply) == (None, None, "not offered")
    assert set(stranger.heard) == {Request.GET_FEATURES, Request.SET_OWNER}


# --- odd ones ---


def twice(request: int) -> Any:
    return lambda _payload, need_reply: number(request, 0) * (2 if need_reply else 0)


ODD = [
    (Request.GET_FEATURES, lambda _p, _n: reply(1, struct.pack("=Q", FEATURES), 0xD), "reply-flags: GET_FEATURES: "),
    (Request.GET_QUEUE_NUM, lambda _p, _n: reply(17, b"\2\0\0\0"), "reply-size: GET_QUEUE_NUM: U64: 4 bytes"),
    (Request.GET_QUEUE_NUM, lambda _p, _n: number(17, 0), "no-queues"),
    (Request.GET_MAX_MEM_SLOTS, lambda _p, _n: number(36, 0), "no-slots"),
    (Request.GET_STATUS, lambda _p, _n: number(40, 15), "status: the device status is 0xf"),
    (Request.SET_OWNER, lambda _p, _n: b"", "need-reply: SET_OWNER with need_reply was ignored"),
    (Request.SET_OWNER, lambda _p, _n: number(3, 1), "need-reply: SET_OWNER with need_reply was refused"),
    (Request.SET_OWNER, twice(Request.SET_OWNER), "need-reply: SET_OWNER with need_reply was answered twice"),
    (
        Request.GET_FEATURES,
        lambda _p, need_reply: number(1, FEATURES) * (2 if need_reply else 1),
        "need-reply: GET_FEATURES with need_reply was answered 2 times",
    ),
    (
        Request.SET_PROTOCOL_FEATURES,
        lambda _p, _n: number(16, 0),
        "reply-order: SET_PROTOCOL_FEATURES was answered when GET_QUEUE_NUM was to be",
    ),
    (
        Request.GET_STATUS,
        lambda _p, _n: number(99, 0) + number(40, 0),
        "reply-order: request 99 was answered when GET_STATUS was to be",
    ),
    (
        Request.GET_CONFIG,
        lambda payload, _n: reply(24, payload[:12] + b"\1\2"),
        "reply-size: GET_CONFIG of 8 bytes: the reply says 8 bytes and has 2",
    ),
    (Request.GET_CONFIG, lambda _p, _n: reply(24, b"\0\0\0"), "reply-size: GET_CONFIG: Config: 3 bytes are too few"),
]


@pytest.mark.parametrize(("request_", "answer", "expected"), ODD, ids=[expected for _, _, expected in ODD])
async def test_an_odd_answer_is_noted_once_and_the_questions_go_on(
    request_: Request, answer: Any, expected: str
) -> None:
    stranger = Stranger(config=VsockConfig(3).build(), otherwise={request_: answer})
    report = await probed(stranger, DeviceType.VSOCK)
    noted = [f"{quirk.id}: {quirk.detail}" for quirk in report.quirks]
    assert len([each for each in noted if each.startswith(expected)]) == 1, noted
    assert report.ended == ""
    assert len(report.round_trips) == 20


async def test_an_acknowledgement_that_nobody_asked_for_is_noted() -> None:
    stranger = Stranger(protocol_features=0, otherwise={Request.SET_OWNER: lambda _p, _n: number(3, 0)})
    assert Quirk("need-reply", "SET_OWNER was answered, though nobody asked for it") in (await probed(stranger)).quirks


async def test_features_that_change_from_one_question_to_the_next_are_noted() -> None:
    values = iter([FEATURES, FEATURES, *30 * [FEATURES | VirtioFeature.EVENT_IDX]])
    stranger = Stranger(otherwise={Request.GET_FEATURES: lambda _p, _n: number(1, next(values))})
    assert quirk_ids(await probed(stranger)) == ["unstable"]


async def test_a_header_without_its_payload_is_seen() -> None:
    stranger = Stranger(pause=True)
    assert quirk_ids(await probed(stranger)) == ["split-reply"]


async def test_a_descriptor_where_none_belongs_is_noted_and_closed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))
        theirs.sendmsg([number(Request.GET_FEATURES, FEATURES)], [rights])
        theirs.shutdown(socket.SHUT_WR)
        report = await probe(Channel(ours))
    assert quirk_ids(report) == ["reply-fds"]
    assert report.ended == "it closed the connection at GET_PROTOCOL_FEATURES"


async def test_less_configuration_space_is_asked_for_after_a_refusal() -> None:
    features = FEATURES | BlkFeature.BLK_SIZE | BlkFeature.SEG_MAX | BlkFeature.FLUSH
    stranger = Stranger(features=features, config=BlkConfig(77).build()[:8])
    report = await probed(stranger)
    assert report.config_fields == {"capacity": 77}
    assert [quirk.detail for quirk in report.quirks] == [
        "GET_CONFIG of 24 bytes was refused",
        "GET_CONFIG of 16 bytes was refused",
    ]


async def test_a_device_of_unknown_type_is_asked_for_less_and_less_without_blame() -> None:
    report = await probed(Stranger(config=b"\xff\xff\xff\xff\xff\xff\xff\xff"))
    assert (report.config, report.config_fields, report.quirks) == (b"\xff" * 8, {}, [])
    assert report.device.type is None


async def test_a_size_that_is_told_is_the_only_one_asked_for() -> None:
    stranger = Stranger(config=bytes(6))
    report = await probed(stranger, config_size=7)
    assert (report.config, quirk_ids(report)) == (None, ["config-refused"])
    assert stranger.heard.count(Request.GET_CONFIG) == 1


# --- hopeless ones ---


async def test_a_wrong_answer_to_the_first_question_leaves_nothing_to_ask() -> None:
    report = await probed(Stranger(otherwise={Request.GET_FEATURES: lambda _p, _n: reply(1, b"")}))
    assert (report.features, quirk_ids(report)) == (None, ["reply-size"])


@pytest.mark.parametrize("request_", [Request.GET_PROTOCOL_FEATURES, Request.SET_OWNER, Request.GET_CONFIG])
async def test_what_was_told_before_a_back_end_hung_up_is_kept(request_: Request) -> None:
    stranger = Stranger(config=bytes(64), otherwise={request_: lambda _p, _n: HANG_UP})
    report = await probed(stranger, DeviceType.VSOCK)
    assert report.features == FEATURES
    assert report.ended


async def test_silence_ends_the_questions(autojump_clock: trio.testing.MockClock) -> None:
    stranger = Stranger(otherwise={Request.GET_QUEUE_NUM: lambda _p, _n: b""})
    report = await probed(stranger)
    assert report.ended == "no answer to GET_QUEUE_NUM for 5 s"
    assert report.protocol_features == PROTOCOL_FEATURES


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (HANG_UP, "it closed the connection at GET_FEATURES"),
        (b"", "no answer to GET_FEATURES for 5 s"),
        (b"HTTP/1.1 400 Bad Request\r\n", "GET_FEATURES: .*announces a payload"),
        (20 * number(2, 0), "GET_FEATURES: 16 other answers came instead"),
    ],
    ids=["hang up", "silence", "not vhost-user", "flood"],
)
async def test_a_back_end_without_one_answer_is_an_error(
    answer: bytes, expected: str, autojump_clock: trio.testing.MockClock
) -> None:
    stranger = Stranger(otherwise={Request.GET_FEATURES: lambda _p, _n: answer})
    with pytest.raises(NoAnswer, match=expected):
        await probed(stranger)


async def test_a_back_end_that_reads_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        ours.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                ours.send(bytes(4096))
        with pytest.raises(NoAnswer, match="did not read GET_FEATURES for 5 s"):
            await probe(Channel(ours))


# --- guesses ---


@pytest.mark.parametrize(
    ("features", "protocol_features", "expected"),
    [
        (BlkFeature.SEG_MAX | BlkFeature.FLUSH, ProtocolFeature.CONFIG, DeviceType.BLOCK),
        (BlkFeature.SEG_MAX | BlkFeature.FLUSH, 0, None),
        (NetFeature.MRG_RXBUF, 0, DeviceType.NET),
        (0, ProtocolFeature.RARP, DeviceType.NET),
        (0, ProtocolFeature.CRYPTO_SESSION, DeviceType.CRYPTO),
        (VsockFeature.SEQPACKET, ProtocolFeature.CONFIG, None),
    ],
)
def test_features_speak_for_a_type(features: int, protocol_features: int, expected: DeviceType | None) -> None:
    report = Report(features=FEATURES | features, protocol_features=int(protocol_features))
    found = guess(report)
    assert (found.type, bool(found.why)) == (expected, expected is not None)


TAG = FsConfig(b"share".ljust(36, b"\0"), 1).build()


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (Report(features=FEATURES, config=TAG, queues=2), DeviceType.FS),
        (Report(features=FEATURES, config=TAG, queues=1), None),
        (Report(features=FEATURES, config=b"\0" * 36 + TAG[36:], queues=2), None),
        (Report(features=FEATURES, config=VsockConfig(3).build(), queues=2), DeviceType.VSOCK),
        (Report(features=FEATURES | 2, config=VsockConfig(3).build(), queues=2), DeviceType.VSOCK),
        (Report(features=FEATURES | 2, config=VsockConfig(2).build(), queues=2), None),
        (Report(features=FEATURES, queues=1), DeviceType.RNG),
        (Report(features=FEATURES, protocol_features=0, queues=2), DeviceType.FS),
        (Report(features=FEATURES, protocol_features=int(ProtocolFeature.CONFIG), queues=2), None),
        (Report(features=FEATURES), None),
    ],
)
def test_configuration_space_speaks_for_a_type(report: Report, expected: DeviceType | None) -> None:
    assert guess_from_config(report).type == expected


def test_types_are_called_what_commands_call_them() -> None:
    assert [type_name(each) for each in (2, 26, 45, 1000, None)] == ["blk", "fs", "spi", "1000", "unknown"]


# --- configuration space ---


@pytest.mark.parametrize(
    ("device_type", "features", "expected"),
    [
        (DeviceType.BLOCK, BlkFeature.WRITE_ZEROES, [60, 56, 52, 8]),
        (DeviceType.NET, NetFeature.MAC | NetFeature.MTU, [12, 8]),
        (DeviceType.NET, 0, []),
        (DeviceType.VSOCK, 0, [8]),
        (DeviceType.FS, 0, [40, 36]),
        (DeviceType.RNG, 0, []),
        (None, 0, [40, 16, 8, 4]),
        (DeviceType.SOUND, 0, [40, 16, 8, 4]),
    ],
)
def test_only_what_the_features_tell_of_is_asked_for(
    device_type: int | None, features: int, expected: list[int]
) -> None:
    assert list(sizes_to_ask(device_type, features)) == expected


def test_fields_are_shown_as_people_write_them() -> None:
    net = NetConfig(bytes.fromhex("525400123456"), max_virtqueue_pairs=2).build()
    features = NetFeature.MAC | NetFeature.STATUS | NetFeature.MQ
    assert decode(DeviceType.NET, features, net) == {
        "mac": "52:54:00:12:34:56",
        "status": "LINK_UP",
        "max_virtqueue_pairs": 2,
    }
    assert decode(DeviceType.NET, features, net[:7]) == {"mac": "52:54:00:12:34:56"}
    assert decode(DeviceType.FS, 0, TAG) == {"tag": "share", "num_request_queues": 1}
    assert decode(DeviceType.INPUT, 0, b"\x01\x00\x02\0\0\0\0\0" + b"a" * 128)["data"] == "61" * 128
    assert decode(DeviceType.INPUT, 0, b"\x01\x00\x02")["select"] == "ID_NAME"
    assert decode(DeviceType.SOUND, 0, bytes(8)) == decode(None, 0, bytes(8)) == {}


# --- features that need features ---


@pytest.mark.parametrize(
    ("features", "protocol_features", "device_type", "expected"),
    [
        (0, ProtocolFeature.BACKEND_SEND_FD, None, "missing-feature: BACKEND_SEND_FD is offered without BACKEND_REQ"),
        (
            0,
            ProtocolFeature.HOST_NOTIFIER,
            None,
            "missing-feature: HOST_NOTIFIER is offered without BACKEND_REQ and BACKEND_SEND_FD",
        ),
        (
            VirtioFeature.LOG_ALL,
            0,
            None,
            "missing-feature: LOG_ALL is offered without LOG_SHMFD: there is no way to share the log",
        ),
        (NetFeature.MQ, 0, DeviceType.NET, "missing-feature: MQ is offered without CTRL_VQ"),
        (
            NetFeature.HOST_ECN,
            0,
            DeviceType.NET,
            "missing-feature: HOST_ECN is offered without HOST_TSO4 or HOST_TSO6",
        ),
        (BlkFeature.CONFIG_WCE, 0, DeviceType.BLOCK, "missing-feature: CONFIG_WCE is offered without FLUSH"),
        (GpuFeature.CONTEXT_INIT, 0, DeviceType.GPU, "missing-feature: CONTEXT_INIT is offered without VIRGL"),
        (0, 1 << 40, None, "unknown-bit: protocol feature bit 40"),
        (1 << 31, 0, None, "unknown-bit: virtio feature bit 31"),
        (1 << 5, 0, DeviceType.RNG, "unknown-bit: virtio feature bit 5"),
        (1 << 5, 0, DeviceType.CRYPTO, None),
        (1 << 5, 0, None, None),
        (NetFeature.MQ | NetFeature.CTRL_VQ, 0, DeviceType.NET, None),
    ],
)
def test_what_an_offer_lacks_is_noted(
    features: int, protocol_features: int, device_type: int | None, expected: str | None
) -> None:
    report = Report(
        features=FEATURES | features, protocol_features=int(protocol_features), device=TypeGuess(device_type)
    )
    note_oddities(report)
    assert [f"{quirk.id}: {quirk.detail}" for quirk in report.quirks] == ([expected] if expected else [])


def test_features_of_virtio_1_need_version_1() -> None:
    report = Report(features=int(VirtioFeature.RING_PACKED))
    note_oddities(report)
    assert report.quirks == [Quirk("missing-feature", "RING_PACKED is offered without VERSION_1")]


# --- then and now ---


def report_json(**given: Any) -> dict[str, Any]:
    start: dict[str, Any] = {
        "features": FEATURES,
        "protocol_features": PROTOCOL_FEATURES,
        "device": TypeGuess(DeviceType.BLOCK),
        "queues": 2,
        "config": b"\1\0",
        "round_trips": [0.001],
    }
    return Report(**{**start, **given}).to_json()


def test_a_report_does_not_differ_from_itself_nor_by_chance() -> None:
    by_chance = report_json(round_trips=[0.5, 0.25], quirks=[Quirk("split-reply", "seen")])
    assert by_chance["round_trip_us"] == {"least": 250_000.0, "median": 375_000.0, "most": 500_000.0}
    assert differences(report_json(), by_chance) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"queues": 1}, "~ queues: 2 -> 1"),
        ({"queues": None}, "- queues: 2"),
        ({"status": 3}, "+ status: 3"),
        ({"features": FEATURES | BlkFeature.FLUSH}, "+ virtio feature: FLUSH"),
        ({"protocol_features": PROTOCOL_FEATURES & ~ProtocolFeature.MQ}, "- protocol feature: MQ"),
        ({"config": b"\1\1"}, "~ config: 0100 -> 0101"),
        ({"config": None}, "- config: 0100"),
        ({"config_fields": {"capacity": 8}}, "+ config capacity: 8"),
        ({"quirks": [Quirk("status", "odd")]}, "+ quirk: status: odd"),
        ({"ended": "it hung up"}, "+ ended: it hung up"),
    ],
)
def test_what_differs_is_one_readable_line(given: dict[str, Any], expected: str) -> None:
    found = differences(report_json(), report_json(**given))
    assert [str(each) for each in found] == [expected]


def test_a_difference_has_a_form_for_machines() -> None:
    assert Difference("queues", 1, 2).to_json() == {"what": "queues", "before": 1, "now": 2}


@pytest.mark.parametrize("wrong", [None, [], {}, {"format": 99}, {"format": 1}, {**report_json(), "features": 7}])
def test_what_is_no_report_is_named(wrong: Any) -> None:
    with pytest.raises(NotAReport):
        differences(wrong, report_json())


def test_a_report_without_features_has_no_oddities() -> None:
    report = Report()
    note_oddities(report)
    assert report.quirks == []


def test_a_report_of_nothing_can_be_written_and_compared() -> None:
    empty = Report().to_json()
    assert empty["type"] == "unknown"
    assert differences(empty, empty) == []


def test_every_quirk_is_explained() -> None:
    source = "".join(path.read_text() for path in Path(frontend.probe.__path__[0]).glob("*.py"))
    explained = (Path(__file__).parents[2] / "docs" / "probe.md").read_text()
    ids = set(re.findall(r'note\(\s*"([a-z-]+)"', source))
    assert len(ids) > 10
    assert {each for each in ids if f"`{each}`" not in explained} == set()
