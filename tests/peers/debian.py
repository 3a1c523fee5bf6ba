"""Programs out of Debian packages, without installing a package.

The peers must be the same on every machine, whatever it runs itself, and must not need root.  So apt is given a
private state (its own sources, lists, cache and an empty dpkg status) and fetches the packages of one suite with all
they depend on, signatures checked as always; dpkg-deb unpacks them into a folder.  The mirror is whichever one the
machine's own apt uses for Debian.

A program from a newer suite needs that suite's C library, and a C library needs its own loader.  Each wrapper in
``bin/`` therefore starts the folder's loader with the folder's libraries, and the loader starts the program: no
chroot, no ``LD_LIBRARY_PATH`` that would leak into children, and ``exec`` keeps the process id.  User-mode Linux is
the exception, see ``elf.py``.
"""

import argparse
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers.elf import set_interpreter
from tests.peers.folder import RECIPE, PeersFolder

SUITE = "trixie"
KERNEL = "linux-image-cloud-amd64"
UML = "linux.uml"

# package: its programs, as paths inside the package.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "qemu-system-x86": ("usr/bin/qemu-system-x86_64",),
    "qemu-utils": ("usr/bin/qemu-storage-daemon", "usr/bin/qemu-img"),
    "busybox-static": ("usr/bin/busybox",),
    "user-mode-linux": (f"usr/bin/{UML}",),
    "virtiofsd": ("usr/libexec/virtiofsd",),
    "passt": ("usr/bin/passt",),
}
OPTIONAL: Mapping[str, tuple[str, ...]] = {
    "fio": ("usr/bin/fio",),
}

# What QEMU's packages depend on for the sake of their maintainer scripts; never needed to run a program.
UNUSED_PACKAGES = re.compile(r"(adduser|debconf|dpkg|init-system-helpers|passwd|perl-base|sysvinit-utils|tar)_")
UNUSED_FOLDERS = ("etc", "var", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian")
# Folders of the kernel's tree with all that virtio devices need.
USED_MODULES = (
    "crypto/",
    "drivers/block/",
    "drivers/char/",
    "drivers/firmware/",
    "drivers/input/",
    "drivers/net/net_failover",
    "drivers/net/virtio",
    "drivers/scsi/",
    "drivers/virtio/",
    "fs/fuse/",
    "lib/",
    "net/core/failover",
    "net/vmw_vsock/",
)

LIBRARIES = "usr/lib/x86_64-linux-gnu"
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
FIRMWARE = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")

WRAPPER = """\
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")/root
libraries=$root/{libraries}
export QEMU_MODULE_DIR="$libraries/qemu"
exec "$root/{loader}" --inhibit-cache --library-path "$libraries:$libraries/ceph" --argv0 {name} \\
    "$root/{program}"{options} "$@"
"""

# For a program that must be started itself; it has been given the folder's loader and starts no other program.
DIRECT_WRAPPER = """\
#!/bin/sh
root=$(dirname "$(dirname "$(readlink -f "$0")")")/root
LD_LIBRARY_PATH="$root/{libraries}" exec "$root/{program}" "$@"
"""


class InstallError(Exception):
    """The peers cannot be installed here; the text says why and what would help."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``tests/peers/install``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="install", description=f"Fetch peers of Debian {SUITE} into one folder.")
    parser.add_argument(
        "--prefix", type=Path, default=PeersFolder.default().path, help="the folder to fill (default: %(default)s)"
    )
    parser.add_argument(
        "--with", dest="extras", action="append", default=[], choices=sorted(OPTIONAL), help="one more peer"
    )
    parser.add_argument("--force", action="store_true", help="start over, although the folder is complete")
    chosen = parser.parse_args(arguments)
    try:
        install(PeersFolder(chosen.prefix.absolute()), set(chosen.extras), force=chosen.force)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    return 0


def install(folder: PeersFolder, extras: set[str], *, force: bool = False) -> None:
    """Fill ``folder`` unless it is complete and holds ``extras`` already.

    The new folder is made beside the old one and takes its place at the end, so an interrupted download spoils
    nothing.  Optional peers that were there stay.

    Raises:
        InstallError: this machine or its network cannot provide the packages.
    """
    if force or lacks(folder, extras):
        check_machine()
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        with only_one_at_a_time(folder.path.with_name(folder.path.name + ".lock")):
            if force or lacks(folder, extras):  # another run may have been faster
                install_now(folder, extras | set((folder.installed() or {"extras": []})["extras"]))
    report(folder)


def lacks(folder: PeersFolder, extras: set[str]) -> bool:
    have = folder.installed()
    return have is None or not extras <= set(have["extras"])


def install_now(folder: PeersFolder, extras: set[str]) -> None:
    programs = {**PACKAGES, **{name: OPTIONAL[name] for name in sorted(extras)}}
    with tempfile.TemporaryDirectory(dir=folder.path.parent, prefix=".new-") as scratch:
        new = PeersFolder(Path(scratch) / "peers")
        versions = build(new, programs, Apt.private(Path(scratch) / "apt"))
        shutil.rmtree(folder.path, ignore_errors=True)
        new.path.rename(folder.path)
    # What holds the folder's own path can only be done in place.
    set_interpreter(folder.root / "usr/bin" / UML, folder.root / LOADER)
    check_programs(folder)
    record = {"recipe": RECIPE, "suite": SUITE, "extras": sorted(extras), "versions": versions}
    folder.record.write_text(json.dumps(record, indent=2) + "\n")


def report(folder: PeersFolder) -> None:
    record = folder.installed() or {}
    print(f"peers of Debian {SUITE} in {folder.path}")
    for package, version in record.get("versions", {}).items():
        print(f"  {package:<44}{version}")


def check_machine() -> None:
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "dpkg"):
        if not shutil.which(tool):
            raise InstallError(
                f"found no {tool}, expected a Debian system: elsewhere install QEMU >= 9.1 yourself; "
                "the tests that need peers are skipped"
            )
    architecture = run(["dpkg", "--print-architecture"]).strip()
    if architecture != "amd64":
        raise InstallError(f"found architecture {architecture}, expected amd64: the guest is an x86 machine")


@contextmanager
def only_one_at_a_time(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        raise InstallError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def step(text: str) -> None:
    print(f"{text} ...", flush=True)


# -- fetching ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Apt:
    """apt with a state of its own: it knows one suite and believes that nothing is installed."""

    config: Path
    archives: Path

    @classmethod
    def private(cls, state: Path) -> "Apt":
        """Make the state in the new folder ``state`` and read the package index of ``SUITE`` into it."""
        for needed in ("lists/partial", "cache/archives/partial"):
            (state / needed).mkdir(parents=True)
        (state / "status").touch()
        (state / "sources.list").write_text(f"deb {mirror()} {SUITE} main\n")
        config = state / "apt.conf"
        config.write_text(
            f'Dir::Etc::SourceList "{state}/sources.list";\n'
            'Dir::Etc::SourceParts "/dev/null";\n'
            'Dir::Etc::Preferences "/dev/null";\n'
            'Dir::Etc::PreferencesParts "/dev/null";\n'
            f'Dir::State "{state}";\n'
            f'Dir::State::Status "{state}/status";\n'
            f'Dir::Cache "{state}/cache";\n'
            'APT::Default-Release "";\n'
            'APT::Install-Recommends "false";\n'
            'APT::Sandbox::User "root";\n'  # else root's apt becomes _apt, which may not enter a private folder
            'Acquire::Languages "none";\n'
            'Acquire::Retries "3";\n'
        )
        apt = cls(config, state / "cache" / "archives")
        step(f"reading the package index of Debian {SUITE}")
        try:
            # Without the error mode apt takes an unreachable mirror for a warning.
            apt.get("update", "--error-on=any")
        except InstallError as error:
            raise InstallError(
                f"no package index of Debian {SUITE}: is there a network, and does the package "
                f"debian-archive-keyring know {SUITE}'s keys?\n{error}"
            ) from None
        return apt

    def get(self, *arguments: str) -> str:
        return run(["apt-get", "-c", str(self.config), "-qq", "-y", *arguments])

    def fetch(self, packages: Iterable[str]) -> list[Path]:
        """Download ``packages`` with everything they depend on; returns the files, sorted by name."""
        self.get("install", "--download-only", *packages)
        return sorted(self.archives.glob("*.deb"))

    def fetch_alone(self, package: str) -> Path:
        """Download one package without what it depends on."""
        before = set(self.archives.glob("*.deb"))
        script = 'cd "$1" && shift && exec apt-get -qq "$@"'
        arguments = ["-c", str(self.config), "download", package]
        run(["sh", "-c", script, "sh", str(self.archives), *arguments])
        (new,) = set(self.archives.glob("*.deb")) - before
        return new

    def kernel_package(self) -> str:
        """The package with the image itself; ``KERNEL`` only depends on the current one."""
        text = run(["apt-cache", "-c", str(self.config), "depends", KERNEL])
        found = re.search(r"Depends: (linux-image-\d\S+)", text)
        if found is None:
            raise InstallError(f"found no kernel among the dependencies of {KERNEL}, expected linux-image-<version>")
        return found[1]


def mirror() -> str:
    """The address this machine's apt uses for Debian itself (not for its security updates or other vendors)."""
    text = run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    for address in text.split():
        if re.search(r"/debian/?$", address):
            return address
    raise InstallError("found no address that ends in /debian in apt's sources: no Debian mirror is configured")


# -- building ---------------------------------------------------------------------------------------------------------


def build(new: PeersFolder, programs: Mapping[str, tuple[str, ...]], apt: Apt) -> dict[str, str]:
    """Fill the new folder and return the versions of the packages asked for."""
    step(f"fetching {', '.join(programs)}")
    archives = apt.fetch(programs)
    step(f"unpacking {len(archives)} packages")
    new.root.mkdir(parents=True)
    for archive in archives:
        if not UNUSED_PACKAGES.match(archive.name):
            run(["dpkg-deb", "--extract", str(archive), str(new.root)])
    for unused in UNUSED_FOLDERS:
        shutil.rmtree(new.root / unused, ignore_errors=True)
    new.bin.mkdir()
    for paths in programs.values():
        for program in paths:
            write_wrapper(new, program)

    package = apt.kernel_package()
    step(f"fetching {package}")
    image = apt.fetch_alone(package)
    unpack_kernel(image, new)
    keep_modules(new.uml_modules)
    return dict(
        run(["dpkg-deb", "--show", str(archive)]).split()
        for archive in [*(a for a in archives if a.name.split("_")[0] in programs), image]
    )


def write_wrapper(new: PeersFolder, program: str) -> None:
    name = Path(program).name
    firmware = [path for path in FIRMWARE if (new.root / path).is_dir()] if name.startswith("qemu-system") else []
    text = DIRECT_WRAPPER if name == UML else WRAPPER
    options = "".join(f' -L "$root/{path}"' for path in firmware)
    wrapper = new.program(name)
    wrapper.write_text(text.format(loader=LOADER, libraries=LIBRARIES, name=name, program=program, options=options))
    wrapper.chmod(0o755)


def unpack_kernel(archive: Path, new: PeersFolder) -> None:
    with tempfile.TemporaryDirectory(dir=new.path) as scratch:
        run(["dpkg-deb", "--extract", str(archive), scratch])
        (image,) = Path(scratch).glob("boot/vmlinuz-*")
        (modules,) = Path(scratch).glob("usr/lib/modules/*/kernel")
        new.kernel.mkdir()
        image.rename(new.kernel / "vmlinuz")
        modules.rename(new.modules)
    keep_modules(new.modules)


def keep_modules(tree: Path) -> None:
    """Drop the modules of hardware that no virtual machine has; they are most of the size."""
    for module in list(tree.rglob("*.ko*")):
        if not str(module.relative_to(tree)).startswith(USED_MODULES):
            module.unlink()


def check_programs(new: PeersFolder) -> None:
    """Start each program once: a missing library shows here and not in somebody's test."""
    for wrapper in sorted(new.bin.iterdir()):
        option = "--help" if wrapper.name == "busybox" else "--version"
        run([str(wrapper), option])
