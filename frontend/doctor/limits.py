"""What this process may use, as far as vhost-user gets near it."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from frontend.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TOPIC = "limits"
SHM_FOLDER = "/dev/shm"
ENOUGH_FILES = 1024
"""Three for a ring, eight for a memory table, a few for ourselves: enough for a hundred devices."""
ENOUGH_SHM = 256 << 20
"""Bytes: a small guest.  Containers often have 64 MiB."""


def look_at_limits() -> Iterator[Finding]:
    """One finding each."""
    yield files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield shm(SHM_FOLDER)
    yield locked(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
    yield processors(usable_processors())


def files(soft: int) -> Finding:
    """How many descriptors may be open."""
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        return Finding(TOPIC, "open files", Level.OK, _limit(soft, str))
    advice = f"ulimit -n {ENOUGH_FILES}: each ring takes three, each region of memory one"
    return Finding(TOPIC, "open files", Level.HINT, str(soft), advice)


def shm(folder: str) -> Finding:
    """How much POSIX shared memory there is; where it is no folder, the system does not tell."""
    try:
        told = os.statvfs(folder)
    except OSError:
        return Finding(TOPIC, "shared memory", Level.OK, f"not told: there is no {folder} here")
    free, total = told.f_bavail * told.f_frsize, told.f_blocks * told.f_frsize
    found = f"{format_mib(free)} free of {format_mib(total)} at {folder}"
    if free >= ENOUGH_SHM:
        return Finding(TOPIC, "shared memory", Level.OK, found)
    advice = f"as root: mount -o remount,size=2G {folder}; in a container: --shm-size=2g; or --memory memfd"
    return Finding(TOPIC, "shared memory", Level.HINT, found, advice)


def locked(soft: int) -> Finding:
    """How much memory may be locked, which VMMs do with mem-lock=on and for devices passed through."""
    return Finding(TOPIC, "locked memory", Level.OK, _limit(soft, format_mib))


def processors(count: int) -> Finding:
    """How many this process may run on."""
    if count > 1:
        return Finding(TOPIC, "processors", Level.OK, str(count))
    advice = "front-end and back-end take turns on one: do not use --poll-us, and expect half the rate"
    return Finding(TOPIC, "processors", Level.HINT, str(count), advice)


def usable_processors() -> int:
    """Those that this process may run on; where the system does not say, those that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def format_mib(size: int) -> str:
    """In whole MiB: a filesystem's size is a matter of pages."""
    return f"{size >> 20} MiB"


def _limit(soft: int, shown: Callable[[int], str]) -> str:
    return "unlimited" if soft == resource.RLIM_INFINITY else shown(soft)
