"""What failed last time, by target: ``--failed-first`` begins with it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vhostuser.conformance import Run


def failed_before(target: str) -> set[str]:
    """Names of the cases that failed; none when nothing is known."""
    try:
        names = json.loads(_file(target).read_text(encoding="utf-8"))["failed"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {str(name) for name in names}


def remember(target: str, run: Run) -> None:
    """Keep what failed; of cases that were not run, what was known stays.  A cache that cannot be written is none."""
    was_run = {result.name for result in run.results}
    failed = {result.name for result in run.results if result.verdict.bad}
    names = sorted(failed | (failed_before(target) - was_run))
    path = _file(target)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"target": target, "failed": names}), encoding="utf-8")


def _file(target: str) -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    name = hashlib.sha256(target.encode(errors="surrogateescape")).hexdigest()[:16]
    return Path(cache).expanduser() / "python-vhost-user" / "conform" / f"{name}.json"
