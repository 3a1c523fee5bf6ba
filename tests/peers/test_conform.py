"""`vhost-user conform backend` on programs of other people, and on all that we serve ourselves, from end to end.

The suite waits more than it computes, so several targets are tested at once, all of them before the first test.
What is known against a target stands in ``known/``; whatever else is found fails here.  On a program of others it has
to be found twice: some of what they do is a race that is lost once in some hundred runs, and such a finding is told and
fails nothing.  On ours, once is too often.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from frontend.conformance.suite import load
from tests.peers.our_programs import VHOST_USER
from vhostuser.conformance import Verdict
from vhostuser.conformance.known import KnownIssues

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.peers.folder import PeersFolder

TARGETS = Path(__file__).parent / "targets.toml"
THEIRS = ("passt", "virtiofsd", "qemu-storage-daemon")
OURS = ("blk-native", "blk-python", "rng", "blk-thread")
RINGS = ("VR", "SPL", "PKD", "NOT", "STA", "INF", "RST", "HOR")
SELECTED: Mapping[str, tuple[str, ...]] = {
    "blk-thread": tuple(f"B-{group}-*" for group in RINGS),
    "blk-python": tuple(f"B-{group}-*" for group in (*RINGS, "MEM", "SLOT", "LOG")),
    "rng": ("no:B-PRG-*", "no:B-HOS-5[4-7]"),
}
"""What is asked of a target of which the rest is what another has too: the messages, and the program."""
AT_ONCE = 3
SECONDS = 400

pytestmark = pytest.mark.timeout(3 * SECONDS)


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that has ended.

    Attributes:
        status: of the command.
        said: all it printed.
        results: by the name of the case and the variant.
        left: processes that it left running.
        again: the same once more, of the cases alone that are a finding on a program of others; None without any.
    """

    status: int
    said: str
    results: Mapping[str, Mapping[str, Any]]
    left: list[str]
    again: Ran | None = None

    def findings(self) -> list[str]:
        """The cases that did not end as they should, by name."""
        return [name for name, result in self.results.items() if Verdict(result["verdict"]).bad]


@pytest.fixture(scope="session")
def runs(peers: PeersFolder, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Ran]:
    """Every target's run; the reports are kept in the folder that CONFORM_REPORTS names, if it does."""
    faulthandler.cancel_dump_traceback_later()  # this takes minutes, and hangs nowhere
    folder = Path(os.environ.get("CONFORM_REPORTS") or tmp_path_factory.mktemp("conform"))
    (folder / "again").mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(peers.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "XDG_CACHE_HOME": str(folder)}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = [name for pair in zip(OURS, THEIRS, strict=False) for name in pair] + list(OURS[len(THEIRS) :])
        return dict(zip(names, pool.map(lambda name: twice_if_need_be(name, folder, environment), names), strict=True))


def twice_if_need_be(name: str, folder: Path, environment: Mapping[str, str]) -> Ran:
    """Test one target, and what was found on a program of others once more."""
    ran = conform(name, SELECTED.get(name, ()), folder / name, environment)
    findings = ran.findings() if name in THEIRS else []
    return replace(ran, again=conform(name, findings, folder / "again" / name, environment)) if findings else ran


def conform(name: str, cases: Sequence[str], reports: Path, environment: Mapping[str, str]) -> Ran:
    """A run in a session of its own, so that whatever it leaves behind can be told from all else."""
    report = reports.with_suffix(".json")
    arguments = ["conform", "backend", "--targets", TARGETS, "--target", name, *cases]
    process = subprocess.Popen(
        [*VHOST_USER, *map(str, arguments), "--report", f"json={report}", "--report", f"html={reports}.html"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
        said, _ = process.communicate()
    told = json.loads(report.read_text())["runs"][0]["results"] if report.exists() else []
    results = {each["case"] + (f"[{each['variant']}]" if each["variant"] else ""): each for each in told}
    return Ran(process.returncode, said.decode(errors="replace"), results, in_session(process.pid))


def in_session(leader: int) -> list[str]:
    """What still runs in this session, by pid and name."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(text.rpartition(")")[0] + ")")
    return found


@pytest.mark.parametrize("name", THEIRS)
def test_what_is_known_is_said_once_and_of_cases_that_there_are(name: str) -> None:
    known = KnownIssues.parse((TARGETS.parent / f"known/{name}.toml").read_text())
    named = [entry.cases for entry in known.entries]
    assert {each.partition("[")[0] for each in named} <= load().cases.keys()
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", [*OURS, *THEIRS])
def test_a_run_ends_well_and_leaves_nothing_behind(runs: Mapping[str, Ran], name: str) -> None:
    ran = runs[name]
    if ran.again:
        print(f"found once by {name}, and to be understood: {', '.join(ran.findings())}\n{ran.said}")
    last = ran.again or ran
    if last.status:
        pytest.fail(f"status {last.status}\n{last.said.partition('Failures')[2] or last.said}", pytrace=False)
    assert ran.left + last.left == []


@pytest.mark.parametrize("name", OURS)
def test_ours_do_all_that_is_asked_of_them(runs: Mapping[str, Ran], name: str) -> None:
    """Recommendations too."""
    verdicts = {result["verdict"] for result in runs[name].results.values()}
    assert verdicts <= {"PASS", "REJECT", "SKIP", "UNSUPPORTED"}


@pytest.mark.parametrize("name", THEIRS)
def test_what_is_known_is_still_found(runs: Mapping[str, Ran], name: str) -> None:
    """A list that no longer fits would make the findings in docs/interop.md a rumour."""
    assert "XFAIL" in {result["verdict"] for result in runs[name].results.values()}
