"""The file that tells management software about a back-end program (B-PRG-11, 12)."""

from __future__ import annotations

import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from frontend.conformance.cases.program_options import TYPES
from frontend.conformance.suite import case
from vhostuser.conformance import Failure, Level, Need, Skip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from frontend.conformance.peer import Peer

FOLDER = Path("qemu/vhost-user")
BESIDE = ("bin", "sbin", "lib", "libexec")
"""Folders of programs; where such a one is, there may be a folder ``share`` as well."""
descriptor = partial(case, level=Level.SHOULD, section="vhost-user.json", needs=[Need.CONVENTIONS])


def folders(program: Path) -> Iterator[Path]:
    """Where its descriptor may be: the folders of the conventions, and the one beside the program."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    yield from (home / FOLDER, Path("/etc") / FOLDER, Path("/usr/share") / FOLDER)
    for parent in program.parents:
        if parent.name in BESIDE:
            yield parent.parent / "share" / FOLDER


def descriptors(peer: Peer) -> list[Path]:
    """The files that speak of the program under test.

    Raises:
        Skip: there is none.
    """
    command = peer.target.command[0]
    program = Path(shutil.which(command) or command).resolve()
    looked = list(dict.fromkeys(folders(program)))
    found = [path for folder in looked for path in sorted(folder.glob("*.json")) if _speaks_of(path, program.name)]
    if not found:
        raise Skip(f"a descriptor file for {program.name}: there is none in {', '.join(map(str, looked))}")
    peer.note(f"descriptor: {', '.join(map(str, found))}")
    return found


def _speaks_of(path: Path, program: str) -> bool:
    try:
        binary = json.loads(path.read_bytes())["binary"]
        return Path(binary).name == program
    except (OSError, ValueError, LookupError, TypeError):
        return program in path.name  # it is no descriptor, but its name says of whom it would be


def wrong_with(found: object) -> Iterator[str]:
    """What is wrong with the content of a descriptor."""
    if not isinstance(found, dict):
        yield f"found {type(found).__name__}, expected an object"
        return
    for name in ("description", "type", "binary"):
        if not isinstance(value := found.get(name), str):
            yield f"{name!r}: found {value!r}, expected a string"
    if isinstance(kind := found.get("type"), str) and kind not in TYPES:
        yield f"'type': found {kind!r}, expected one of {', '.join(sorted(TYPES))}"
    if isinstance(binary := found.get("binary"), str) and not Path(binary).is_absolute():
        yield f"'binary': found {binary!r}, expected an absolute path"


@descriptor(
    "B-PRG-11",
    title="The descriptor file is valid",
    provoke="look for a file about the program where they are installed, and read it",
    passes="it is a JSON object with a description, a known type and an absolute path to the program",
)
async def valid_descriptor(peer: Peer) -> None:
    """It is the only thing that management software knows of a program that it has never seen."""
    for path in descriptors(peer):
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise Failure(f"{path}: {error}") from None
        if wrong := "; ".join(wrong_with(found)):
            raise Failure(f"{path}: {wrong}")


@descriptor(
    "B-PRG-12",
    title="The name of the descriptor file begins with two digits",
    provoke="look for a file about the program where they are installed",
    passes="as in 50-name.json",
)
async def descriptor_name(peer: Peer) -> None:
    """Of several programs for one type the first by name is taken; so the name is what an administrator changes."""
    for path in descriptors(peer):
        if not re.match(r"\d\d-", path.name):
            raise Failure(f"found {path.name}, expected two digits and a dash before the rest")
