"""Programs under test: good ones, and such as do not do what they should."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from vhostuser.testing.program import ProgramNotReady, StartedProgram

if TYPE_CHECKING:
    from pathlib import Path

    from vhostuser.testing.plugin import DeviceFactory, ProgramFactory

LISTENS = """
import os, signal, socket, sys, time
print("x" * int(os.environ.get("NOISE", "1")), file=sys.stderr, flush=True)
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
"""
WAITS = LISTENS + "signal.pause()"
STUBBORN = LISTENS.replace("sock.bind", "signal.signal(signal.SIGTERM, signal.SIG_IGN); sock.bind") + "signal.pause()"
BOUND_ONLY = "import socket, signal, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1]); signal.pause()"


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program, "{socket}")


def test_our_own_back_end_is_ready_when_it_is_started(vhost_user_device: DeviceFactory) -> None:
    program = vhost_user_device("rng")
    assert os.path.exists(program.socket_path)
    status, printed = program.stop()
    assert status == 0
    assert b"Traceback" not in printed


def test_each_has_its_own_socket(vhost_user_program: ProgramFactory) -> None:
    assert vhost_user_program(*python(WAITS)).socket_path != vhost_user_program(*python(WAITS)).socket_path


def test_a_program_that_says_much_is_not_stopped_by_it(vhost_user_program: ProgramFactory) -> None:
    program = vhost_user_program(*python(WAITS), environment={"NOISE": "300000"})
    status, printed = program.stop()
    assert (status, len(printed)) == (-15, 300_001)


def test_a_program_that_does_not_want_to_end_is_killed(vhost_user_program: ProgramFactory) -> None:
    program = vhost_user_program(*python(STUBBORN), timeout=1.5)
    assert program.stop()[0] == -9
    program.close()
    assert not os.path.exists(program.socket_path)


def test_a_program_that_ends_at_once_says_why(vhost_user_program: ProgramFactory) -> None:
    with pytest.raises(ProgramNotReady, match="status 3 before it listened: no disk"):
        vhost_user_program(*python("import sys; print('no disk', file=sys.stderr); sys.exit(3)"))


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="only Linux tells a socket that listens")
def test_a_program_that_binds_and_does_not_listen_is_not_ready(vhost_user_program: ProgramFactory) -> None:
    with pytest.raises(ProgramNotReady, match=r"nobody listens at .* after 1 s: it printed nothing"):
        vhost_user_program(*python(BOUND_ONLY), timeout=1)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        StartedProgram(["/nonexistent/program"], str(tmp_path / "socket"))
