"""``--packed``, of the back-end and of the front-end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.programs import listening, vhost_user

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("depth", ["1", "100"])
def test_a_disk_is_verified_on_packed_rings(folder: Path, depth: str) -> None:
    with listening(folder, "blk", "--packed", "--memory-size", "2M", "--num-queues", "2") as disk:
        at = ("--socket-path", disk.socket_path, "--queues", "2", "--depth", depth, "--block-size", "4K")
        verified = vhost_user("blk", "verify", "--json", "--packed", *at)
        assert (verified.returncode, json.loads(verified.stdout)["mismatching_sectors"]) == (0, 0)
        for options, used in ((["--packed"], True), ([], False)):
            features = json.loads(vhost_user("blk", "info", "--json", *options, *at).stdout)["features"]
            assert "RING_PACKED" in features["offered"]
            assert ("RING_PACKED" in features["in_use"]) is used


def test_a_back_end_that_has_none_is_status_3(folder: Path) -> None:
    with listening(folder, "blk", "--memory-size", "2M") as disk:
        ran = vhost_user("blk", "info", "--packed", "--socket-path", disk.socket_path)
    assert ran.returncode == 3
    assert b"does not offer RING_PACKED" in ran.stderr


def test_random_numbers_come_from_a_back_end_that_offers_packed_rings(folder: Path) -> None:
    with listening(folder, "rng", "--packed") as entropy:
        ran = vhost_user("rng", "read", "--size", "64", "--socket-path", entropy.socket_path)
    assert (ran.returncode, len(ran.stdout)) == (0, 64)
