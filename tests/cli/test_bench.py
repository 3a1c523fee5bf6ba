"""`vhost-user bench`: that it runs and what it says, not how fast anything is."""

from __future__ import annotations

import json
import os
import re
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from frontend.commands.bench_blk import measure
from frontend.commands.bench_load import Load, Run
from frontend.commands.latencies import Counted, Exact
from frontend.commands.options import BlkTarget
from tests.cli.programs import VHOST_USER, Program, listening, started, vhost_user
from tests.engines import needs_native

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from vhostuser.virtqueue.engine import Engine


def bench(disk: Program, *options: str) -> subprocess.CompletedProcess[bytes]:
    return vhost_user("bench", "blk", "--socket-path", disk.socket_path, "--seconds", "0.05", *options)


def run_of(*microseconds: int) -> Run:
    return Run(1, 1, 4096, 2.0, Exact([each * 1000 for each in microseconds]))


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


# --- what makes the requests, and whether they came back right ---

ENGINES = [pytest.param("python"), pytest.param("native", marks=needs_native)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rw", ["read", "write", "mix"])
def test_blocks_that_were_written_are_found_again(folder: Path, engine: str, rw: str) -> None:
    image = folder / "image"
    image.write_bytes(bytes(1 << 20))
    with listening(folder, "blk", "--blk-file", image, "--num-queues", "2", "--packed") as disk:
        for options in ([], ["--packed", "--queues", "2"]):
            ran = bench(disk, "--engine", engine, "--verify", "--rw", rw, "--depth", "8", "--json", *options)
            assert (ran.returncode, ran.stderr) == (0, b"")
            found = json.loads(ran.stdout)
            assert found["engine"] == engine
            assert sum(found["histogram_us"].values()) == found["requests"] > 0
    words = memoryview(image.read_bytes()).cast("Q")
    assert words.tolist() == list(range(words[0], words[0] + len(words)))


@needs_native
@pytest.mark.parametrize("packed", [[], ["--packed"]], ids=["split", "packed"])
def test_a_ring_that_is_watched_gives_back_the_same_blocks(folder: Path, packed: list[str]) -> None:
    with listening(folder, "blk", "--memory-size", "1M", "--packed") as disk:
        for microseconds in ("1", "10000"):  # hardly a look, and longer than any request takes
            ran = bench(disk, "--verify", "--poll-us", microseconds, "--depth", "1", "--depth", "8", "--json", *packed)
            assert (ran.returncode, ran.stderr) == (0, b"")


def test_python_cannot_watch_a_ring(folder: Path) -> None:
    ran = vhost_user("bench", "blk", "--socket-path", folder / "none", "--engine", "python", "--poll-us", "50")
    assert ran.returncode == 2
    assert b"only the compiled engine can watch a ring" in ran.stderr


@pytest.mark.parametrize("engine", ENGINES)
def test_a_disk_that_forgets_is_found_out(folder: Path, engine: str) -> None:
    with listening(folder, "blk", "--null", "1M") as disk:
        ran = bench(disk, "--engine", engine, "--verify", "--depth", "4")
    assert ran.returncode == 1
    assert re.search(rb"Error: \d+ of \d+ blocks came back other than they were written\n$", ran.stderr)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_disk_that_refuses_is_named_with_its_answer(folder: Path, engine: str) -> None:
    image = folder / "image"
    image.write_bytes(bytes(1 << 20))
    with listening(folder, "blk", "--blk-file", image) as disk:
        assert vhost_user("blk", "info", "--socket-path", disk.socket_path).returncode == 0  # so it has seen its size
        os.truncate(image, 1 << 16)
        ran = bench(disk, "--engine", engine, "--depth", "4")
    assert (ran.returncode, b"the device answered IOERR" in ran.stderr) == (1, True)


@pytest.mark.parametrize("engine", ENGINES)
def test_however_short_the_time_some_requests_are_made(disk: Program, engine: Engine) -> None:
    target = BlkTarget(
        socket_path=str(disk.socket_path),
        memory="shm",
        pcram_file=None,
        notifier=None,
        timeout=30.0,
        depth=4,
        queues=1,
        block_size=4096,
        packed=False,
    )
    run = measure(target, Load("read", 4096, seconds=0.0, depth=4), engine)
    assert run.requests == sum(run.histogram().values()) > 0
    assert run.percentile_us(50) > 0


@needs_native
def test_a_back_end_that_dies_ends_the_loop(folder: Path) -> None:
    with (
        listening(folder, "blk", "--memory-size", "1M") as disk,
        started(
            [
                *VHOST_USER,
                "bench",
                "blk",
                "--socket-path",
                str(disk.socket_path),
                "--seconds",
                "600",
                "--engine",
                "native",
            ]
        ) as running,
    ):
        while disk_is_idle(disk):
            pass
        disk.process.kill()
        status, said = running.wait()
    assert status != 0
    assert "is gone" in said


def disk_is_idle(disk: Program) -> bool:
    """Until its only front-end has come so far that it has a thread for its ring."""
    return len(os.listdir(f"/proc/{disk.process.pid}/task")) == 1


def test_the_compiled_engine_cannot_be_asked_for_where_it_is_switched_off(folder: Path) -> None:
    ran = vhost_user("bench", "blk", "--socket-path", "s", "--engine", "native", env={"VHOST_USER_ENGINE": "python"})
    assert (ran.returncode, b"the compiled engine does not run here" in ran.stderr) == (1, True)


def test_counted_latencies_are_those_that_were_exact_to_a_64th() -> None:
    ends = [1_000, 2_000, 4_000, 1_000_000]
    counted, exact = Counted(array("Q", [1, 0, 2, 1]), ends), Exact([1_000, 4_000, 4_000, 1_000_000])
    assert counted.count == exact.count == 4
    for percent in (1, 25, 26, 50, 75, 99, 100):
        assert counted.percentile_us(percent) == exact.percentile_us(percent)
    assert counted.histogram() == exact.histogram()


@needs_native
def test_every_latency_has_a_bucket_that_ends_no_more_than_a_64th_later() -> None:
    from vhostuser.virtqueue.engine.load import BUCKETS, bucket_end

    ends = [bucket_end(index) for index in range(BUCKETS)]
    assert ends[-1] == (1 << 64) - 1
    assert all(before < end <= before + 1 + before // 64 for before, end in pairwise(ends))
