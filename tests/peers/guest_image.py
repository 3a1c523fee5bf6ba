"""The test guest: a Debian kernel and an initramfs of busybox, a few kernel modules and our ``/init``.

The same two files serve every test.  What a test wants done is a shell script handed over at start: as ``/job`` in a
second archive after the initramfs, by QEMU's fw_cfg, or as ``job="..."`` on the kernel command line.  The console then
shows, among what the job prints::

    GUEST-UP 6.12.107+deb13-cloud-amd64 after 2.1 s
    GUEST-RESULT 0

and the machine powers off.  There is no init system, no udev and no login: ``/init`` is below, in full.
"""

import argparse
import io
import lzma
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.peers.folder import PeersFolder

# Written as modinfo spells them.  virtio itself, virtio_pci and ext4 may be built in; then there is no file.
MODULES = ("virtio_pci", "qemu_fw_cfg", "virtio_blk", "virtio-rng")
UML_MODULES = ("virtio_blk",)

# The name QEMU's documentation asks for: opt/, then something that is ours.
FW_CFG_JOB = "opt/python-vhost-user/job"

INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
while read -r module; do
    insmod "/modules/$module" || echo "GUEST-PROBLEM module $module does not load"
done < /modules/order
read -r seconds _ < /proc/uptime
echo "GUEST-UP $(uname -r) after $seconds s"
script=/sys/firmware/qemu_fw_cfg/by_name/{FW_CFG_JOB}/raw
if [ -e /job ]; then
    cp /job /tmp/job
elif [ -e "$script" ]; then
    cat "$script" > /tmp/job
else
    # job="..." on the kernel command line arrives as a variable.
    printf '%s\\n' "${{job:-echo GUEST-PROBLEM no job; false}}" > /tmp/job
fi
sh /tmp/job < /dev/null 2>&1
echo "GUEST-RESULT $?"
sync
poweroff -f
"""


@dataclass(frozen=True, slots=True)
class GuestImage:
    """What QEMU's ``-kernel`` and ``-initrd`` take."""

    kernel: Path
    initramfs: Path


def build_guest(peers: PeersFolder, folder: Path) -> GuestImage:
    """Write the kernel and the initramfs into ``folder``, which is made if need be.

    Raises:
        FileNotFoundError: ``peers`` is not complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = GuestImage(folder / "vmlinuz", folder / "initramfs.cpio")
    shutil.copyfile(peers.kernel / "vmlinuz", image.kernel)
    image.initramfs.write_bytes(initramfs(peers, peers.modules, MODULES))
    return image


def initramfs(peers: PeersFolder, tree: Path, wanted: tuple[str, ...]) -> bytes:
    """The archive with busybox, ``/init`` and the ``wanted`` modules out of ``tree``."""
    archive = CpioArchive()
    for name in ("bin", "dev", "mnt", "modules", "proc", "sys", "tmp"):
        archive.folder(name)
    # The kernel opens it for /init's own output, before devtmpfs is there.
    archive.character_device("dev/console", 5, 1)
    archive.file("init", INIT.encode(), mode=0o755)
    archive.file("bin/busybox", (peers.root / "usr/bin/busybox").read_bytes(), mode=0o755)
    modules = dict(modules_in_order(tree, wanted))
    for name, content in modules.items():
        archive.file(f"modules/{name}.ko", content)
    archive.file("modules/order", "".join(f"{name}.ko\n" for name in modules).encode())
    return archive.finish()


def job_archive(job: str) -> bytes:
    """The archive with the script as ``/job``; the kernel unpacks one archive after the other."""
    archive = CpioArchive()
    archive.file("job", job.encode())
    return archive.finish()


def modules_in_order(tree: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, uncompressed module), what each depends on first; names without a file are built in."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    seen: set[str] = set()

    def visit(name: str) -> Iterator[tuple[str, bytes]]:
        name = name.replace("-", "_")
        if name in seen or name not in files:
            return
        seen.add(name)
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        for needed in dependencies(content):
            yield from visit(needed)
        yield name, content

    for name in wanted:
        yield from visit(name)


def dependencies(module: bytes) -> list[str]:
    """Names from the ``depends=`` entry of the module's .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name for name in found[1].decode().split(",") if name] if found else []


@dataclass(slots=True)
class CpioArchive:
    """A cpio archive in the "newc" format, the one the kernel unpacks (Documentation: early-userspace/buffer-format).

    Written here because it takes thirty lines, needs no cpio program, and can hold a device node without being root.
    """

    _out: io.BytesIO = field(default_factory=io.BytesIO)
    _inode: int = 0

    def folder(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        self._entry(name, stat.S_IFREG | mode, content)

    def character_device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def finish(self) -> bytes:
        self._entry("TRAILER!!!", 0)
        return self._out.getvalue()

    def _entry(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device of the file, device it is, length of the name, checksum
        numbers = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        self._out.write(b"070701" + b"".join(b"%08X" % number for number in numbers) + path)
        self._pad()
        self._out.write(content)
        self._pad()

    def _pad(self) -> None:
        self._out.write(bytes(-self._out.tell() % 4))


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``tests/peers/make_guest``; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="make_guest", description="Build vmlinuz and initramfs.cpio of the test guest."
    )
    parser.add_argument("folder", type=Path, help="where to put the two files")
    parser.add_argument("--peers", type=Path, default=PeersFolder.default().path, help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    peers = PeersFolder(chosen.peers)
    if not peers.installed():
        print(f"make_guest: no complete {peers.path}: run tests/peers/install first", file=sys.stderr)
        return 1
    image = build_guest(peers, chosen.folder)
    print(image.kernel, image.initramfs, sep="\n")
    return 0
