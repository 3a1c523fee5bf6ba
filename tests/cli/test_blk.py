"""`vhost-user blk` against our own back-end, each in a process of its own."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from frontend.commands.blk_verify import differences, pattern
from tests.cli.conftest import DISK
from tests.cli.lying_disk import SIZE as LYING_SIZE
from tests.cli.lying_disk import WRONG_BYTE
from tests.cli.programs import LYING_DISK, VHOST_USER, Program, listening, surroundings, vhost_user
from tests.cli.terminal import on_terminal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DATA = random.Random(1).randbytes(300_001)


def blk(disk: Program, action: str, *options: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return vhost_user("blk", action, "--socket-path", disk.socket_path, *options, stdin=stdin)


# --- info ---


def test_info_is_a_table_of_80_columns(disk: Program) -> None:
    shown = blk(disk, "info").stdout.decode()
    for line in (
        "id            a disk",
        "size          8M, 16384 sectors of 512 bytes",
        "access        read and write",
        "queues        2",
        "FLUSH               yes      what was written is made durable on command",
        "REPLY_ACK             yes      a sender may ask for an acknowledgement:",
    ):
        assert line in shown.splitlines()
    assert re.search(r"^capacity +16384$", shown, re.MULTILINE)
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_info_as_json_has_features_by_name_and_the_configuration_space(disk: Program) -> None:
    found = json.loads(blk(disk, "info", "--json").stdout)
    assert (found["id"], found["size"], found["capacity_sectors"], found["queues"]) == ("a disk", DISK, DISK // 512, 2)
    assert (found["read_only"], found["block_size"]) == (False, 512)
    assert found["memory_slots"] > 0
    assert {"FLUSH", "DISCARD", "VERSION_1"} <= set(found["features"]["in_use"]) <= set(found["features"]["offered"])
    assert {"REPLY_ACK", "CONFIG"} <= set(found["protocol_features"]["in_use"])
    assert found["config"]["num_queues"] == 2
    assert "size_max" not in found["config"], "fields of features that are not offered mean nothing"


# --- read and write ---


@pytest.mark.parametrize(("offset", "size"), [(512, 1024), (777, 3), (1023, 2), (777, 300_001), (DISK - 5, 5)])
def test_what_is_written_anywhere_is_read_back_and_nothing_else_changes(disk: Program, offset: int, size: int) -> None:
    around = max(0, offset - 600)
    width = min(DISK, offset + size + 600) - around
    before = blk(disk, "read", "--offset", str(around), "--size", str(width)).stdout
    wrote = blk(disk, "write", "--offset", str(offset), stdin=DATA[:size])
    assert (wrote.returncode, wrote.stdout) == (0, b"")
    after = blk(disk, "read", "--offset", str(around), "--size", str(width)).stdout
    start = offset - around
    assert after == before[:start] + DATA[:size] + before[start + size :]


def test_files_are_copied_in_and_out(disk: Program, folder: Path) -> None:
    (folder / "in").write_bytes(DATA)
    wrote = blk(disk, "write", "--json", "--offset", "1M", folder / "in")
    read = blk(disk, "read", "--json", "--offset", "1M", "--size", str(len(DATA)), folder / "out")
    assert (folder / "out").read_bytes() == DATA
    assert (json.loads(wrote.stdout)["bytes"], json.loads(read.stdout)["bytes"]) == (len(DATA), len(DATA))


def test_without_a_size_the_whole_disk_is_read_and_json_keeps_out_of_the_data(disk: Program) -> None:
    read = blk(disk, "read", "--json")
    assert len(read.stdout) == DISK
    assert json.loads(read.stderr)["requests"] == DISK // 65536


def test_size_limits_what_is_taken_from_a_file(disk: Program, folder: Path) -> None:
    (folder / "in").write_bytes(b"x" * 1024)
    blk(disk, "write", "--offset", "2M", stdin=b"-" * 1024)
    assert blk(disk, "write", "--offset", "2M", "--size", "10", folder / "in").returncode == 0
    assert blk(disk, "read", "--offset", "2M", "--size", "12").stdout == b"x" * 10 + b"--"


@pytest.mark.parametrize(
    ("action", "options", "complaint"),
    [
        ("read", ["--offset", "8M", "--size", "1"], f"bytes {DISK} to {DISK + 1}: the disk ends at {DISK}; nothing"),
        ("read", ["--size", "9M"], f"bytes 0 to 9437184: the disk ends at {DISK}; nothing was read"),
        ("write", ["--offset", "8387584"], f"the disk is full: it ends at {DISK}; 0 bytes of the input were written"),
        ("write", ["--size", "4M"], "the input ended after 300001 bytes, --size asked for 4194304"),
        ("verify", ["--size", "9M"], f"9437184 bytes asked for, the disk has {DISK}; nothing was written"),
    ],
)
def test_a_range_that_does_not_fit_is_one_line_and_status_1(
    disk: Program, action: str, options: Sequence[str], complaint: str
) -> None:
    ran = blk(disk, action, *options, stdin=DATA)
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert ran.stderr.decode().startswith(f"Error: {complaint}")
    assert ran.stderr.count(b"\n") == 1


def test_a_file_that_does_not_fit_is_refused_before_anything_is_written(disk: Program, folder: Path) -> None:
    (folder / "in").write_bytes(DATA)
    start = DISK - 512
    blk(disk, "write", "--offset", str(start), stdin=b"-" * 512)
    ran = blk(disk, "write", "--offset", str(start), folder / "in")
    assert (ran.returncode, b"nothing was written" in ran.stderr) == (1, True)
    assert blk(disk, "read", "--offset", str(start)).stdout == b"-" * 512


def test_a_reader_that_has_seen_enough_ends_the_copy_quietly(disk: Program) -> None:
    command = [*VHOST_USER, "blk", "read", "--socket-path", str(disk.socket_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=surroundings()) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.read(1)
        ran.stdout.close()
        assert (ran.wait(5), ran.stderr.read()) == (1, b"")


def test_a_terminal_is_not_a_place_for_a_disk(disk: Program) -> None:
    status, shown, complaint = on_terminal("blk", "read", "--socket-path", disk.socket_path, stream="stdout")
    assert (status, shown) == (2, "")
    assert b"will not print a disk to a terminal: give a FILE" in complaint


def test_a_bar_is_drawn_on_a_terminal_only(disk: Program, folder: Path) -> None:
    where = ("--socket-path", disk.socket_path)
    status, shown, _ = on_terminal("blk", "read", *where, folder / "out", stream="stderr")
    assert (status, "read " in shown, "\x1b[" in shown) == (0, True, True)
    assert b"\x1b" not in blk(disk, "read").stderr


# --- verify ---


@pytest.mark.parametrize("memory", ["shm", "memfd"])
@pytest.mark.parametrize("notifier", ["eventfd", "pipe"])
def test_verify_covers_the_whole_disk_with_any_memory_and_notifier(disk: Program, memory: str, notifier: str) -> None:
    options = ("--memory", memory, "--notifier", notifier, "--queues", "2", "--depth", "64")
    ran = blk(disk, "verify", "--json", *options)
    found = json.loads(ran.stdout)
    assert (ran.returncode, found["mismatching_sectors"]) == (0, 0)
    assert found["size"] == found["write"]["bytes"] == found["read"]["bytes"] == DISK
    # One more request than blocks: the flush.
    assert (found["write"]["requests"], found["read"]["requests"]) == (DISK // 65536 + 1, DISK // 65536)
    assert blk(disk, "read", "--size", "100").stdout == pattern(found["seed"], 0, 100)


def test_verify_leaves_alone_what_is_behind_its_size_and_prints_its_seed(disk: Program) -> None:
    blk(disk, "write", "--offset", "1M", stdin=b"kept")
    ran = blk(disk, "verify", "--size", "1M", "--seed", "7", "--block-size", "4K", "--depth", "1")
    lines = ran.stdout.decode().splitlines()
    assert (lines[0], lines[-1]) == ("seed   7", "0 mismatches in 2048 sectors")
    assert lines[1].startswith("write  1 MiB in ")
    assert blk(disk, "read", "--offset", "1M", "--size", "4").stdout == b"kept"


def test_verify_finds_the_one_byte_that_is_wrong(folder: Path) -> None:
    with listening(folder, program=LYING_DISK) as liar:
        ran = blk(liar, "verify", "--seed", "1")
        found = json.loads(blk(liar, "verify", "--seed", "1", "--json").stdout)
    shown = ran.stdout.decode()
    assert ran.returncode == 1
    assert ran.stderr == b"Error: 1 sectors differ; to see it again: --seed 1\n"
    assert f"differs at byte {WRONG_BYTE} (sector {WRONG_BYTE // 512}): 0x" in shown
    assert shown.endswith(f"1 mismatches in {LYING_SIZE // 512} sectors\n")
    right = pattern(1, 0, LYING_SIZE)[WRONG_BYTE]
    assert found["first_mismatches"] == [{"offset": WRONG_BYTE, "expected": right, "found": right ^ 0xFF}]


def test_differences_are_counted_by_sector() -> None:
    expected = bytes(2048)
    found = bytearray(expected)
    found[3] = found[5] = found[2047] = 9
    assert [(each.offset, each.expected, each.found) for each in differences(expected, found, 4096)] == [
        (4096 + 3, 0, 9),
        (4096 + 2047, 0, 9),
    ]


@pytest.mark.parametrize("action", ["verify", "write"])
def test_a_read_only_disk_is_refused(folder: Path, action: str) -> None:
    (folder / "disk.img").write_bytes(b"as it was".ljust(1024))
    with listening(folder, "blk", "--blk-file", folder / "disk.img", "--read-only") as disk:
        ran = blk(disk, action, stdin=b"data")
        shown: dict[str, Any] = json.loads(blk(disk, "info", "--json").stdout)
    assert (ran.returncode, ran.stderr) == (1, b"Error: the disk is read-only; nothing was written\n")
    assert shown["read_only"] is True
    assert (folder / "disk.img").read_bytes() == b"as it was".ljust(1024)


# --- when there is no back-end, or none any more ---


@pytest.mark.parametrize("action", ["info", "read", "write", "verify"])
def test_nobody_at_the_socket_is_status_3_and_says_how_to_start_somebody(folder: Path, action: str) -> None:
    ran = vhost_user("blk", action, "--socket-path", folder / "none", "--timeout", "0.5")
    assert (ran.returncode, ran.stdout) == (3, b"")
    assert ran.stderr.decode() == (
        f"Error: cannot connect to {folder}/none: No such file or directory; is the back-end running?  "
        "`vhost-user backend --help` shows how to start one\n"
    )


def test_a_back_end_that_is_starting_is_waited_for(folder: Path) -> None:
    path = folder / "late.sock"
    command = [*VHOST_USER, "blk", "info", "--json", "--socket-path", str(path)]
    asking = subprocess.Popen(command, stdout=subprocess.PIPE, env=surroundings())
    with asking, listening(folder, "blk", "--memory-size", "1M") as disk:
        disk.socket_path.rename(path)
        out, _ = asking.communicate(timeout=20)
        path.rename(disk.socket_path)
    assert json.loads(out)["size"] == 1 << 20


def test_a_back_end_that_says_nothing_is_given_up_on(folder: Path) -> None:
    path = folder / "silent.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        ran = vhost_user("blk", "info", "--socket-path", path, "--timeout", "0.2")
    assert (ran.returncode, ran.stderr.decode()) == (
        3,
        f"Error: nothing came from the back-end at {path} for 0.2 s: does it serve another front-end?  "
        "--timeout waits longer\n",
    )


def test_a_back_end_that_hangs_up_is_status_3(folder: Path) -> None:
    path = folder / "rude.sock"
    command = [*VHOST_USER, "blk", "info", "--socket-path", str(path)]
    with socket.socket(socket.AF_UNIX) as rude:
        rude.bind(str(path))
        rude.listen()
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=surroundings()) as asking:
            rude.accept()[0].close()
            _, said = asking.communicate(timeout=20)
    assert (asking.returncode, said.decode().startswith(f"Error: the back-end at {path} is gone: ")) == (3, True)
    assert said.count(b"\n") == 1


def test_a_back_end_killed_in_the_middle_is_status_3(folder: Path) -> None:
    with listening(folder, "blk", "--memory-size", "8M") as disk:
        command = [*VHOST_USER, "-vv", "blk", "write", "--socket-path", str(disk.socket_path)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stderr=pipe, text=True, env=surroundings()) as writing:
            assert writing.stderr is not None
            for line in writing.stderr:  # it then waits for its input
                if "sent SET_STATUS  0xf" in line:
                    break
            disk.stop(signal.SIGKILL)
            _, said = writing.communicate("x" * 512, timeout=20)
    assert writing.returncode == 3
    assert f"Error: the back-end at {disk.socket_path} is gone: " in said


def test_a_path_that_cannot_be_a_sockets_is_status_3() -> None:
    ran = vhost_user("blk", "info", "--socket-path", "x" * 200)
    assert (ran.returncode, b"socket path of 200 bytes, at most" in ran.stderr) == (3, True)


@pytest.mark.parametrize(
    "options",
    [
        ["--memory", "file"],
        ["--notifier", "bell"],
        ["--depth", "0"],
        ["--block-size", "100"],
        ["--block-size", "1000"],
        ["--block-size", "2M"],
        ["--timeout", "0"],
        ["--queues", "none"],
    ],
)
def test_an_option_that_cannot_be_is_a_usage_error(options: Sequence[str]) -> None:
    ran = vhost_user("blk", "info", "--socket-path", "s", *options)
    assert (ran.returncode, f"Invalid value for '{options[0]}'" in ran.stderr.decode()) == (2, True)


def test_ctrl_c_is_status_130(folder: Path) -> None:
    path = folder / "silent.sock"
    command = [*VHOST_USER, "blk", "info", "--socket-path", str(path)]
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        asking = subprocess.Popen(command, stderr=subprocess.PIPE, env=surroundings())
        with asking, silent.accept()[0] as connection:
            connection.recv(12)  # its first message: it is where it can be interrupted
            asking.send_signal(signal.SIGINT)
            _, said = asking.communicate(timeout=20)
    assert (asking.returncode, said) == (130, b"Error: interrupted\n")


# --- guest memory that is a file ---


def test_guest_memory_may_be_a_given_file(disk: Program, tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.touch()
    os.truncate(ram, 16 << 20)
    done = blk(disk, "verify", "--pcram-file", ram)
    assert done.returncode == 0, done.stderr
    assert ram.stat().st_size == 16 << 20
    assert any(ram.read_bytes()), "rings and data stood in the file"


def test_a_file_too_small_to_be_guest_memory_is_named_as_such(disk: Program, tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.touch()
    os.truncate(ram, 1 << 20)
    done = blk(disk, "verify", "--pcram-file", ram)
    assert done.returncode == 1
    assert b"make the memory backend larger" in done.stderr
    assert ram.stat().st_size == 1 << 20, "never resized"


def test_an_empty_file_cannot_be_guest_memory(disk: Program, tmp_path: Path) -> None:
    (tmp_path / "ram").touch()
    done = blk(disk, "info", "--pcram-file", tmp_path / "ram")
    assert done.returncode == 2
    assert b"property 'size'" in done.stderr
