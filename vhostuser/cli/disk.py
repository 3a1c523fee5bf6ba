"""What ``vhost-user backend blk`` puts together: a disk's storage, and what runs its queues."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from vhostuser.device import Serving
from vhostuser.devices.blk import FileStorage, MappedStorage, MemoryStorage, NullStorage
from vhostuser.virtqueue.ring import UnsupportedRing

if TYPE_CHECKING:
    from vhostuser.devices.blk import BlkDevice, Storage
    from vhostuser.devices.blk.counts import Counts

log = logging.getLogger("vhostuser.devices.blk")


def open_storage(
    blk_file: str | None,
    memory_size: int | None,
    null_size: int | None,
    *,
    mapped: bool,
    read_only: bool,
    inline_writes: bool,
) -> Storage:
    """Storage of the one kind that was asked for.

    Raises:
        click.ClickException: it cannot be had.
    """
    try:
        if memory_size is not None:
            return MemoryStorage(memory_size)
        if null_size is not None:
            return NullStorage(null_size)
        assert blk_file is not None  # one of the three: the caller has made sure
        if mapped:
            return MappedStorage(blk_file, read_only=read_only)
        return FileStorage(blk_file, read_only=read_only, inline_writes=inline_writes)
    except MemoryError:
        raise click.ClickException(f"there is no room for a disk of {memory_size} bytes in memory") from None
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot open the disk image: {error}") from None


def choose_serving(device: BlkDevice, asked: str | None) -> Serving:
    """What runs the queues: what was asked for, else the fastest that there is.

    Raises:
        click.UsageError: it was asked for and cannot be.
    """
    serving, why = Serving(asked or "native"), "as asked"
    if serving is Serving.NATIVE:
        try:
            device.compiled_loop(0)
            why = "without the GIL"
        except UnsupportedRing as error:
            if asked:
                raise click.UsageError(f"--serve native: {error}") from None
            serving, why = Serving.TASK, str(error)
    log.info("queues are served by: %s (%s)", serving.value, why)
    return serving


def log_counts(counts: Counts) -> None:
    """What a disk has done, for those who asked to be told."""
    log.info("%d requests, %d bytes read, %d bytes written", counts.requests, counts.bytes_read, counts.bytes_written)
