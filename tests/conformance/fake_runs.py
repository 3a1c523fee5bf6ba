"""Runs that never took place: every verdict, and everything that a result can carry, for those who report them."""

from __future__ import annotations

from vhostuser.conformance import Case, Exchange, Grade, Known, Level, Need, Result, Run, Verdict
from vhostuser.wire.features import ProtocolFeature, VirtioFeature

HOSTILE = "</script><img src=x onerror=alert(1)> ]]> & \x1b[2J\x00\u202e\udc80 # TODO \\ ---"
"""What a target might print to fool whoever shows it."""


def a_case(id: str = "B-HDR-01", **more: object) -> Case:  # noqa: A002
    """A case; all but the id may be left out."""
    told: dict[str, object] = {
        "level": Level.MUST,
        "title": "A reply repeats the request's number",
        "section": "Header",
        "rationale": "Whoever has two requests under way tells their answers apart by nothing else.",
        "provoke": "GET_FEATURES",
        "passes": "the reply's request is 1",
    }
    return Case(id=id, **{**told, **more})  # type: ignore[arg-type]


def a_log() -> list[Exchange]:
    """A question, two notes and an answer with a descriptor."""
    sent = bytes.fromhex("01000000 01000000 00000000")
    got = bytes.fromhex("01000000 05000000 08000000 00000070 01000000")
    return [
        Exchange(seconds=0.0, connection=0, direction="note", text="connected"),
        Exchange(seconds=0.0001, connection=0, direction="sent", text="GET_FEATURES", data=sent, size=12),
        Exchange(
            seconds=0.0004,
            connection=0,
            direction="received",
            text="reply to GET_FEATURES  0x170000000 INDIRECT_DESC EVENT_IDX PROTOCOL_FEATURES VERSION_1",
            data=got,
            size=20,
            fds=("7 (memfd, 00:01 4711)",),
        ),
        Exchange(seconds=0.5, connection=1, direction="note", text="waited half a second"),
    ]


def every_verdict() -> list[Result]:
    """One result of each verdict, in several groups."""
    groups = ("HDR", "MEM", "SPL", "HOS")
    return [
        a_result(verdict, a_case(f"B-{groups[number // 3]}-{number:02}"), seconds=number / 100)
        for number, verdict in enumerate(Verdict)
    ]


def a_result(verdict: Verdict, case: Case | None = None, **more: object) -> Result:
    """A result as the runner makes one of this verdict."""
    case = case or a_case()
    told: dict[str, object] = {
        "log": a_log(),
        "replay": f"vhost-user conform backend --exec 'disk {{socket}}' {case.id}",
    }
    if verdict is not Verdict.PASS:
        told["reason"] = f"reply to GET_FEATURES: found {verdict.value}, expected 0x5"
    if verdict in (Verdict.XFAIL, Verdict.XPASS):
        told["known"] = Known(cases="B-*", reason="answers late", link="https://example.org/1", until="2.0", flaky=True)
    if verdict is Verdict.CRASH:
        told |= {"exit_status": -11, "shutdown": Grade.SIGNAL, "stderr": "disk: assertion failed\n"}
    return Result(case=case, verdict=verdict, **{**told, **more})  # type: ignore[arg-type]


def a_run(*results: Result, **more: object) -> Run:
    """A run with these results, or with one of each verdict."""
    told: dict[str, object] = {
        "target": "disk {socket}",
        "offered": {"device type": "blk", "virtio features": "VERSION_1 RING_PACKED", "queues": "2"},
        "started": "2026-01-02T03:04:05Z",
        "seconds": 12.5,
        "program": "python-vhost-user 0.1",
    }
    return Run(results=list(results) or every_verdict(), **{**told, **more})  # type: ignore[arg-type]


def a_hostile_run() -> Run:
    """A run in which every text is out to do harm."""
    log = [Exchange(seconds=0.1, connection=0, direction=HOSTILE, text=HOSTILE, data=b"\xff", size=9, fds=(HOSTILE,))]
    case = a_case(title=HOSTILE, section=HOSTILE, rationale=HOSTILE, provoke=HOSTILE, passes=HOSTILE)
    results = [
        Result(
            case=case,
            variant=HOSTILE,
            verdict=verdict,
            reason=HOSTILE,
            notes=[HOSTILE],
            log=log,
            stderr=HOSTILE,
            replay=HOSTILE,
            known=Known(cases=HOSTILE, reason=HOSTILE, link=HOSTILE, until=HOSTILE),
        )
        for verdict in Verdict
    ]
    return a_run(*results, target=HOSTILE, offered={HOSTILE: HOSTILE}, program=HOSTILE, started=HOSTILE)


def a_needy_case() -> Case:
    """A case with everything that a case can have."""
    return a_case(
        "B-SPL-07",
        needs=(
            VirtioFeature.RING_PACKED,
            VirtioFeature.EVENT_IDX | VirtioFeature.IN_ORDER,
            ProtocolFeature.MQ,
            VirtioFeature(1 << 55),
            Need.PROGRAM,
        ),
        absent=(ProtocolFeature.REPLY_ACK,),
        tags=frozenset({"ring", "slow"}),
        destructive=True,
        seconds=2.5,
        variants=("split", "packed"),
        manual="nobody can look inside",
    )
