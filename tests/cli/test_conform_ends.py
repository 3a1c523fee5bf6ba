"""Whatever a target does, `vhost-user conform backend` ends, says what was seen, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conforming import SECONDS, Register, conform
from tests.cli.programs import VHOST_USER, surroundings

pytestmark = pytest.mark.timeout(90)
CASES = ("B-HDR-01", "B-OWN-01", "B-MEM-01[split]", "B-HOS-13")
"""One that asks, two that set up, one that is hostile."""
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="orphans are found in /proc")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def register(tmp_path: Path) -> Register:
    return Register(tmp_path / "register")


# --- targets that turn awful once features are set ---


@pytest.mark.parametrize(
    ("behaviour", "status", "verdict"),
    [
        ("later hangs", 4, "WEDGED"),
        ("later floods", 1, "FAIL"),
        ("later says garbage", 1, "FAIL"),
        ("later cuts off", 1, "FAIL"),
        ("raises at features", 4, "CRASH"),
        ("dies of features", 4, "CRASH"),
    ],
)
def test_a_target_that_turns_awful_fails_the_cases_that_saw_it(
    register: Register, tmp_path: Path, behaviour: str, status: int, verdict: str
) -> None:
    report = tmp_path / "report.json"
    found, out, err = conform("backend", "--exec", register.command(behaviour), "--report", f"json={report}", *CASES)
    results = json.loads(report.read_text())["runs"][0]["results"]
    assert (found, err) == (status, "")
    assert len(results) == len(CASES)
    assert verdict in {each["verdict"] for each in results}
    assert "ERROR" not in {each["verdict"] for each in results}
    named = {line.split()[1] for line in out.partition("Failures")[2].splitlines() if line.startswith(verdict)}
    assert named == {name_of(each) for each in results if each["verdict"] == verdict}
    assert register.entries()
    assert register.left() == []


def name_of(result: dict[str, str]) -> str:
    return f"{result['case']}[{result['variant']}]" if result["variant"] else result["case"]


@needs_proc
def test_a_target_that_goes_into_the_background_is_refused_and_ended(register: Register) -> None:
    status, _, err = conform("backend", "--exec", register.command("daemonises"), *CASES)
    assert (status, "it has to stay in front" in " ".join(err.split())) == (3, True)
    assert register.entries()
    assert register.left() == []


# --- interrupted ---


def interrupted(register: Register, behaviour: str, number: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Run it, and send a signal as soon as the target listens; exit status and stdout."""
    os.mkfifo(register.path)
    command = [*VHOST_USER, "conform", "backend", "--alone", "--exec", register.command(behaviour), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=surroundings()) as process:
        said = register.path.read_text()  # waits for somebody who writes there
        register.path.unlink()
        register.path.write_text(said)
        process.send_signal(number)
        out, _ = process.communicate(timeout=SECONDS)
    return process.returncode, out.decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_nobody_answers_ends_it(register: Register, number: signal.Signals) -> None:
    status, _ = interrupted(register, "hangs", number)
    assert status == 130
    assert register.entries()
    assert register.left() == []


def test_a_signal_while_the_target_is_deaf_ends_it(register: Register) -> None:
    status, _ = interrupted(register, "is deaf", signal.SIGINT)
    assert status == 130
    assert register.left() == []


def test_a_hangup_is_ignored_where_it_was_to_be_ignored(register: Register) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        status, out = interrupted(register, "good", signal.SIGHUP, "--reuse", "B-HDR-01")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (status, "1 results: 1 PASS" in out) == (0, True)
    assert register.left() == []
