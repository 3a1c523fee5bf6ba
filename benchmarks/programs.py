"""The C programs of ``native/``, compiled when they are needed, and libblkio for them.

libblkio is a Debian package from trixie on.  Where the system has it, pkg-config knows; elsewhere the package is
fetched as `make peers` fetches programs: unpacked into a folder of its own, without being installed, with the C library
that it wants, and a program that uses it is started by that library's loader.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.peers.debian import LIBRARIES, LOADER, Apt, InstallError, check_machine, run
from tests.peers.folder import PeersFolder

SOURCES = Path(__file__).parent / "native"
WARNINGS = ("-Wall", "-Wextra", "-Werror")


class Missing(Exception):
    """Something that measuring needs is not here; says what would bring it."""


@dataclass(frozen=True, slots=True)
class Programs:
    """How to start them.

    Attributes:
        load: the libblkio client; its arguments are in ``native/blkio_load.c``.
        limits: the machine's own limits.
        libblkio: its version.
    """

    load: tuple[str, ...]
    limits: tuple[str, ...]
    libblkio: str


def build(folder: Path) -> Programs:
    """Compile both into ``folder``.

    Raises:
        Missing: no C compiler, or no libblkio.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("found no C compiler: install gcc and libc6-dev")
    limits = folder / "limits"
    _compile(compiler, "limits.c", limits)
    load = folder / "blkio_load"
    if (version := _system_version()) is not None:
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "blkio"], capture_output=True, text=True, check=True
        )
        _compile(compiler, "blkio_load.c", load, *flags.stdout.split(), "-pthread")
        return Programs((str(load),), (str(limits),), version)
    root = _fetched()
    libraries = root / LIBRARIES
    # Its C library is newer than the compiler's: what it wants from there is found when it is started, not now.
    options = ("-Wl,--allow-shlib-undefined", f"-I{root}/usr/include", "-pthread")
    _compile(compiler, "blkio_load.c", load, *options, str(libraries / "libblkio.so.1"))
    loader = (str(root / LOADER), "--inhibit-cache", "--library-path", str(libraries), str(load))
    return Programs(loader, (str(limits),), (root / "version").read_text())


def _compile(compiler: str, source: str, program: Path, *options: str) -> None:
    subprocess.run([compiler, "-O2", *WARNINGS, str(SOURCES / source), "-o", str(program), *options], check=True)


def _system_version() -> str | None:
    if shutil.which("pkg-config") is None:
        return None
    asked = subprocess.run(["pkg-config", "--modversion", "blkio"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() if asked.returncode == 0 else None


def _fetched() -> Path:
    """The folder with libblkio, made beside the peers' folder if it is not there yet."""
    root = PeersFolder.default().path.with_name("libblkio")
    if not (root / "version").exists():
        try:
            check_machine()
            root.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
                _unpack(Path(scratch) / "root", Apt.private(Path(scratch) / "apt"))
                shutil.rmtree(root, ignore_errors=True)
                (Path(scratch) / "root").rename(root)
        except InstallError as error:
            raise Missing(f"found no libblkio: install libblkio-dev, or let it be fetched: {error}") from None
    return root


def _unpack(root: Path, apt: Apt) -> None:
    root.mkdir()
    version = "?"
    for archive in apt.fetch(["libblkio-dev"]):
        run(["dpkg-deb", "--extract", str(archive), str(root)])
        if archive.name.startswith("libblkio-dev_"):
            version = archive.name.split("_")[1]
    (root / "version").write_text(version)
