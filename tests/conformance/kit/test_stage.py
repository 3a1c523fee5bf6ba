"""What a case needs and a target has not is told by name; and a target is served by whatever comes back."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from frontend.conformance.profile import Profile
from frontend.conformance.stage import BackendStage
from frontend.conformance.suite import load
from frontend.conformance.targets import SocketTarget
from tests.conformance.runs import program
from vhostuser.conformance import Failure, Need, Wedged
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

if TYPE_CHECKING:
    from vhostuser.conformance.case import Requirement

CASE = load().cases["B-HDR-01"]
PROFILE = Profile(features=VirtioFeature.VERSION_1, protocol=ProtocolFeature.MQ)


def missing(profile: Profile, *needs: Requirement, variant: str = "") -> list[str]:
    stage = BackendStage(SocketTarget("/nowhere"), profile)
    return stage.missing(replace(CASE, needs=needs), variant)


@pytest.mark.parametrize(
    ("need", "word"),
    [
        (VirtioFeature.EVENT_IDX, "EVENT_IDX"),
        (ProtocolFeature.REPLY_ACK, "REPLY_ACK"),
        (Need.CHANNEL, Need.CHANNEL.value),
        (Need.PROGRAM, Need.PROGRAM.value),
        (Need.CONVENTIONS, Need.CONVENTIONS.value),
        (Need.TWO_QUEUES, Need.TWO_QUEUES.value),
    ],
)
def test_what_is_missing_has_a_name(need: Requirement, word: str) -> None:
    assert missing(PROFILE, need) == [word]


def test_what_is_offered_is_not_missing() -> None:
    there = replace(PROFILE, protocol=ProtocolFeature.MQ | ProtocolFeature.BACKEND_REQ, queues=2)
    needs = (VirtioFeature.VERSION_1, ProtocolFeature.MQ, Need.CHANNEL, Need.TWO_QUEUES, Need.SPLIT, Need.OUR_PROCESS)
    assert missing(there, *needs) == []


def test_a_variant_has_a_need_of_its_own() -> None:
    assert missing(PROFILE, variant="packed") == ["RING_PACKED"]
    assert missing(PROFILE, variant="split") == []


@pytest.mark.parametrize(
    ("word", "follows"), [("--socket-path", True), ("--socket-path={socket}", True), ("--fd={fd}", True), ("-s", False)]
)
async def test_a_program_of_the_conventions_is_known_by_its_options(word: str, follows: bool) -> None:
    async with program("good") as target:
        target._command = ["program", word, "{socket}"]
        stage = BackendStage(target, PROFILE)
        assert (stage.missing(replace(CASE, needs=(Need.CONVENTIONS,)), "") == []) is follows


def ends() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def test_served_is_whoever_answers_anything() -> None:
    stage = BackendStage(SocketTarget("/nowhere"), PROFILE, patience=0.05)
    ours, theirs = ends()
    with theirs:
        theirs.sendall(b"\xa5" * 20)
        await stage.answers(ours)
    ours, theirs = ends()
    theirs.close()
    with pytest.raises(Failure):
        await stage.answers(ours)
    ours, theirs = ends()
    with theirs, pytest.raises(Wedged):
        await stage.answers(ours)
