"""``vhost-user backend``: a device as a process, as the "Backend program conventions" of vhost-user want it.

A back-end never daemonises, takes ``--socket-path`` or ``--fd`` but not both, answers ``--print-capabilities`` with
JSON, says on stderr what goes wrong, and ends cleanly on SIGTERM.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import click

from vhostuser.cli.parameters import SIZE

if TYPE_CHECKING:
    from collections.abc import Callable


@click.group()
def backend() -> None:
    """Serve a device to a VMM.

    \b
    Example:
      vhost-user backend blk --socket-path disk.sock --blk-file disk.img &
      qemu-system-x86_64 ... -object memory-backend-memfd,id=mem,size=1G,share=on \\
        -machine memory-backend=mem -chardev socket,id=c0,path=disk.sock \\
        -device vhost-user-blk-pci,chardev=c0

    A back-end stays in the foreground and serves one front-end after the other, or only one when --fd is a connected
    socket.  SIGTERM and SIGINT end it with status 0; it ends with 1 when it cannot start, with 2 when it was called
    wrongly.
    """


def _program(capabilities: dict[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that every back-end program has."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.option("--socket-path", type=click.Path(), help="Listen on this unix socket.")
        @click.option("--fd", type=click.IntRange(min=0), help="Serve this inherited socket, listening or connected.")
        @click.option("--packed", is_flag=True, help="Offer packed rings too.")
        @click.option(
            "--print-capabilities",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=functools.partial(_print_capabilities, capabilities),
            help="Print what this program can do, as JSON, and exit.",
        )
        @functools.wraps(function)
        def program(socket_path: str | None, fd: int | None, **options: Any) -> None:
            if (socket_path is None) == (fd is None):
                raise click.UsageError("give one of --socket-path and --fd")
            function(socket_path=socket_path, fd=fd, **options)

        return program

    return decorate


def _print_capabilities(
    capabilities: dict[str, Any], ctx: click.Context, _parameter: click.Parameter, value: bool
) -> None:
    if value:
        click.echo(json.dumps(capabilities))
        ctx.exit()


@backend.command()
@_program({"type": "block", "features": ["read-only", "blk-file"]})
@click.option("--blk-file", type=click.Path(exists=True), help="Raw image file or block device.")
@click.option("--memory-size", type=SIZE, help="Serve a disk in memory of this size instead, as 64M.")
@click.option(
    "--null", "null_size", type=SIZE, metavar="SIZE", help="Serve a disk that keeps nothing, to measure with."
)
@click.option("--read-only", is_flag=True, help="Refuse writes.")
@click.option("--num-queues", type=click.IntRange(1, 256), default=1, show_default=True, help="Request queues.")
@click.option(
    "--serve",
    type=click.Choice(["task", "thread", "native"]),
    help="What runs a queue: a task among others, a thread, a thread without the GIL.  "
    "[default: native where the compiled engine is built, else task]",
)
@click.option(
    "--mmap",
    "mapped",
    is_flag=True,
    help="Map the image: half the time a block, but a disk's error or a file cut short is met as SIGBUS.",
)
@click.option(
    "--inline-writes",
    is_flag=True,
    help="As a task, write to the page cache at once: fast, but all queues wait when the system makes a write wait.",
)
@click.option(
    "--poll-us",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Watch an empty ring this long before sleeping: lower latency, for a processor's time.",
)
@click.option("--serial", default="python-vhost-user", show_default=True, help="Name of the disk, up to 20 letters.")
def blk(
    socket_path: str | None,
    fd: int | None,
    blk_file: str | None,
    memory_size: int | None,
    null_size: int | None,
    read_only: bool,
    num_queues: int,
    serve: str | None,
    mapped: bool,
    inline_writes: bool,
    poll_us: int,
    serial: str,
    packed: bool,
) -> None:
    """A disk over a raw image file.  SIGHUP looks at the file's size again and tells the guest."""
    from vhostuser.cli.disk import choose_serving, log_counts, open_storage
    from vhostuser.cli.serving import serve_device
    from vhostuser.devices.blk import BlkDevice
    from vhostuser.wire.virtio.blk import BlkFeature

    if [blk_file, memory_size, null_size].count(None) != 2:
        raise click.UsageError("give one of --blk-file, --memory-size and --null")
    if mapped and blk_file is None:
        raise click.UsageError("--mmap needs a --blk-file")
    storage = open_storage(
        blk_file, memory_size, null_size, mapped=mapped, read_only=read_only, inline_writes=inline_writes
    )
    try:
        device = BlkDevice(storage, serial=serial, num_queues=num_queues, read_only=read_only)
        device.serving = choose_serving(device, serve)
        device.poll_seconds = poll_us / 1e6
        serve_device(device, socket_path, fd, packed=packed, feature_names=BlkFeature, on_hangup=device.refresh)
        log_counts(device.counts)
    finally:
        storage.close()


@backend.command()
@_program({"type": "rng", "features": []})
def rng(socket_path: str | None, fd: int | None, packed: bool) -> None:
    """A source of random bytes, out of this system's own."""
    from vhostuser.cli.serving import serve_device
    from vhostuser.devices.rng import RngDevice

    serve_device(RngDevice(), socket_path, fd, packed=packed)


@backend.command()
@_program({"type": "net", "features": []})
def echo(socket_path: str | None, fd: int | None, packed: bool) -> None:
    """A network device that sends each frame back: two compiled loops, and no GIL."""
    from vhostuser.cli.serving import serve_device
    from vhostuser.devices.echo import EchoDevice
    from vhostuser.virtqueue.ring import UnsupportedRing
    from vhostuser.wire.virtio.net import NetFeature

    try:
        device = EchoDevice()
    except UnsupportedRing as error:
        raise click.ClickException(str(error)) from None
    serve_device(device, socket_path, fd, packed=packed, feature_names=NetFeature)
