"""What a target offers, asked in a first session, and whether it goes on after that."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from frontend.conformance.log import Recorder
from frontend.conformance.model import model_of
from frontend.conformance.profile import Profile
from frontend.conformance.session import Closed, Session
from frontend.conformance.stage import BackendStage
from frontend.probe import NoAnswer, probe
from frontend.probe.report import type_name
from vhostuser.conformance import CaseError
from vhostuser.conformance.target import NotStarted
from vhostuser.transport.channel import Channel
from vhostuser.wire.features import ProtocolFeature, VirtioFeature, names
from vhostuser.wire.frontend_messages import GetFeatures, GetProtocolFeatures
from vhostuser.wire.records import U64
from vhostuser.wire.virtio.features import describe

if TYPE_CHECKING:
    import socket

    from vhostuser.conformance.target import Subject

__all__ = ["ask", "in_words"]

PARTING = 5.0
"""Seconds that a program may take to end after its first session, if it does not serve a second one."""

AGAIN = 0.05


async def ask(subject: Subject, *, device_type: int | None = None, patience: float = 5.0) -> Profile:
    """Start ``subject``, ask it, and find out whether it serves one session or many.

    Raises:
        NotStarted: it is not to be had, does not answer, or serves one session and does not end.
    """
    await subject.begin()
    if subject.sessions is not None:
        return await _ask_a_little(await subject.knock(), device_type, patience)
    try:
        report = await probe(Channel(await subject.dial()), device_type=device_type, patience=patience)
    except NoAnswer as error:
        raise NotStarted(f"it does not answer: {error}{_printed(subject)}") from error
    if report.features is None:
        raise NotStarted(f"its answer to GET_FEATURES cannot be read{_printed(subject)}")
    kind = report.device.type
    profile = Profile(
        features=report.features,
        protocol=ProtocolFeature(report.protocol_features or 0),
        queues=report.queues or model_of(kind).queues,
        device_type=kind,
        config=report.config or b"",
    )
    await _served_again(subject, profile, patience)
    return profile


async def _ask_a_little(sock: socket.socket | None, device_type: int | None, patience: float) -> Profile:
    """Two harmless questions on the only connection there is, which stays open."""
    if sock is None:
        raise NotStarted("its only session is over")
    with Session(sock, Recorder(), patience=patience) as session:
        try:
            features = (await session.ask(GetFeatures(), U64)).value
            protocol = (
                (await session.ask(GetProtocolFeatures(), U64)).value
                if features & VirtioFeature.PROTOCOL_FEATURES
                else 0
            )
        except (Closed, CaseError) as error:
            raise NotStarted(f"it does not answer: {error}") from None
    return Profile(
        features=features,
        protocol=ProtocolFeature(protocol),
        queues=model_of(device_type).queues,
        device_type=device_type,
    )


async def _served_again(subject: Subject, profile: Profile, patience: float) -> None:
    """Find out what follows the first session: the next one, or the end and somebody who starts it again."""
    stage = BackendStage(subject, profile, patience=patience)
    if await _answered(stage, await subject.knock()):
        return
    if subject.ours and await subject.ended(PARTING) is None:
        raise NotStarted("it does not serve a second connection, and does not end either")
    subject.single_session = True
    with trio.move_on_after(PARTING + patience):
        while not await _answered(stage, await subject.dial()):  # noqa: ASYNC110 - nobody wakes us
            await trio.sleep(AGAIN)
        return
    raise NotStarted("it has served one connection, and none after that")


async def _answered(stage: BackendStage, sock: socket.socket | None) -> bool:
    if sock is None:
        return False
    try:
        await stage.answers(sock)
    except CaseError:
        return False
    return True


def in_words(profile: Profile) -> dict[str, str]:
    """A profile for people."""
    return {
        "device": type_name(profile.device_type),
        "virtio features": " ".join(describe(profile.features, profile.device_type)) or "none",
        "protocol features": " ".join(names(profile.protocol, ProtocolFeature)) or "none",
        "queues": str(profile.queues),
    }


def _printed(subject: Subject) -> str:
    said = subject.printed().strip()
    return f"; it printed:\n{said[-2000:]}" if said else ""
