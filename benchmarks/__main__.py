"""Measure back-ends and front-ends beside each other, and write docs/benchmarks.md:

    python -m benchmarks [--quick] [--only NAME] [--results FILE] [--page FILE] [--again FILE]

`make bench` does it with everything set up.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.experiments import FULL, QUICK, run_all
from benchmarks.laboratory import Laboratory
from benchmarks.machine import describe
from benchmarks.page import renew, target_lines
from benchmarks.programs import Missing, build
from benchmarks.sample import Results

ROOT = Path(__file__).parent.parent
BUSY_MACHINE = 0.5
"""Processes that ran on average in the last minute, from which on a warning is due."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure, and write the page of figures.")
    parser.add_argument("--quick", action="store_true", help="three minutes instead of fifteen")
    parser.add_argument("--only", action="append", default=[], help="one experiment, by its title; may be repeated")
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "benchmarks.json", help="keep figures here")
    parser.add_argument("--again", action="store_true", help="measure nothing: write the page from kept figures")
    parser.add_argument("--page", type=Path, help="renew this page (docs/benchmarks.md) and its plots")
    chosen = parser.parse_args()
    if chosen.again:
        results = Results.from_json(json.loads(chosen.results.read_text()))
    else:
        try:
            results = measure(quick=chosen.quick, only=chosen.only)
        except Missing as error:
            print(f"benchmarks: {error}", file=sys.stderr)
            return 1
        chosen.results.parent.mkdir(parents=True, exist_ok=True)
        chosen.results.write_text(json.dumps(results.to_json()))
    if chosen.page:
        renew(chosen.page, results)
    print("\n".join(target_lines(results)))
    for subject, why in results.left_out.items():
        print(f"left out: {subject}: {why}")
    return 0


def measure(*, quick: bool, only: list[str]) -> Results:
    """Everything, or only the experiments of these titles."""
    # A short name: sockets have paths of at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        programs = build(Path(name))
        with Laboratory(Path(name), programs) as lab:
            lab.results.machine = describe(programs.libblkio)
            if os.getloadavg()[0] > BUSY_MACHINE:
                print("benchmarks: this machine does other things too; figures will be too low", file=sys.stderr)
            run_all(lab, QUICK if quick else FULL, only)
            return lab.results


if __name__ == "__main__":
    sys.exit(main())
