"""QEMU, a vhost-user front-end around a real Linux, and qemu-storage-daemon, a vhost-user-blk back-end.

QEMU's firmware drives a disk before Linux does: the back-end sees a start, some I/O, a stop, and then, on the same
connection, a second start with other ring sizes.
"""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from tests.peers.guest_image import FW_CFG_JOB
from tests.peers.machine import GUEST_SECONDS, run_machine
from tests.peers.programs import listening_at, run_peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.peers.guest_image import GuestImage
    from tests.peers.machine import GuestRun, Machine
    from tests.peers.programs import Peer

MEMORY_MIB = 256
RAM_FILE = "ram.img"
MEMORY_OBJECTS = {
    "shm": f"memory-backend-shm,id=mem,size={MEMORY_MIB}M",
    "memfd": f"memory-backend-memfd,id=mem,size={MEMORY_MIB}M,share=on",
    "file": f"memory-backend-file,id=mem,size={MEMORY_MIB}M,share=on,mem-path=",
}
Memory: TypeAlias = Literal["shm", "memfd", "file"]


@dataclass(frozen=True, slots=True)
class StorageDaemon:
    """qemu-storage-daemon: a vhost-user-blk back-end over an image file."""

    program: Path

    @asynccontextmanager
    async def serve(
        self, disk: Path, path: Path, *, writable: bool = True, queues: int = 1, no_eventfd: bool = False
    ) -> AsyncIterator[Peer]:
        """Serve the raw image ``disk`` at the socket ``path`` until the block ends; connect at once.

        One client at a time: the next one is not answered before the first has left.  The log is beside the socket,
        the socket is removed.
        """
        with listening_at(path) as listener:
            block = f"driver=file,node-name=disk,filename={disk},discard=unmap"
            export = (
                f"type=vhost-user-blk,id=export,node-name=disk,addr.type=fd,addr.str={listener.fileno()}"
                f",writable={'on' if writable else 'off'},num-queues={queues}"
            )
            async with run_peer(
                [self.program, "--blockdev", block, "--export", export],
                log=path.with_suffix(".log"),
                pass_fds=[listener.fileno()],
                no_eventfd=no_eventfd,
            ) as peer:
                listener.close()  # now a dead daemon refuses clients instead of letting them wait
                yield peer


@dataclass(frozen=True, slots=True)
class Guest:
    """A Linux guest in QEMU: q35, TCG, one CPU, 256 MiB of shared memory, and no device but those asked for."""

    qemu: Path
    image: GuestImage

    @asynccontextmanager
    async def boot(
        self,
        job: str,
        folder: Path,
        *,
        memory: Memory = "shm",
        devices: Sequence[str] = (),
        words: str = "",
        no_eventfd: bool = False,
    ) -> AsyncIterator[Machine]:
        """Boot with the shell script ``job``; whatever still runs when the block ends is killed.

        Args:
            job: run by busybox's sh; its exit status becomes `GuestRun.status`.  Empty: ``words`` holds ``job="..."``.
            folder: for the job and QEMU's log.
            memory: the kind of memory object the back-ends get to see; ``file`` is `RAM_FILE` in ``folder``.
            devices: further QEMU arguments, such as `blk_device` and `rng_device` give.
            words: further words for the kernel command line.
            no_eventfd: run QEMU with pipes; needs ``memory="shm"``, because memfd_create is gone too.
        """
        arguments: list[str | Path] = [
            self.qemu,
            *("-M", "q35,memory-backend=mem", "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY_MIB)),
            *("-object", MEMORY_OBJECTS[memory] + (str(folder / RAM_FILE) if memory == "file" else "")),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *("-kernel", self.image.kernel, "-initrd", self.image.initramfs),
            *("-append", f"console=ttyS0 quiet {words}".strip()),
        ]
        if job:
            script = folder / "job.sh"
            script.write_text(job)
            arguments += ["-fw_cfg", f"name={FW_CFG_JOB},file={script}"]
        # While QEMU waits for a vhost-user reply, in its main thread, SIGTERM means nothing to it.
        async with run_machine(
            [*arguments, *devices], log=folder / "qemu.log", no_eventfd=no_eventfd, stop=signal.SIGKILL
        ) as machine:
            yield machine

    async def run(
        self,
        job: str,
        folder: Path,
        *,
        memory: Memory = "shm",
        devices: Sequence[str] = (),
        words: str = "",
        no_eventfd: bool = False,
        seconds: float = GUEST_SECONDS,
    ) -> GuestRun:
        """Boot, run ``job`` to its end and return what came of it; arguments as for `boot`.

        Raises:
            PeerError: no end after ``seconds``, or an end without a result.
        """
        async with self.boot(
            job, folder, memory=memory, devices=devices, words=words, no_eventfd=no_eventfd
        ) as machine:
            return await machine.finished_within(seconds)


def blk_device(path: Path, *, name: str = "blk0", queues: int = 1) -> list[str]:
    """QEMU arguments for a disk whose back-end listens at ``path``; the guest's /dev/vda, vdb, ... in this order."""
    return [*_chardev(path, name), "-device", f"vhost-user-blk-pci,id={name},chardev={name}-socket,num-queues={queues}"]


def rng_device(path: Path, *, name: str = "rng0") -> list[str]:
    """QEMU arguments for a source of random numbers, /dev/hwrng, whose back-end listens at ``path``."""
    return [*_chardev(path, name), "-device", f"vhost-user-rng-pci,id={name},chardev={name}-socket"]


def _chardev(path: Path, name: str) -> list[str]:
    return ["-chardev", f"socket,id={name}-socket,path={path}"]
