"""The questions, in an order that does no harm.

It is the order in which QEMU begins with every back-end, cut off before anything is set up: no memory, no rings, no
SET_FEATURES.  What is acknowledged with SET_PROTOCOL_FEATURES is only what the questions themselves need.  SET_OWNER
is sent, since back-ends have hardly been tried with front-ends that leave without it.  What could confuse a back-end
that counts its answers wrongly comes last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from frontend.probe.asking import Answer, Conversation, NoAnswer, config_data
from frontend.probe.config import decode, sizes_to_ask
from frontend.probe.guess import guess, guess_from_config
from frontend.probe.needs import note_oddities
from frontend.probe.report import Report, TypeGuess
from vhostuser.wire.features import ProtocolFeature, VirtioFeature
from vhostuser.wire.frontend_messages import (
    GetConfig,
    GetFeatures,
    GetMaxMemSlots,
    GetProtocolFeatures,
    GetQueueNum,
    GetStatus,
    SetOwner,
    SetProtocolFeatures,
)
from vhostuser.wire.records import U64, Config, ConfigFlags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vhostuser.transport.channel import Channel
    from vhostuser.wire.catalog import Message

ACKNOWLEDGED = (
    ProtocolFeature.MQ
    | ProtocolFeature.REPLY_ACK
    | ProtocolFeature.CONFIG
    | ProtocolFeature.CONFIGURE_MEM_SLOTS
    | ProtocolFeature.STATUS
)
"""Protocol features that a question here needs."""
ROUND_TRIPS = 20


async def probe(
    channel: Channel, *, device_type: int | None = None, config_size: int | None = None, patience: float = 5.0
) -> Report:
    """Ask the back-end behind ``channel`` what it is; owns ``channel``, and closes it.

    Args:
        channel: nothing has been said on it.
        device_type: what it is, for somebody who knows; else it is guessed.
        config_size: bytes of configuration space to ask for, instead of those that the features tell of.
        patience: seconds to wait for each answer.

    Returns:
        What it said.  `Report.ended` tells if it stopped answering before the end.

    Raises:
        NoAnswer: it did not even answer GET_FEATURES.
    """
    report = Report(device=TypeGuess(device_type))
    async with channel:
        talk = Conversation(channel, report, patience)
        report.features = await _number(talk, GetFeatures())
        try:
            await _ask_all(talk, report, config_size)
        except NoAnswer as error:
            report.ended = str(error)
    note_oddities(report)
    return report


async def _ask_all(talk: Conversation, report: Report, config_size: int | None) -> None:
    await _protocol(talk, report)
    if report.device.type is None:
        report.device = guess(report)
    await _owner(talk, report)
    if report.has(ProtocolFeature.STATUS):
        report.status = await _number(talk, GetStatus())
        if report.status:
            report.note("status", f"the device status is {report.status:#x} before any driver came")
    if report.has(ProtocolFeature.CONFIG):
        await _config(talk, report, config_size)
    if report.device.type is None:
        report.device = guess_from_config(report)
    if report.config:
        report.config_fields = decode(report.device.type, report.features or 0, report.config)
    await _round_trips(talk, report)
    await _answered_once(talk, report)


async def _number(talk: Conversation, question: Message) -> int | None:
    reply = await talk.ask(question, U64)
    return None if reply is None else reply.value


async def _protocol(talk: Conversation, report: Report) -> None:
    if report.features is None:
        return
    if not report.features & VirtioFeature.VERSION_1:
        report.note("legacy", "VERSION_1 is not offered: a legacy device")
    if not report.features & VirtioFeature.PROTOCOL_FEATURES:
        report.note("no-protocol-features", "PROTOCOL_FEATURES, bit 30, is not offered: nothing more can be asked")
        return
    report.protocol_features = await _number(talk, GetProtocolFeatures())
    await talk.tell(SetProtocolFeatures(ProtocolFeature(ACKNOWLEDGED & (report.protocol_features or 0))))
    if report.has(ProtocolFeature.MQ):
        report.queues = await _number(talk, GetQueueNum())
        if report.queues == 0:
            report.note("no-queues", "GET_QUEUE_NUM was answered with 0")
    if report.has(ProtocolFeature.CONFIGURE_MEM_SLOTS):
        report.memory_slots = await _number(talk, GetMaxMemSlots())
        if report.memory_slots == 0:
            report.note("no-slots", "GET_MAX_MEM_SLOTS was answered with 0")


async def _owner(talk: Conversation, report: Report) -> None:
    """SET_OWNER, with a question behind it: whatever comes before the answer to that is an acknowledgement."""
    asked = report.has(ProtocolFeature.REPLY_ACK)
    answers = await talk.fenced(SetOwner(), GetFeatures(), need_reply=asked)
    if asked:
        report.need_reply = _acknowledgement(talk, answers)
        if report.need_reply != "answered":
            report.note("need-reply", f"SET_OWNER with need_reply was {report.need_reply}")
    elif answers:
        report.note("need-reply", "SET_OWNER was answered, though nobody asked for it")


def _acknowledgement(talk: Conversation, answers: list[Answer]) -> str:
    if len(answers) != 1:
        return "answered twice" if answers else "ignored"
    value = talk.read(SetOwner(), answers[0], U64)
    return "answered" if value == U64(0) else "refused"


async def _config(talk: Conversation, report: Report, config_size: int | None) -> None:
    told = report.device.type is not None
    sizes: Iterable[int] = sizes_to_ask(report.device.type, report.features or 0)
    for size in [config_size] if config_size else sizes:
        reply = await _piece_of_config(talk, report, size)
        if reply:
            report.config = reply
            return
        if told or config_size:  # of an unknown device we asked for sizes that may well be too large
            report.note("config-refused", f"GET_CONFIG of {size} bytes was refused")


async def _piece_of_config(talk: Conversation, report: Report, size: int) -> bytes:
    """The first ``size`` bytes of configuration space; none when the back-end refuses."""
    question = GetConfig(0, size, ConfigFlags(0), bytes(size))
    await talk.tell(question)
    answer = await talk.answer_to(question)
    if not answer.payload:
        return b""
    reply = talk.read(question, answer, Config)
    data = config_data(reply) if reply is not None else b""
    if reply is not None and reply.size and (reply.size != size or len(reply.data) != size):
        report.note(
            "reply-size",
            f"GET_CONFIG of {size} bytes: the reply says {reply.size} bytes and has {len(reply.data)}",
        )
    return data


async def _round_trips(talk: Conversation, report: Report) -> None:
    times = []
    for _ in range(ROUND_TRIPS):
        started = trio.current_time()
        features = await _number(talk, GetFeatures())
        times.append(trio.current_time() - started)
        if features != report.features:
            report.note("unstable", "GET_FEATURES was answered in two ways")
    report.round_trips = times


async def _answered_once(talk: Conversation, report: Report) -> None:
    """need_reply on a message that has a reply of its own: that reply is the answer, and nothing more may come."""
    if not report.has(ProtocolFeature.REPLY_ACK):
        return
    answers = await talk.fenced(GetFeatures(), GetProtocolFeatures(), need_reply=True)
    if len(answers) != 1:
        report.note("need-reply", f"GET_FEATURES with need_reply was answered {len(answers)} times")
