"""``vhost-user doctor``: what it prints, and how it ends."""

from __future__ import annotations

import json

import pytest

from tests.cli.programs import vhost_user


def test_a_machine_is_shown_in_80_columns() -> None:
    ran = vhost_user("doctor")
    table, _, _ = ran.stdout.decode().partition("\n\n")
    assert (ran.returncode, ran.stderr) == (0, b"")
    for name in ("engine", "notifier", "shm", "open files", "qemu-storage-daemon", "trio"):
        assert f" {name} " in table
    assert max(map(len, table.splitlines())) <= 80


def test_machines_are_told_the_same_as_people() -> None:
    told = json.loads(vhost_user("doctor", "--json").stdout)
    assert told["healthy"] is True
    assert all(each.keys() == {"topic", "name", "level", "found", "advice"} for each in told["findings"])
    assert {"ok"} <= {each["level"] for each in told["findings"]} <= {"ok", "hint"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_something_broken_is_status_1_and_the_next_step_is_told(options: list[str]) -> None:
    ran = vhost_user("doctor", *options, env={"VHOST_USER_NOTIFIER": "pigeon"})
    assert (ran.returncode, ran.stderr) == (1, b"")
    assert b"unset VHOST_USER_NOTIFIER, or set it to pipe" in ran.stdout
