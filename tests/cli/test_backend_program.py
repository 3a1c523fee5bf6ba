"""The "Backend program conventions" of the vhost-user document, and how a back-end starts and ends."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from frontend import BlkDriver, open_device
from tests.cli.programs import VHOST_USER, inheriting, listening, started, vhost_user
from tests.engines import needs_native
from vhostuser.memory import guard

if TYPE_CHECKING:
    from collections.abc import Sequence

MIB = 1 << 20
A_DISK = ("--memory-size", "1M")


@pytest.mark.parametrize(
    ("arguments", "capabilities"),
    [
        (["blk"], {"type": "block", "features": ["read-only", "blk-file"]}),
        (["blk", "--socket-path", "s", "--fd", "3"], {"type": "block", "features": ["read-only", "blk-file"]}),
        (["rng"], {"type": "rng", "features": []}),
        (["echo"], {"type": "net", "features": []}),
    ],
)
def test_capabilities_are_json_whatever_else_is_asked(arguments: Sequence[str], capabilities: object) -> None:
    ran = vhost_user("backend", *arguments, "--print-capabilities")
    assert (ran.returncode, json.loads(ran.stdout)) == (0, capabilities)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rng"], "give one of --socket-path and --fd"),
        (["rng", "--socket-path", "s", "--fd", "3"], "give one of --socket-path and --fd"),
        (["rng", "--fd", "-1"], "-1 is not in the range"),
        (["blk", "--socket-path", "s"], "give one of --blk-file, --memory-size and --null"),
        (["blk", "--fd", "3", "--blk-file", "/dev/null", "--memory-size", "1M"], "give one of --blk-file"),
        (["blk", "--fd", "3", "--blk-file", "not/there"], "'not/there' does not exist"),
        (["blk", "--fd", "3", "--memory-size", "lots"], "found size 'lots', expected a number and a suffix"),
    ],
)
def test_a_wrong_call_is_a_usage_error(arguments: Sequence[str], complaint: str) -> None:
    ran = vhost_user("backend", *arguments)
    assert (ran.returncode, complaint in ran.stderr.decode()) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_with_0_and_removes_its_socket(folder: Path, number: int) -> None:
    path = folder / "disk.sock"
    with started([*VHOST_USER, "backend", "blk", *A_DISK, "--socket-path", str(path)], path) as program:
        async with open_device(path, BlkDriver) as disk:
            assert disk.size == MIB
            assert path.is_socket()
        assert program.stop(number) == (0, "")
    assert not path.exists()


async def test_sigterm_ends_it_while_a_front_end_is_connected(folder: Path) -> None:
    with listening(folder, "blk", *A_DISK) as program:
        async with open_device(program.socket_path, BlkDriver) as disk:
            await disk.read(0, 1)
            assert await trio.to_thread.run_sync(program.stop) == (0, "")


async def test_it_stays_in_the_foreground(folder: Path) -> None:
    """It must not daemonise: whoever started it is its parent, and shares its process group."""
    with listening(folder, "blk", *A_DISK) as program:
        async with open_device(program.socket_path, BlkDriver):
            pid = program.process.pid
            assert os.getpgid(pid) == os.getpgid(0)
            assert os.getsid(pid) == os.getsid(0)
            assert program.process.poll() is None


async def test_a_listening_fd_serves_one_front_end_after_the_other(folder: Path) -> None:
    with listening(folder, "blk", *A_DISK) as program:
        async with open_device(program.socket_path, BlkDriver) as disk:
            await disk.write(1, b"kept".ljust(512))
        async with open_device(program.socket_path, BlkDriver) as disk:
            assert (await disk.read(1, 1)).startswith(b"kept")
        assert program.stop() == (0, "")
        assert program.socket_path.is_socket()  # not its own, so not removed


def test_a_connected_fd_is_served_until_the_front_end_hangs_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, inheriting(theirs, "rng") as program:
        theirs.close()
        ours.close()
        assert program.wait() == (0, "")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--blk-file", "/"], "cannot open the disk image: [Errno 21] Is a directory: '/'"),
        (["--memory-size", "7E"], "there is no room for a disk of 8070450532247928832 bytes in memory"),
    ],
)
def test_a_disk_that_cannot_be_is_one_line_and_status_1(options: Sequence[str], complaint: str) -> None:
    ran = vhost_user("backend", "blk", "--socket-path", "never.sock", *options)
    assert (ran.returncode, ran.stderr.decode()) == (1, f"Error: {complaint}\n")
    assert not Path("never.sock").exists()


def test_a_socket_path_that_is_a_file_is_left_alone(folder: Path) -> None:
    precious = folder / "precious"
    precious.write_text("data")
    ran = vhost_user("backend", "rng", "--socket-path", precious)
    assert (ran.returncode, b"exists and is not a socket" in ran.stderr) == (1, True)
    assert precious.read_text() == "data"


def test_a_socket_somebody_listens_at_is_left_alone(folder: Path) -> None:
    with listening(folder, "rng") as program:
        ran = vhost_user("backend", "rng", "--socket-path", program.socket_path)
        assert (ran.returncode, b"somebody listens here already" in ran.stderr) == (1, True)


def test_a_dead_socket_is_replaced(folder: Path) -> None:
    path = folder / "rng.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with started([*VHOST_USER, "backend", "rng", "--socket-path", str(path)], path) as program:
        ran = vhost_user("rng", "read", "--socket-path", path)
        assert (ran.returncode, len(ran.stdout), ran.stderr) == (0, 32, b"")
        assert program.stop() == (0, "")


@pytest.mark.parametrize(("fd", "reason"), [("0", "not a socket"), ("99", "Bad file descriptor")])
def test_an_fd_that_is_no_socket_is_one_line_and_status_1(fd: str, reason: str) -> None:
    ran = vhost_user("backend", "rng", "--fd", fd)
    assert ran.returncode == 1
    assert ran.stderr.decode().startswith(f"Error: cannot serve file descriptor {fd}: ")
    assert reason in ran.stderr.decode()


async def test_sighup_tells_the_front_end_that_the_disk_has_grown(folder: Path) -> None:
    image = folder / "disk.img"
    image.write_bytes(bytes(MIB))
    with listening(folder, "blk", "--blk-file", image) as program:
        async with open_device(program.socket_path, BlkDriver) as disk:
            assert disk.size == MIB
            os.truncate(image, 2 * MIB)
            changed = disk.link.config_changed
            program.process.send_signal(signal.SIGHUP)
            with trio.fail_after(5):
                await changed.wait()
            assert disk.size == 2 * MIB


async def test_a_read_only_disk_keeps_its_image(folder: Path) -> None:
    image = folder / "disk.img"
    image.write_bytes(b"as it was".ljust(512))
    image.chmod(0o444)
    with listening(folder, "blk", "--blk-file", image, "--read-only") as program:
        async with open_device(program.socket_path, BlkDriver) as disk:
            assert disk.read_only
            with pytest.raises(OSError, match="OUT at sector 0: the device answered IOERR"):
                await disk.write(0, bytes(512))
    assert image.read_bytes().startswith(b"as it was")


# --- what runs the queues ---


@pytest.mark.parametrize(
    ("engine", "chosen"),
    [
        pytest.param("", "native (without the GIL)", marks=needs_native),
        ("python", "task (the compiled engine does not run here: VHOST_USER_ENGINE is python)"),
    ],
)
def test_the_environment_chooses_what_runs_a_disks_queues(
    monkeypatch: pytest.MonkeyPatch, engine: str, chosen: str
) -> None:
    monkeypatch.setenv("VHOST_USER_ENGINE", engine)
    ours, theirs = socket.socketpair()
    with ours, inheriting(theirs, "blk", *A_DISK, program=(*VHOST_USER, "-v", "backend")) as program:
        theirs.close()
        ours.close()
        status, said = program.wait()
    assert status == 0
    assert f"queues are served by: {chosen}\n" in said


def test_a_compiled_loop_is_not_for_those_who_want_python() -> None:
    wanted = ("--socket-path", "never.sock", "--serve", "native")
    ran = vhost_user("backend", "blk", *A_DISK, *wanted, env={"VHOST_USER_ENGINE": "python"})
    assert ran.returncode == 2
    assert "Error: --serve native: the compiled engine does not run here: VHOST_USER_ENGINE is python\n" in (
        ran.stderr.decode()
    )
    assert not Path("never.sock").exists()


@needs_native
def test_a_network_device_is_there_for_those_who_look(folder: Path) -> None:
    with listening(folder, "echo", "--packed") as program:
        ran = vhost_user("probe", program.socket_path, "--json")
        assert program.stop() == (0, "")
    assert ran.returncode == 0
    assert "RING_PACKED" in ran.stdout.decode()


def test_a_network_device_needs_the_compiled_engine() -> None:
    ran = vhost_user("backend", "echo", "--socket-path", "never.sock", env={"VHOST_USER_ENGINE": "python"})
    why = b"Error: the compiled engine does not run here: VHOST_USER_ENGINE is python\n"
    assert (ran.returncode, ran.stderr) == (1, why)


@pytest.mark.parametrize("serve", ["task", "thread", pytest.param("native", marks=needs_native)])
async def test_a_mapped_image_is_served_until_its_end_and_written_to_its_file(folder: Path, serve: str) -> None:
    image = folder / "disk.img"
    image.write_bytes(bytes(MIB))
    with listening(folder, "blk", "--blk-file", image, "--mmap", "--serve", serve) as program:
        async with open_device(program.socket_path, BlkDriver) as disk:
            await disk.write(disk.capacity - 1, b"the last".ljust(512))
            assert (await disk.read(disk.capacity - 2, 2))[512:].startswith(b"the last")
        assert program.stop() == (0, "")
    assert image.read_bytes()[-512:].startswith(b"the last")


@pytest.mark.skipif(not guard.SUPPORTED, reason="holes in mapped files are survived on Linux, x86_64 and arm64 only")
@pytest.mark.parametrize("serve", ["task", "thread", pytest.param("native", marks=needs_native)])
async def test_a_mapped_image_that_is_cut_short_is_an_io_error_and_no_sigbus(folder: Path, serve: str) -> None:
    image = folder / "disk.img"
    image.write_bytes(b"x" * MIB)
    with listening(folder, "blk", "--blk-file", image, "--mmap", "--serve", serve) as program:
        async with open_device(program.socket_path, BlkDriver) as disk:
            assert await disk.read(1000, 1) == b"x" * 512
            os.truncate(image, 4096)
            for sector in (1000, 0):  # the first touches what is gone; from then on nothing of it is trusted
                with pytest.raises(OSError, match=f"IN at sector {sector}: the device answered IOERR"):
                    await disk.read(sector, 1)
            with pytest.raises(OSError, match="OUT at sector 0: the device answered IOERR"):
                await disk.write(0, bytes(512))
        async with open_device(program.socket_path, BlkDriver) as disk:
            assert disk.size == MIB
        status, said = program.stop()
    assert status == 0
    assert "IN at sector 0 failed: [Errno 5] the image was cut short, or its disk failed, while it was mapped" in said


async def test_twice_verbose_logs_each_message_with_its_descriptors(folder: Path) -> None:
    with listening(folder, "rng", program=(*VHOST_USER, "-vv", "backend")) as program:
        ran = await trio.to_thread.run_sync(vhost_user, "-vv", "rng", "read", "--socket-path", program.socket_path)
        status, said = program.stop()
    assert (status, ran.returncode) == (0, 0)
    assert "DEBUG vhostuser.messages: received SET_MEM_TABLE  1 region: guest " in said
    assert "DEBUG frontend.messages: sent SET_MEM_TABLE  1 region: guest " in ran.stderr.decode()
    assert "DEBUG vhostuser.messages: sent ack to SET_MEM_TABLE  ok" in said
