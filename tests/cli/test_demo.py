"""`vhost-user demo`: the story is told, and it is true."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from frontend.commands.demo_evidence import fds_by_kind, mapping_of, unwanted_kinds
from frontend.commands.demo_story import Story
from tests.cli.programs import VHOST_USER, surroundings, vhost_user

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TITLES = [
    "Memory that two processes can share",
    "A back-end, in a process of its own",
    "They talk, and the memory's descriptor goes over the socket",
    "The same memory on both sides",
    "Descriptors that both processes hold, besides stdin, stdout and stderr",
    "A file goes through the virtqueue, block by block",
    "The way down",
]
ORDER = ["GET_FEATURES", "SET_OWNER", "SET_FEATURES", "SET_MEM_TABLE", "SET_VRING_KICK", "GET_VRING_BASE"]


def facts(*options: str | Path) -> dict[str, Any]:
    ran = vhost_user("demo", "--json", *options)
    assert (ran.returncode, ran.stderr) == (0, b"")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("memory", ["shm", "memfd"])
@pytest.mark.parametrize("notifier", ["eventfd", "pipe"])
def test_the_facts_are_what_was_asked_for(memory: str, notifier: str) -> None:
    found = facts("--memory", memory, "--notifier", notifier)
    assert (found["ok"], found["problems"], found["backend_status"]) == (True, [], 0)
    assert (found["memory"]["kind"], found["memory"]["name_is_gone"], found["memory"]["links"]) == (memory, True, 0)
    assert found["both_sides"]["same_object"] is True
    assert found["memory"]["file"] in found["both_sides"]["backend_mapping"]
    assert memory in found["descriptors"]["frontend"]
    for side in ("frontend", "backend"):
        kinds = set(found["descriptors"][side])
        assert notifier in kinds
        # Whether the back-end still holds the memory's descriptor is up to mmap: since Python 3.13 it keeps none.
        assert kinds.isdisjoint({"shm", "memfd"} - {memory})
        assert "eventfd" not in kinds - {notifier}


def test_the_messages_come_in_order_and_say_which_descriptors_they_carry() -> None:
    messages = facts("--notifier", "pipe")["messages"]
    names = [message["name"] for message in messages if message["kind"] == "request"]
    assert [name for name in names if name in ORDER] == ORDER
    carried = {message["name"]: [fd["kind"] for fd in message["fds"]] for message in messages if message["fds"]}
    kick_and_call = {"SET_VRING_KICK": ["pipe"], "SET_VRING_CALL": ["pipe"]}
    assert carried == {"SET_BACKEND_REQ_FD": ["socket"], "SET_MEM_TABLE": ["shm"], **kick_and_call}
    assert {message["sender"] for message in messages} == {"frontend", "backend"}


@pytest.mark.parametrize("size", [0, 1, 1_000_003])
def test_a_file_of_any_size_comes_back_as_it_was(folder: Path, size: int) -> None:
    file = folder / "file"
    file.write_bytes(bytes(range(251)) * (size // 251) + bytes(range(size % 251)))
    copied = facts("--file", file)["copy"]
    assert copied["sha256_file"] == copied["sha256_disk"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert copied["read"]["bytes"] == copied["write"]["bytes"] == size


def test_the_story_has_numbered_steps_and_fits_80_columns() -> None:
    ran = vhost_user("demo", "--memory", "shm", "--notifier", "pipe")
    told = ran.stdout.decode()
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert re.findall(r"^(\d)\. (.*)$", told, re.MULTILINE) == [
        (str(number), title) for number, title in enumerate(TITLES, 1)
    ]
    assert max(map(len, told.splitlines())) <= 80
    assert "\x1b" not in told
    assert "\n   → SET_OWNER              ← ok\n" in told
    assert told.endswith("\nAll is as it should be.\n")


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_the_story_says_that_there_is_no_eventfd_and_no_memfd() -> None:
    told = vhost_user("demo", "--memory", "shm", "--notifier", "pipe").stdout.decode()
    said = "With --memory shm --notifier pipe neither process holds an eventfd or a memfd."
    assert said in " ".join(told.split())


def test_an_old_terminal_gets_plain_letters() -> None:
    told = vhost_user("demo", env={"PYTHONIOENCODING": "ascii"}).stdout.decode("ascii")
    assert "\n   > SET_OWNER              < ok\n" in told


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--size", "4M", "--file", "large"], "large has 4194305 bytes, the disk 4194304: give a larger --size"),
        (["--size", "1M"], "found 1048576 bytes, expected at least 4194304"),
        (["--size", "5000000"], "expected a multiple of 1048576"),
        (["--file", "not/there"], "'not/there' does not exist"),
        (["--memory", "file"], "'file' is not one of 'shm', 'memfd'"),
    ],
)
def test_a_wrong_call_is_a_usage_error(folder: Path, options: Sequence[str], complaint: str) -> None:
    (folder / "large").write_bytes(bytes(4 * (1 << 20) + 1))
    ran = vhost_user("demo", *[str(folder / "large") if option == "large" else option for option in options])
    assert (ran.returncode, complaint in " ".join(ran.stderr.decode().split())) == (2, True)


def test_a_larger_file_gets_a_larger_disk(folder: Path) -> None:
    file = folder / "large"
    with file.open("wb") as sparse:
        sparse.truncate((64 << 20) + 1)
    found = facts("--file", file)
    assert found["memory"]["size"] == 65 << 20
    assert found["copy"]["read"]["bytes"] == (64 << 20) + 1


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process that is not its child")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_back_end_outlives_it(number: int) -> None:
    """Whatever ends the demo: the back-end sees the end of the socket, if nothing else."""
    command = [*VHOST_USER, "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=surroundings()) as telling:
        assert telling.stdout is not None
        found = next(filter(None, (re.search(rb"Process (\d+):", line) for line in telling.stdout)))
        backend = os.pidfd_open(int(found[1]))
        try:
            telling.send_signal(number)
            telling.communicate(timeout=20)
            ended, _, _ = select.select([backend], [], [], 5)
        finally:
            os.close(backend)
    assert ended
    assert telling.returncode == (130 if number == signal.SIGINT else -number)


def test_what_is_wrong_is_told_and_kept() -> None:
    story = Story(silent=True)
    story.check(True, "fine", "not fine")
    story.check(False, "equal", "different")
    assert story.problems == ["different"]


def test_only_what_was_not_asked_for_is_unwanted() -> None:
    assert unwanted_kinds("shm", "pipe") == ["eventfd", "memfd"]
    assert unwanted_kinds("memfd", "pipe") == ["eventfd"]
    assert unwanted_kinds("shm", "eventfd") == ["memfd"]
    assert unwanted_kinds("memfd", "eventfd") == []


def test_a_process_that_cannot_be_looked_at_shows_nothing() -> None:
    nobody = 2**30
    assert fds_by_kind(nobody) is None
    assert mapping_of(nobody, "00:00 1") is None
