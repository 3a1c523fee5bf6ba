"""What was measured on: one line each, for the page."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from frontend.doctor.limits import usable_processors
from frontend.doctor.programs import program, search_path
from vhostuser import __version__


def describe(libblkio: str) -> dict[str, str]:
    """The machine, the versions, and how much else was going on."""
    daemon = "qemu-storage-daemon"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "processor": f"{_processor()}, {usable_processors()} used{_virtual()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, {_distribution()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "this project": f"{__version__}{_commit()}",
        daemon: program(daemon, search_path()).found.partition(" in ")[0],
        "libblkio": libblkio,
        "other load": f"{os.getloadavg()[0]:.1f} processes on average in the minute before",
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def _virtual() -> str:
    try:
        return ", virtual" if " hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    except OSError:
        return ""


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def _commit() -> str:
    folder = Path(__file__).parent
    asked = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return f", {asked.stdout.strip()}" if asked.returncode == 0 else ""
