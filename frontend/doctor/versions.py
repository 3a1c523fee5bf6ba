"""Python and the packages that this one depends on."""

from __future__ import annotations

import platform
import re
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from frontend.doctor.finding import Finding, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC = "versions"
DISTRIBUTION = "python-vhost-user"
_REQUIREMENT = re.compile(r"([\w.-]+)>=([\d.]+)$")
"""What this project writes; extras have a marker behind it, and are not for running."""


def look_at_versions() -> Iterator[Finding]:
    """Python, this package, and one finding for each dependency."""
    implementation = platform.python_implementation()
    found = f"{implementation} {platform.python_version()} on {platform.system()} {platform.release()}"
    if sys.implementation.name == "cpython":
        yield Finding(TOPIC, "Python", Level.OK, found)
    else:
        advice = "use CPython: memory is unmapped when its last view goes, and only CPython says when that is"
        yield Finding(TOPIC, "Python", Level.BROKEN, found, advice)
    try:
        yield Finding(TOPIC, DISTRIBUTION, Level.OK, metadata.version(DISTRIBUTION))
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield Finding(TOPIC, DISTRIBUTION, Level.BROKEN, "not installed", "in a checkout: pip install -e .")
        return
    for text in requirements:
        if parts := _REQUIREMENT.match(text):
            yield dependency(parts[1], parts[2])


def dependency(name: str, least: str) -> Finding:
    """Whether ``name`` is installed, and new enough."""
    advice = f"pip install '{name}>={least}'"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(TOPIC, name, Level.BROKEN, f"not installed, expected {least} or later", advice)
    if _numbers(found) < _numbers(least):
        return Finding(TOPIC, name, Level.BROKEN, f"{found}, expected {least} or later", advice)
    return Finding(TOPIC, name, Level.OK, found)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
