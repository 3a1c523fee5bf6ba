"""`vhost-user conform`: how it is told what to do, what it says, and how it ends, whatever the target does."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from tests.cli.conforming import SECONDS, against, conform
from tests.cli.programs import VHOST_USER, listening, surroundings
from tests.cli.terminal import on_terminal
from tests.conformance.runs import awful_line

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)
HEADER_CASES = ("B-HDR-01", "B-HDR-02", "B-HDR-03")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What failed last time is nobody else's business."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- how it ends ---


def test_zero_when_nothing_fails() -> None:
    status, out, err = against("good", *HEADER_CASES)
    assert (status, err) == (0, "")
    assert "HDR  Header and framing\n" in out
    assert "  PASS         B-HDR-01 A reply repeats the code of its request\n" in out
    assert "3 results: 3 PASS; " in out.splitlines()[-1]


def test_one_when_something_fails_and_how_to_see_it_again() -> None:
    status, out, _ = against("is of version 2", *HEADER_CASES)
    assert status == 1
    assert "FAIL         B-HDR-03" in out
    (replay,) = (line for line in out.splitlines() if line.startswith("  again"))
    words = shlex.split(replay)
    assert words[1:4] == ["vhost-user", "conform", "backend"]
    assert words[4:] == ["--exec", awful_line("is of version 2"), "B-HDR-03"]
    assert "GET_FEATURES" in out.partition("Failures")[2]  # the wire log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["B-NOPE-*"], "no case is selected"),
        (["--report", "pdf=x"], "KIND is one of html, json, junit, markdown, tap, text"),
        (["--report", "json"], "expected KIND=PATH"),
        (["--report", "json=/nowhere/at/all"], "cannot write into /nowhere/at"),
        (["--socket-path", "x"], "give one of --exec, --socket-path, --fd and --target"),
        (["--target", "x"], "--targets FILE.toml and --target NAME belong together"),
        (["--explain", "B-NOPE-01"], "there is no case B-NOPE-01"),
        (["--level", "most"], "Invalid value for '--level'"),
    ],
)
def test_two_when_it_was_called_wrongly(arguments: list[str], said: str) -> None:
    status, out, err = against("good", *arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_two_when_the_command_has_no_place_for_a_socket() -> None:
    status, _, err = conform("backend", "--exec", "daemon --socket-path /run/x.sock")
    assert status == 2
    assert "it has to say where the socket goes: {socket} or {fd}" in err
    assert conform("backend", "--exec", "daemon '")[0] == 2


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("dies", "it ended with status 1 before it listened; it printed:\nno configuration file"),
        ("says garbage", "the target did not start: it does not answer: GET_FEATURES"),
        ("cuts off", "the target did not start: it does not answer"),
        ("floods", "the target did not start: it does not answer"),
    ],
)
def test_three_when_the_target_does_not_start(behaviour: str, said: str) -> None:
    status, _, err = against(behaviour)
    assert status == 3
    assert said in err


def test_three_when_there_is_no_such_program() -> None:
    status, _, err = conform("backend", "--exec", "/nowhere/to-be-found {socket}")
    assert (status, "/nowhere/to-be-found: No such file or directory" in err) == (3, True)


def test_four_when_it_crashes() -> None:
    status, out, _ = against("dies of features", "B-FEAT-0[1-4]")
    assert status == 4
    assert "the target was ended by SIGKILL" in out


def test_a_signal_ends_a_run_with_its_reports_and_nothing_is_left(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [*VHOST_USER, "conform", "backend", "--exec", awful_line("good"), "--report", f"json={report}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=surroundings()) as process:
        assert process.stdout is not None
        while b"PASS" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (130, b"")
    assert b"INTERRUPTED before the end" in out
    run = json.loads(report.read_text())["runs"][0]
    assert run["interrupted"] is True
    assert run["results"][0]["verdict"] == "PASS"


# --- targets ---


def test_a_target_that_somebody_else_runs(tmp_path: Path) -> None:
    with listening(tmp_path, "rng") as program:
        status, out, err = conform("backend", "--socket-path", program.socket_path, *HEADER_CASES)
        assert (status, err) == (0, "")
        assert "  device             rng\n" in out
        assert program.stop()[0] == 0


def test_our_own_back_end_with_an_inherited_socket() -> None:
    command = f"{shlex.join(VHOST_USER)} backend rng --fd {{fd}}"
    status, out, _ = conform("backend", "--exec", command, "--reuse", *HEADER_CASES)
    assert (status, "3 results: 3 PASS" in out) == (0, True)


def test_a_connected_socket_is_good_for_one_case() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            backend = subprocess.Popen(
                [*VHOST_USER, "backend", "rng", "--fd", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=surroundings(),
            )
        fd = ours.fileno()
        refused = conform("backend", "--fd", str(fd), *HEADER_CASES, pass_fds=[fd])
        status, out, _ = conform("backend", "--fd", str(fd), "B-HDR-01", pass_fds=[fd])
    with backend:  # it has lost its front-end, and ends
        assert backend.wait(SECONDS) == 0
    assert (refused[0], "name one case, found 3" in refused[2]) == (2, True)
    assert (status, "1 results: 1 PASS" in out) == (0, True)


def test_a_descriptor_that_is_no_connected_socket(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        status, _, err = conform("backend", "--fd", str(file.fileno()), "B-HDR-01", pass_fds=[file.fileno()])
    assert (status, "expected a connected unix stream socket" in err) == (2, True)


TARGETS = """
[targets.bad]
exec = {command}
type = "rng"
prepare = ["touch {{scratch}}/prepared"]
known-issues = "known.toml"
timeout = 5
alone = true
"""


def test_a_target_by_name_with_its_known_issues(tmp_path: Path) -> None:
    targets = tmp_path / "targets.toml"
    targets.write_text(TARGETS.format(command=json.dumps(awful_line("is of version 2"))))
    (tmp_path / "known.toml").write_text('[[known]]\ncases = "B-HDR-03"\nreason = "the next version of all"\n')
    status, out, _ = conform("backend", "--targets", targets, "--target", "bad", *HEADER_CASES)
    assert status == 0
    assert "2 PASS, 1 XFAIL" in out
    assert "the next version of all" in out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[targets.other]\nexec = 'x {socket}'", "found no [targets.bad]; there are other"),
        ("[targets.bad]\ncolour = 'red'", "found colour, expected one of exec"),
        ("[targets.bad]\nexec = 1", "exec cannot be 1"),
        ("[targets.bad]\ntimeout = 1", "it needs one of exec and socket-path"),
        ("[targets.bad]\nexec = 'x {socket}'\nknown-issues = 'none.toml'", "none.toml"),
        ("[targets.bad", "targets.toml: Expected"),
    ],
)
def test_a_definition_that_makes_no_sense_is_a_usage_error(tmp_path: Path, text: str, said: str) -> None:
    targets = tmp_path / "targets.toml"
    targets.write_text(text)
    status, _, err = conform("backend", "--targets", targets, "--target", "bad")
    assert status == 2
    assert said in " ".join(err.split())


@pytest.mark.parametrize(
    ("prepare", "said"),
    [("/nowhere/tool", "/nowhere/tool: No such file"), ("ls /nowhere/at-all", "ls /nowhere/at-all ended with status")],
)
def test_what_cannot_be_prepared_does_not_start(tmp_path: Path, prepare: str, said: str) -> None:
    targets = tmp_path / "targets.toml"
    targets.write_text(f"[targets.bad]\nexec = {json.dumps(awful_line('good'))}\nprepare = ['{prepare}']")
    status, _, err = conform("backend", "--targets", targets, "--target", "bad")
    assert (status, said in err) == (3, True)


# --- reports ---


def test_reports_of_every_kind_and_once_more(tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"report.{kind}" for kind in ("html", "json", "junit", "tap")}
    asked = [word for kind, path in paths.items() for word in ("--report", f"{kind}={path}")]
    status, out, err = against("is of version 2", *HEADER_CASES, *asked, "--report", "text=-")
    assert status == 1
    assert "Conformance of a backend" in out
    assert "B-HDR-03" in err  # the screen gives way to the report
    assert ElementTree.parse(paths["junit"]).getroot().find(".//failure") is not None
    assert paths["tap"].read_text().startswith("TAP version 14")
    assert "<html" in paths["html"].read_text()
    status, again, _ = conform("report", paths["json"], "--report", "text=-")
    assert (status, again) == (0, out)
    assert conform("report", paths["tap"], "--report", "text=-")[0] == 2


def test_what_failed_is_remembered(cache: Path) -> None:
    against("is of version 2", *HEADER_CASES)
    assert [path.suffix for path in (cache / "python-vhost-user" / "conform").iterdir()] == [".json"]
    _, out, _ = against("is of version 2", *HEADER_CASES, "--failed-first", "--list")
    assert [line.split()[0] for line in out.splitlines()] == ["B-HDR-03", "B-HDR-01", "B-HDR-02"]


def test_on_a_terminal_there_is_colour_and_progress() -> None:
    status, shown, _ = on_terminal("conform", "backend", "--exec", awful_line("good"), "B-HDR-01", stream="stdout")
    assert status == 0
    assert "\x1b[32mPASS" in shown
    assert "1 of 1" in shown or "PASS" in shown


# --- what there is ---


def test_list_and_explain_need_no_target() -> None:
    status, out, _ = conform("backend", "--list", "B-HDR-0[12]")
    assert (status, [line.split()[0] for line in out.splitlines()]) == (0, ["B-HDR-01", "B-HDR-02"])
    status, out, _ = conform("backend", "--list", "--json", "B-HDR-01")
    assert json.loads(out)[0]["level"] == "must"
    status, out, _ = conform("backend", "--explain", "b-hdr-05")
    assert status == 0
    assert "needs     protocol feature REPLY_ACK" in out


def test_coverage_counts_every_requirement(tmp_path: Path) -> None:
    status, out, _ = conform("coverage")
    assert status == 0
    assert out.splitlines()[0].split() == ["there", "tested", "manual", "missing"]
    assert out.splitlines()[-1].split()[1] == "474"
    report = tmp_path / "report.json"
    against("is of version 2", *HEADER_CASES, "--report", f"json={report}")
    found = json.loads(conform("coverage", report, "--json")[1])["requirements"]
    assert found["B-HDR-01"] == {"state": "tested", "run": True, "passed": True}
    assert found["B-HDR-03"] == {"state": "tested", "run": True, "passed": False}
    _, out, _ = conform("coverage", report)
    (header,) = (line.split() for line in out.splitlines() if line.startswith("HDR"))
    assert header[-2:] == ["3", "2"]
    assert conform("coverage", sys.executable)[0] in (1, 2)
