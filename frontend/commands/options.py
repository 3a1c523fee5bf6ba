"""Options that the commands share, and what they mean to the library."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from vhostuser.cli.parameters import SizeType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vhostuser.memory.backends import MemoryBackend
    from vhostuser.transport.notifier import NotifierKind

SECTOR = 512
MIB = 1 << 20
SMALLEST_MEMORY = 16 * MIB
MAX_DEPTH = 256
MAX_RING = 1024
"""Entries of the largest ring that QEMU's back-ends take."""

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A back-end, and how to work with it.

    Attributes:
        socket_path: where it listens.
        memory: ``shm`` or ``memfd``.
        pcram_file: the file that guest memory is, instead.
        notifier: ``eventfd`` or ``pipe``; None for the system's best.
        timeout: seconds without any progress after which to give up.
    """

    socket_path: str
    memory: str
    pcram_file: str | None
    notifier: str | None
    timeout: float

    def guest_memory(self, least: int) -> MemoryBackend:
        """Memory of ``least`` bytes or, if it is a file, of as many as that has."""
        return pcram(self.pcram_file) if self.pcram_file else memory_backend(self.memory, max(SMALLEST_MEMORY, least))

    def plan_options(self) -> dict[str, Any]:
        """What a driver's ``plan`` is told."""
        return {
            "memory": self.guest_memory(SMALLEST_MEMORY),
            "notifier": notifier_kind(self.notifier),
        }


@dataclass(frozen=True, kw_only=True)
class BlkTarget(Target):
    """A disk, and how to keep it busy.

    Attributes:
        depth: requests in flight at most.
        queues: queues to spread them over.
        block_size: bytes per request.
        packed: use packed rings, and no back-end without them.
    """

    depth: int
    queues: int
    block_size: int
    packed: bool

    def plan_options(self) -> dict[str, Any]:
        from vhostuser.wire.features import VirtioFeature

        ring_format = VirtioFeature.RING_PACKED if self.packed else VirtioFeature(0)
        # Without indirect descriptors a request takes three entries of its ring.
        entries = min(MAX_RING, 1 << (3 * self.depth - 1).bit_length())
        slots = self.depth * (self.block_size + 128)
        rings = self.queues * MIB
        size = -(-(slots + rings) // MIB) * MIB
        return {
            **super().plan_options(),
            "memory": self.guest_memory(size),
            "depth": self.depth,
            "block_size": self.block_size,
            "queues": self.queues,
            "queue_size": max(128, entries),
            "required": VirtioFeature.VERSION_1 | ring_format,
        }


def memory_backend(name: str, size: int) -> MemoryBackend:
    """``size`` bytes of the memory that ``--memory`` asks for."""
    from vhostuser.memory.backends import MemoryBackendMemfd, MemoryBackendShm

    kinds: dict[str, type[MemoryBackend]] = {"shm": MemoryBackendShm, "memfd": MemoryBackendMemfd}
    return kinds[name](size=size)


def pcram(path: str) -> MemoryBackend:
    """Guest memory that is a file: all of it, as large as it is, never made or resized, left out of saved state."""
    from vhostuser.memory.backends import MemoryBackendError, MemoryBackendFile

    try:
        return MemoryBackendFile.pcram(path, os.stat(path).st_size)
    except (OSError, MemoryBackendError) as error:
        raise click.UsageError(f"--pcram-file {path}: {error}") from None


def notifier_kind(name: str | None) -> NotifierKind:
    """What ``--notifier``, or else the environment and the system, ask for."""
    from vhostuser.transport.notifier import NotifierKind, default_kind

    try:
        return NotifierKind(name) if name else default_kind()
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def device_options(command: F) -> F:
    """The options of a command that talks to any device; it gets them as a `Target` called ``target``."""
    return _grouped(command, Target, _DEVICE_OPTIONS)


def blk_options(command: F) -> F:
    """The options of a command that talks to a disk; it gets them as a `BlkTarget` called ``target``."""
    return _grouped(command, BlkTarget, [*_DEVICE_OPTIONS, *_BLK_OPTIONS])


def _grouped(command: F, kind: type[Target], options: Sequence[Callable[[F], F]]) -> F:
    names = [field.name for field in fields(kind)]

    @functools.wraps(command)
    def with_target(**given: Any) -> Any:
        target = kind(**{name: given.pop(name) for name in names})
        return command(target=target, **given)

    wrapped = cast("F", with_target)
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


memory_option = click.option(
    "--memory",
    type=click.Choice(["shm", "memfd"]),
    default="shm",
    show_default=True,
    help="Where guest memory comes from: shm_open, on any POSIX system, or memfd_create, on Linux.",
)
pcram_option = click.option(
    "--pcram-file",
    type=click.Path(exists=True, dir_okay=False),
    help="Guest memory is this file: all of it, shared, never resized, and left out of saved state.",
)
notifier_option = click.option(
    "--notifier",
    type=click.Choice(["eventfd", "pipe"]),
    help="What carries kicks and calls.  [default: eventfd where there is one]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Say it as one JSON object.")

_DEVICE_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--socket-path", required=True, type=click.Path(), help="Unix socket where the back-end listens."),
    memory_option,
    pcram_option,
    notifier_option,
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="Give up when the back-end makes no progress for this long.",
    ),
)
_BLK_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option(
        "--depth",
        type=click.IntRange(1, MAX_DEPTH),
        default=32,
        show_default=True,
        help="Requests in flight.",
    ),
    click.option(
        "--queues",
        type=click.IntRange(1, 256),
        default=1,
        show_default=True,
        help="Queues to use, if the back-end has as many.",
    ),
    click.option(
        "--block-size",
        type=SizeType(least=SECTOR, most=MIB, unit=SECTOR),
        default="64K",
        show_default=True,
        help="Bytes in a request.",
    ),
    click.option("--packed", is_flag=True, help="Use packed rings instead of split ones."),
)
