"""`vhost-user bench`: that it runs and what it says, not how fast anything is."""

from __future__ import annotations

import json
import re
from array import array
from typing import TYPE_CHECKING, Any

import pytest

from frontend.commands.bench_blk import Run
from tests.cli.programs import Program, listening, vhost_user

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def bench(disk: Program, *options: str) -> subprocess.CompletedProcess[bytes]:
    return vhost_user("bench", "blk", "--socket-path", disk.socket_path, "--seconds", "0.05", *options)


def run_of(*microseconds: int) -> Run:
    return Run(1, 1, 4096, 2.0, array("q", [each * 1000 for each in microseconds]))


@pytest.mark.parametrize("rw", ["read", "write", "mix"])
def test_json_has_every_depth_and_the_fastest_at_the_top(disk: Program, rw: str) -> None:
    ran = bench(disk, "--rw", rw, "--depth", "1", "--depth", "8", "--queues", "2", "--block-size", "512", "--json")
    assert ran.stderr == b""
    found: dict[str, Any] = json.loads(ran.stdout)
    assert (found["rw"], found["block_size"], found["queues"]) == (rw, 512, 2)
    assert [run["depth"] for run in found["runs"]] == [1, 8]
    assert found["iops"] == max(run["iops"] for run in found["runs"])
    for run in found["runs"]:
        assert 0 < run["p50_us"] <= run["p99_us"] <= run["p99_9_us"]
        assert sum(run["histogram_us"].values()) == run["requests"] > 0


def test_people_get_a_table_and_bars_of_80_columns(disk: Program) -> None:
    shown = bench(disk, "--depth", "2", "--depth", "4").stdout.decode()
    lines = shown.splitlines()
    assert lines[0] == "read, 4K at random places, 1 queue"
    assert lines[2].split() == ["depth", "requests/s", "MiB/s", "p50", "us", "p99", "us", "p99.9", "us"]
    plots = [plot for plot in re.split(r"\n\n", shown.replace("#", "█")) if "█" in plot]
    assert [max(map(len, re.findall("█+", plot))) for plot in plots] == [44] * 3, "the longest bar of each of the three"
    assert max(map(len, lines)) <= 80


def test_packed_rings_are_used_when_asked_for(folder: Path) -> None:
    with listening(folder, "blk", "--memory-size", "1M", "--packed") as disk:
        ran = bench(disk, "--packed", "--json", "--depth", "4")
    assert (ran.returncode, json.loads(ran.stdout)["packed"]) == (0, True)


def test_a_back_end_that_polls_serves_and_stops_as_any_other(folder: Path) -> None:
    with listening(folder, "blk", "--memory-size", "1M", "--num-queues", "2", "--poll-us", "50") as disk:
        ran = bench(disk, "--rw", "mix", "--queues", "2", "--depth", "1", "--depth", "8", "--json")
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert disk.stop() == (0, "")


def test_a_back_end_that_writes_without_threads_serves_writes(folder: Path) -> None:
    image = folder / "image"
    image.write_bytes(bytes(1 << 20))
    with listening(folder, "blk", "--blk-file", image, "--inline-writes") as disk:
        assert bench(disk, "--rw", "write", "--depth", "8").returncode == 0
    assert image.read_bytes() != bytes(1 << 20)


def test_a_read_only_disk_is_read_and_not_written(folder: Path) -> None:
    image = folder / "image"
    image.write_bytes(bytes(1 << 20))
    with listening(folder, "blk", "--blk-file", image, "--read-only") as disk:
        assert bench(disk, "--depth", "1").returncode == 0
        ran = bench(disk, "--depth", "1", "--rw", "mix")
    assert (ran.returncode, ran.stderr) == (1, b"Error: the disk is read-only; nothing was written\n")


def test_a_disk_smaller_than_a_block_is_refused(folder: Path) -> None:
    with listening(folder, "blk", "--memory-size", "512") as disk:
        ran = bench(disk, "--depth", "1")
    assert (ran.returncode, ran.stderr) == (1, b"Error: the disk has 512 bytes, less than a block of 4096\n")


# --- the figures ---


def test_percentiles_are_times_that_so_many_requests_did_not_exceed() -> None:
    run = run_of(*range(1, 1001))
    assert [run.percentile_us(percent) for percent in (50, 99, 99.9)] == [500, 990, 999]
    assert run_of(7).percentile_us(99.9) == 7


def test_a_histogram_counts_between_powers_of_two_and_leaves_no_gap() -> None:
    assert run_of(0, 1, 3, 8).histogram() == {1: 1, 2: 1, 4: 1, 8: 0, 16: 1}


def test_the_rate_is_requests_by_time() -> None:
    run = run_of(1, 2, 3)
    assert (run.iops, run.bytes_per_second) == (1.5, 6144)
