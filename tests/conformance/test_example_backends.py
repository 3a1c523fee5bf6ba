"""Cases about features that hardly anybody has pass on back-ends that have them, and none of them is skipped there."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from frontend.conformance.asking import ask
from frontend.conformance.stage import BackendStage
from frontend.conformance.suite import load
from frontend.conformance.targets import ProgramTarget, SocketTarget
from tests.conformance.backends.deviations import Deviation
from tests.conformance.backends.deviations import load as load_deviations
from tests.conformance.backends.extended import serve
from tests.conformance.runs import runner
from vhostuser.conformance.runner import Options
from vhostuser.conformance.selection import Selection

if TYPE_CHECKING:
    from vhostuser.conformance import Result

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(120)
userfaultfd = pytest.mark.skipif(
    not os.access("/dev/userfaultfd", os.R_OK | os.W_OK), reason="nobody may have a userfaultfd here"
)


async def results_of(words: str, *patterns: str) -> list[Result]:
    """These cases, on one process of an example back-end."""
    command = [sys.executable, "-m", *f"tests.conformance.backends.{words}".split(), "{socket}"]
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="vhu-", dir="/tmp") as name:
        (Path(name) / "scratch").mkdir()
        async with trio.open_nursery() as nursery:
            target = ProgramTarget(command, Path(name), nursery, ahead=False, start=30.0)
            try:
                profile = await ask(target, patience=20.0)
                stage = BackendStage(target, profile, patience=20.0)
                turns = Selection(patterns=patterns).turns(load())
                await runner(target, stage, Options(reuse=True, seconds=60.0)).run(turns, results)
            finally:
                await target.close()
    return results


@pytest.mark.parametrize(
    ("words", "patterns", "count"),
    [
        ("talkative", ["B-CH-*"], 15),
        ("stateful", ["B-DS-*"], 17),
        ("stateful --own-pipe", ["B-DS-*"], 17),
        ("messages card", ["B-NET-*", "no:B-NET-01"], 3),
        ("messages keys", ["B-CRY-*"], 4),
        ("messages disk", ["B-STS-*", "B-RST-*"], 17),
        ("rare", ["B-XEN-*"], 3),
        ("resuming", ["B-INF-*", "no:B-INF-11", "no:B-INF-13", "B-VR-14"], 30),
        ("sharing", ["B-OBJ-*", "B-SHM-*", "B-CH-0*"], 26),
        pytest.param("missing", ["B-PC-*", "no:B-PC-02"], 12, marks=userfaultfd),
    ],
    ids=["talkative", "stateful", "stateful-own-pipe", "card", "keys", "disk", "xen", "resuming", "sharing", "missing"],
)
async def test_they_pass(monkeypatch: pytest.MonkeyPatch, words: str, patterns: list[str], count: int) -> None:
    monkeypatch.chdir(ROOT)
    results = await results_of(words, *patterns)
    assert {
        f"{each.name} {each.verdict.value} {each.reason}" for each in results if each.verdict.value != "PASS"
    } == set()
    assert len(results) == count


DEVIATIONS = load_deviations()
POSTCOPY = "B-PC-"
CAUGHT = ("FAIL", "WARN", "WEDGED", "CRASH")


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=[f"{each.case}-{each.what}" for each in DEVIATIONS])
async def test_each_deviation_is_found(deviation: Deviation, tmp_path: Path) -> None:
    if deviation.case.startswith(POSTCOPY) and not os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        pytest.skip("nobody may have a userfaultfd here")
    path = f"{tmp_path}/s"
    results: list[Result] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, deviation.make, path)
        target = SocketTarget(path)
        profile = await ask(target)
        turns = Selection(patterns=[deviation.case]).turns(load())[:1]
        await runner(target, BackendStage(target, profile, patience=1.0), Options()).run(turns, results)
        nursery.cancel_scope.cancel()
    (result,) = results
    assert result.verdict.value in CAUGHT, result.reason
