"""Which target is meant: by options, or by a name in a TOML file.

::

    [targets.qsd]
    exec = "qemu-storage-daemon --blockdev driver=file,node-name=d,filename={scratch}/d.img --export …={socket}"
    prepare = ["truncate -s 16M {scratch}/d.img"]   # run once, before the first start
    type = "blk"                                    # what it is, if it cannot be guessed
    known-issues = "qsd-known.toml"                 # beside this file
    timeout = 60                                    # seconds for a case
    reuse = true                                    # one program for many cases
    alone = true                                    # no two of the program at a time
"""

from __future__ import annotations

import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from vhostuser.conformance.known import KnownIssues, KnownIssuesError

SECONDS = 20.0
"""For a case without a limit of its own.  What hangs is found sooner, by those who wait for it; what is only slow, on a
machine with other things to do, is no finding."""
KINDS = {
    "exec": str,
    "socket-path": str,
    "prepare": list,
    "type": (str, int),
    "known-issues": str,
    "timeout": (int, float),
    "reuse": bool,
    "alone": bool,
}


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A target, and how to run against it.

    Attributes:
        name: for people and reports.
        options: those that mean this target, for a command that replays a case.
        command: what starts it, if we do.
        socket_path: where it listens, if somebody else does.
        fd: or a connected socket.
        prepare: commands to run once, before the first start.
        device_type: its type, if it is known.
        known: what it is known to fail.
        timeout: seconds for a case.
        reuse: one program for many cases.
        alone: no two programs at a time.
    """

    name: str
    options: tuple[str, ...]
    command: tuple[str, ...] = ()
    socket_path: str | None = None
    fd: int | None = None
    prepare: tuple[tuple[str, ...], ...] = ()
    device_type: int | None = None
    known: KnownIssues
    timeout: float = SECONDS
    reuse: bool = False
    alone: bool = False


def definition(
    *,
    command: str | None,
    socket_path: str | None,
    fd: int | None,
    targets: str | None,
    target: str | None,
    device_type: int | None,
    known_issues: str | None,
    timeout: float | None,
    reuse: bool | None,
    alone: bool,
) -> Definition:
    """The target that the options mean.

    Raises:
        click.UsageError: they mean none, or several.
    """
    if (targets is None) != (target is None):
        raise click.UsageError("--targets FILE.toml and --target NAME belong together")
    given = [each is not None for each in (command, socket_path, fd, target)]
    if sum(given) != 1:
        raise click.UsageError("give one of --exec, --socket-path, --fd and --target")
    fields: dict[str, Any] = _read(targets, target) if targets and target else {}
    folder = Path(targets).parent if targets else Path()
    if known_issues is None and "known-issues" in fields:
        known_issues = str(folder / fields["known-issues"])
    command = command if command is not None else fields.get("exec")
    socket_path = socket_path if socket_path is not None else fields.get("socket-path")
    return Definition(
        name=target or command or socket_path or f"fd {fd}",
        options=_options(command, socket_path, fd, targets, target),
        command=_words("--exec", command) if command else (),
        socket_path=socket_path,
        fd=fd,
        prepare=tuple(_words("prepare", each, socket=False) for each in fields.get("prepare", [])),
        device_type=device_type if device_type is not None else _type(fields.get("type")),
        known=_known(known_issues),
        timeout=timeout or fields.get("timeout", SECONDS),
        reuse=reuse if reuse is not None else fields.get("reuse", False),
        alone=alone or fields.get("alone", False),
    )


def _read(path: str, name: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except tomllib.TOMLDecodeError as error:
        raise click.UsageError(f"{path}: {error}") from None
    defined = document.get("targets", {})
    if not isinstance(defined, dict) or not isinstance(defined.get(name), dict):
        raise click.UsageError(f"{path}: found no [targets.{name}]; there are {', '.join(defined) or 'none'}")
    fields: dict[str, Any] = defined[name]
    for key, value in fields.items():
        if key not in KINDS:
            raise click.UsageError(f"{path}: [targets.{name}]: found {key}, expected one of {', '.join(KINDS)}")
        if not isinstance(value, KINDS[key]):  # type: ignore[arg-type]
            raise click.UsageError(f"{path}: [targets.{name}]: {key} cannot be {value!r}")
    if ("exec" in fields) == ("socket-path" in fields):
        raise click.UsageError(f"{path}: [targets.{name}]: it needs one of exec and socket-path")
    return fields


def _options(
    command: str | None, socket_path: str | None, fd: int | None, targets: str | None, target: str | None
) -> tuple[str, ...]:
    if targets and target:
        return ("--targets", targets, "--target", target)
    if command is not None:
        return ("--exec", command)
    return ("--socket-path", socket_path) if socket_path is not None else ("--fd", str(fd))


def _words(where: str, command: str, *, socket: bool = True) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise click.UsageError(f"{where} {command!r}: {error}") from None
    if not words or (socket and "{socket}" not in command and "{fd}" not in command):
        raise click.UsageError(f"{where} {command!r}: it has to say where the socket goes: {{socket}} or {{fd}}")
    return words


def _type(given: str | int | None) -> int | None:
    from frontend.commands.probe import DeviceTypeName

    return None if given is None else DeviceTypeName().convert(given, None, None)


def _known(path: str | None) -> KnownIssues:
    if path is None:
        return KnownIssues()
    try:
        return KnownIssues.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, KnownIssuesError) as error:
        raise click.UsageError(f"{path}: {error}") from None
