"""Hold the packages that peers' bytes reach to their coverage floor:  coverage_floor.py COVERAGE.JSON

A total would let one well-tested package pay for another, so each one counts by itself.  Lines and branches together
are what coverage.py calls the percentage of a branch run; the branches alone must reach the floor as well.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLOOR = 95.0
PACKAGES = ("wire", "protocol", "memory", "virtqueue", "transport")


def totals(files: Mapping[str, Any], package: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for path, entry in files.items():
        if Path(path).parts[:2] == ("vhostuser", package):
            found.update({key: value for key, value in entry["summary"].items() if isinstance(value, int)})
    return found


def percent(covered: int, all_of_them: int) -> float:
    return 100.0 * covered / all_of_them if all_of_them else 100.0


def main(report: Path) -> int:
    files = json.loads(report.read_text(encoding="utf-8"))["files"]
    low = []
    for package in PACKAGES:
        found = totals(files, package)
        lines, branches = found["num_statements"], found["num_branches"]
        both = percent(found["covered_lines"] + found["covered_branches"], lines + branches)
        alone = percent(found["covered_branches"], branches)
        if not lines:
            print(f"vhostuser.{package:<10} nothing was measured")
            low.append(f"vhostuser.{package}")
            continue
        print(f"vhostuser.{package:<10} {both:6.2f} % of lines and branches, {alone:6.2f} % of {branches} branches")
        if min(both, alone) < FLOOR:
            low.append(f"vhostuser.{package}")
    if low:
        print(f"below the floor of {FLOOR:g} %: {', '.join(low)}", file=sys.stderr)
    return bool(low)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
