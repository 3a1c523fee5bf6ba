"""User-mode Linux: a guest that is a process, and a second vhost-user front-end nobody here wrote.

UML is the Linux kernel compiled as a program; its virtio devices are vhost-user sockets (the kernel's
arch/um/drivers/virtio_uml.c) and its memory is one unlinked file.  It starts in a second and shares not a line with
QEMU: it kicks through an eventfd and is called through a socket, sends one memory region by SET_MEM_TABLE in a table
of two places, and knows no firmware that would start the device first.  It needs eventfd, so it does not run under
``without_linux.py``.

Debian's UML has drivers for blk, net, console, scsi, vsock and fs; none for rng.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.peers.guest_image import job_archive
from tests.peers.machine import GUEST_SECONDS, run_machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.peers.machine import GuestRun, Machine

MEMORY_MIB = 128
BLK = 2  # virtio's device type


@dataclass(frozen=True, slots=True)
class UserModeLinux:
    """A guest without a virtual machine."""

    program: Path
    initramfs: bytes

    @asynccontextmanager
    async def boot(self, job: str, folder: Path, *, devices: Sequence[str] = ()) -> AsyncIterator[Machine]:
        """Boot with the shell script ``job``; whatever still runs when the block ends is killed.

        Args:
            job: run by busybox's sh; its exit status becomes `GuestRun.status`.
            folder: for the initramfs, the log and UML's own files.
            devices: kernel arguments, such as `uml_device` gives.
        """
        archive = folder / "initramfs.cpio"
        archive.write_bytes(self.initramfs + job_archive(job))
        command: list[str | Path] = [
            self.program,
            *(f"mem={MEMORY_MIB}M", f"initrd={archive}", f"uml_dir={folder}", f"umid={folder.name}", "quiet"),
            *("con=null", "con0=fd:0,fd:1", *devices),
        ]
        async with run_machine(command, log=folder / "uml.log") as machine:
            yield machine

    async def run(
        self, job: str, folder: Path, *, devices: Sequence[str] = (), seconds: float = GUEST_SECONDS
    ) -> GuestRun:
        """Boot, run ``job`` to its end and return what came of it; arguments as for `boot`.

        Raises:
            PeerError: no end after ``seconds``, or an end without a result.
        """
        async with self.boot(job, folder, devices=devices) as machine:
            return await machine.finished_within(seconds)


def uml_device(path: Path, device_type: int = BLK) -> str:
    """The kernel argument for a virtio device whose back-end listens at ``path``."""
    return f"virtio_uml.device={path}:{device_type}"
