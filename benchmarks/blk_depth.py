"""Requests per second of our front-end, on our back-end and on qemu-storage-daemon, at several depths.

    python benchmarks/blk_depth.py [--rw read|write] [--seconds 2] [--rounds 5] [--json]

All back-ends serve one file in the page cache.  Rounds are interleaved (ours, theirs, ours, ...), so that a machine
whose speed drifts cannot favour either, and the ratio to qemu-storage-daemon is taken within each round.  A back-end
that is not installed is left out, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from frontend import BlkDriver, open_device
from frontend.drivers.blk import Request
from vhostuser.wire.virtio.blk import SECTOR_SIZE, BlkType

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 4096
IMAGE = 256 << 20
DEPTHS = (1, 32, 128)
REFERENCE = "qsd threads"


def random_requests(rw: str, seconds: float, capacity: int) -> Iterator[Request]:
    """4 KiB reads or writes at random places until ``seconds`` have passed."""
    end, data = trio.current_time() + seconds, random.randbytes(BLOCK)
    per_block = BLOCK // SECTOR_SIZE
    while trio.current_time() < end:
        for _ in range(16):
            sector = int(random.random() * (capacity // per_block)) * per_block
            if rw == "read":
                yield Request(BlkType.IN, sector, wanted=BLOCK)
            else:
                yield Request(BlkType.OUT, sector, data=data)


async def measure(socket: Path, depth: int, rw: str, seconds: float) -> float:
    """Requests per second at ``depth``."""
    async with open_device(socket, BlkDriver, depth=depth, block_size=BLOCK) as disk:
        begin = trio.current_time()
        await disk.run(random_requests(rw, seconds, disk.capacity))
        return disk.requests / (trio.current_time() - begin)


def commands(folder: Path) -> dict[str, list[str]]:
    """How to start each back-end; its socket is ``folder/NAME.sock``."""
    image = str(folder / "disk.img")
    program = [sys.executable, "-m", "vhostuser", "backend", "blk", "--blk-file", image]
    found = {}
    for options in ([], ["--poll-us", "50"], ["--inline-writes"]):
        name = " ".join(["ours", *options])
        found[name] = [*program, *options, "--socket-path", str(folder / f"{name}.sock")]
    if (daemon := shutil.which("qemu-storage-daemon")) is not None:
        for aio in ("threads", "io_uring"):
            file = f"driver=file,node-name=f,filename={image},locking=off,aio={aio}"
            socket = folder / f"qsd {aio}.sock"
            export = f"type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={socket},writable=on"
            found[f"qsd {aio}"] = [daemon, "--blockdev", file, "--export", export]
    return found


def run(rw: str, seconds: float, rounds: int) -> dict[str, dict[int, list[float]]]:
    """All measurements: back-end, depth, one figure a round."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "disk.img").write_bytes(random.randbytes(1 << 20) * (IMAGE >> 20))
        started = commands(folder)
        for command in started.values():
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.terminate)
        figures: dict[str, dict[int, list[float]]] = {each: {depth: [] for depth in DEPTHS} for each in started}
        for _ in range(rounds):
            for depth in DEPTHS:
                for each in started:
                    figures[each][depth].append(trio.run(measure, folder / f"{each}.sock", depth, rw, seconds))
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rw", choices=["read", "write"], default="read")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = run(options.rw, options.seconds, options.rounds)
    medians = {each: {depth: statistics.median(row) for depth, row in rows.items()} for each, rows in figures.items()}
    if options.json:
        print(json.dumps(medians))
        return
    print(f"4 KiB random {options.rw}s, page cache, median of {options.rounds} rounds, requests per second")
    reference = figures.get(REFERENCE)
    for each, rows in medians.items():
        print(
            f"{each:18}",
            "  ".join(f"depth {depth}: {rows[depth]:7,.0f}{ratio(figures[each], reference, depth)}" for depth in rows),
        )
    if reference is None:
        print(f"{REFERENCE}: not found, put qemu-storage-daemon on PATH")


def ratio(ours: dict[int, list[float]], reference: dict[int, list[float]] | None, depth: int) -> str:
    """How much faster than the reference, as a median over the rounds."""
    if reference is None:
        return ""
    return f" ({statistics.median(a / b for a, b in zip(ours[depth], reference[depth], strict=True)):.2f}x)"


if __name__ == "__main__":
    main()
