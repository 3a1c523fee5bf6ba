"""The helpers that run peers: nothing is left behind, and a failure tells why."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.peers.programs import PeerError, listening_at, run_peer, wait_connectable

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.qemu import Guest

LISTEN_THEN_STAY = """
import signal, socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    listener.listen()
    signal.pause()
"""
DEAF = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'deaf'); signal.pause()"


def python(script: str, *arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-c", script, *arguments]


async def test_a_program_is_gone_after_the_block(peer_folder: Path) -> None:
    async with run_peer(["sleep", "1000"], log=peer_folder / "log") as peer:
        assert peer.process.poll() is None
    assert peer.process.returncode == -signal.SIGTERM


async def test_a_program_that_ignores_the_polite_signal_is_killed(peer_folder: Path) -> None:
    async with run_peer(python(DEAF), log=peer_folder / "log", console=True, grace=0.01) as peer:
        assert peer.process.stdout is not None
        assert await peer.process.stdout.receive_some() == b"deaf"
    assert peer.process.returncode == -signal.SIGKILL


async def test_what_a_killed_program_has_started_is_killed_with_it(peer_folder: Path) -> None:
    """Parent and child hold a pipe's write end, and the pipe ends when both are gone."""
    read_end, write_end = os.pipe()
    child = "import os, signal, sys; os.write(int(sys.argv[1]), b'deaf'); signal.pause()"
    script = f"import subprocess, sys; subprocess.call([sys.executable, '-c', {child!r}, sys.argv[1]], close_fds=False)"
    async with trio.lowlevel.FdStream(read_end) as pipe:
        log = peer_folder / "log"
        command = python(script, str(write_end))
        async with run_peer(command, log=log, pass_fds=[write_end], stop=signal.SIGCONT, grace=0):
            os.close(write_end)
            assert await pipe.receive_some() == b"deaf"
        with trio.fail_after(5):
            assert await pipe.receive_some() == b""


async def test_a_program_is_gone_although_the_block_was_cancelled(peer_folder: Path) -> None:
    with trio.CancelScope() as scope:
        async with run_peer(["sleep", "1000"], log=peer_folder / "log") as peer:
            scope.cancel()
            await trio.sleep_forever()
    assert peer.process.returncode == -signal.SIGTERM


async def test_a_failing_block_shows_what_the_program_said(
    peer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        async with run_peer(python("print('the reason')"), log=peer_folder / "log") as peer:
            await peer.process.wait()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert "said: the reason" in capsys.readouterr().err


async def test_a_program_becomes_connectable(peer_folder: Path) -> None:
    path = peer_folder / "a.sock"
    async with run_peer(python(LISTEN_THEN_STAY, path), log=peer_folder / "log") as peer:
        await wait_connectable(path, peer)


async def test_waiting_for_a_program_that_has_ended_fails_with_its_status_and_words(peer_folder: Path) -> None:
    path = peer_folder / "a.sock"
    async with run_peer(python("import sys; sys.exit('no disk')"), log=peer_folder / "log") as peer:
        with pytest.raises(PeerError, match=r"found exit status 1, expected a listener at .*\n.*no disk"):
            await wait_connectable(path, peer)


async def test_waiting_for_a_program_that_never_listens_ends(peer_folder: Path) -> None:
    path = peer_folder / "a.sock"
    async with run_peer(["sleep", "1000"], log=peer_folder / "log") as peer:
        with pytest.raises(PeerError, match=r"found no listener at .* after 0.05 s"):
            await wait_connectable(path, peer, seconds=0.05)


def test_a_listening_path_is_gone_afterwards(peer_folder: Path) -> None:
    path = peer_folder / "a.sock"
    with listening_at(path):
        assert path.is_socket()
    assert not path.exists()


async def test_a_guest_that_does_not_end_is_killed(guest: Guest, peer_folder: Path) -> None:
    with pytest.raises(PeerError, match=r"found the guest still running after 0.5 s"):
        await guest.run("sleep 1000", peer_folder, seconds=0.5)


async def test_a_qemu_that_refuses_its_arguments_is_quoted(guest: Guest, peer_folder: Path) -> None:
    with pytest.raises(PeerError, match=r"found exit status 1, expected GUEST-RESULT(.*\n)*.*no-such-device"):
        await guest.run("true", peer_folder, devices=["-device", "no-such-device"])
