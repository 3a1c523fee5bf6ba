"""`vhost-user probe` against our own back-ends, each in a process of its own, and against nobody."""

from __future__ import annotations

import json
import re
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import DISK
from tests.cli.programs import Program, listening, vhost_user
from tests.cli.terminal import on_terminal
from tests.frontend.strangers import FEATURES, number, reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def probed(*arguments: str | Path) -> tuple[int, str, str]:
    ran = vhost_user("probe", *arguments)
    return ran.returncode, ran.stdout.decode(), ran.stderr.decode()


def report_of(program: Program) -> dict[str, Any]:
    status, said, _ = probed("--json", program.socket_path)
    assert status == 0
    found: dict[str, Any] = json.loads(said)
    return found


@contextmanager
def saying(folder: Path, *answers: bytes) -> Iterator[Path]:
    """Somebody who says all of this at once to the one who comes, and then hangs up."""
    path = folder / "odd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionResetError):  # whoever has heard enough leaves the rest unread
                connection.sendall(b"".join(answers))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


# --- for people ---


def test_a_disk_is_shown_in_80_columns(disk: Program) -> None:
    status, shown, errors = probed(disk.socket_path)
    assert (status, errors) == (0, "")
    for line in (
        "device type   blk, a guess: feature bits that disks have",
        "queues        2",
        "need_reply    answered",
        "quirks        none",
        "FLUSH               9     what was written is made durable on command",
        "REPLY_ACK             3     a sender may ask for an acknowledgement: need_reply",
        "num_queues                 2",
    ):
        assert line in shown.splitlines()
    assert re.search(rf"^capacity +{DISK // 512}, which is 8M$", shown, re.MULTILINE)
    assert re.search(r"^round trip    \d+ µs, \d+ to \d+ in 20$", shown, re.MULTILINE)
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_a_terminal_gets_colours_and_as_many_columns(entropy: Program) -> None:
    status, shown, _ = on_terminal("probe", entropy.socket_path, stream="stdout")
    assert status == 0
    assert "\x1b[1m" in shown
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in shown.splitlines()) <= 80


def test_the_back_end_is_as_it_was_afterwards(disk: Program) -> None:
    assert probed(disk.socket_path)[0] == 0
    ran = vhost_user("blk", "verify", "--socket-path", disk.socket_path, "--size", "64K")
    assert ran.returncode == 0


def test_a_type_that_is_told_is_believed(disk: Program) -> None:
    _, shown, _ = probed("--type", "net", disk.socket_path)
    assert "device type   net\n" in shown
    assert "missing-feature" in shown


def test_bytes_of_an_unknown_configuration_space_are_shown_in_hexadecimal(disk: Program) -> None:
    _, shown, _ = probed("--type", "sound", "--config-size", "20", disk.socket_path)
    capacity = (DISK // 512).to_bytes(8, "little").hex(" ")
    assert f"0x00                  {capacity} 00 00 00 00 7e 00 00 00\n0x10                  00 00 00 00" in shown


def test_a_device_that_nothing_speaks_for_is_unknown(folder: Path) -> None:
    with saying(folder, number(1, FEATURES), number(15, 0), number(1, FEATURES)) as path:
        status, shown, errors = probed(path)
    assert (status, "device type   unknown" in shown) == (3, True)
    assert "was not asked everything: it closed the connection at GET_FEATURES" in errors
    assert "round trip    not measured" in shown


def test_an_oddity_is_shown(folder: Path) -> None:
    answers = [reply(1, FEATURES.to_bytes(8, "little"), 0xD), number(15, 1 << 50 | 1)]
    with saying(folder, *answers) as path:
        _, shown, _ = probed(path)
    assert "reply-flags   GET_FEATURES: found flags 0xd, expected 0x5\n" in shown
    assert "bit 50" in shown
    assert "queues        no answer\n" in shown


# --- for machines ---


def test_as_json_it_is_all_there(disk: Program) -> None:
    found = report_of(disk)
    assert (found["type"], found["queues"], found["need_reply"], found["quirks"]) == ("blk", 2, "answered", [])
    assert {"FLUSH", "VERSION_1"} <= set(found["features"]["names"])
    assert {"REPLY_ACK", "CONFIG"} <= set(found["protocol_features"]["names"])
    assert found["config"]["fields"]["capacity"] == DISK // 512
    assert bytes.fromhex(found["config"]["hex"])[:8] == (DISK // 512).to_bytes(8, "little")
    assert 0 < found["round_trip_us"]["least"] <= found["round_trip_us"]["median"]


def test_nothing_differs_from_a_moment_ago(disk: Program, folder: Path) -> None:
    (folder / "old.json").write_text(json.dumps(report_of(disk)))
    assert probed("--diff", folder / "old.json", disk.socket_path) == (0, "", "")


def test_what_differs_is_shown_and_status_1(disk: Program, folder: Path) -> None:
    (folder / "old.json").write_text(json.dumps(report_of(disk)))
    with listening(folder, "blk", "--memory-size", "1M", "--read-only", "--packed") as other:
        status, shown, errors = probed("--diff", folder / "old.json", other.socket_path)
        again = vhost_user("probe", "--json", "--diff", str(folder / "old.json"), str(other.socket_path))
    assert status == 1
    assert shown.splitlines()[:4] == [
        "~ queues: 2 -> 1",
        "- virtio feature: DISCARD",
        "- virtio feature: WRITE_ZEROES",
        "+ virtio feature: RO",
    ]
    assert "~ config capacity: 16384 -> 2048" in shown
    assert re.fullmatch(r"Error: \d+ differences to .*old\.json\n", errors)
    assert again.returncode == 1
    assert json.loads(again.stdout)["differences"][0] == {"what": "queues", "before": 2, "now": 1}


# --- called wrongly, and nobody there ---


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 1}'])
def test_a_file_that_is_no_report_is_a_usage_error_before_anybody_is_asked(folder: Path, text: str) -> None:
    (folder / "old.json").write_text(text)
    status, said, errors = probed("--diff", folder / "old.json", folder / "nobody.sock")
    assert (status, said) == (2, "")
    assert "old.json: " in errors


def test_an_unknown_type_is_a_usage_error_that_lists_the_known_ones() -> None:
    status, _, errors = probed("--type", "disk", "s")
    assert status == 2
    assert re.search(r"found disk, expected a number or one of .*\bblk, block\b", " ".join(errors.split()))


@pytest.mark.parametrize("name", ["blk", "block", "BLOCK", "2"])
def test_a_type_has_names_and_a_number(disk: Program, name: str) -> None:
    assert "device type   blk\n" in probed("--type", name, disk.socket_path)[1]


def test_nobody_at_the_socket_is_status_3(folder: Path) -> None:
    status, said, errors = probed("--timeout", "0.5", folder / "none")
    assert (status, said) == (3, "")
    assert "cannot connect to" in errors


def test_somebody_who_is_no_back_end_is_status_3(folder: Path) -> None:
    with saying(folder, b"220 mail.example.org ESMTP\r\n") as path:
        status, said, errors = probed(path)
    assert (status, said) == (3, "")
    assert "is it a vhost-user back-end at all?" in errors


def test_a_listener_that_says_nothing_is_status_3(folder: Path) -> None:
    path = folder / "silent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        status, said, errors = probed("--timeout", "0.3", path)
    assert (status, said) == (3, "")
    assert "no answer to GET_FEATURES for 0.3 s; does it serve another front-end?" in errors
