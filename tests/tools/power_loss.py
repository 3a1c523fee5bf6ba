"""Run a program on a medium that forgets (``power_loss.c``), and see what a loss of power would have left of a file.

A cache that survives, as the kernel's page cache does, hides every mistake in the order of durability.  So each write
to the medium is recorded, and the file is rebuilt as it was on the medium after each of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.tools.missing import missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SOURCE = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class Durable:
    """Bytes that reached the medium.

    Attributes:
        how: ``msync``, or ``pmem_persist``.
        offset: in the file.
        data: the bytes, as they were then.
    """

    how: str
    offset: int
    data: bytes


class Medium:
    """Builds the library, runs programs with it, and reads what they made durable.

    Args:
        folder: for the library and the record.
    """

    def __init__(self, folder: Path) -> None:
        self.library = _build(folder)
        self.log = folder / "durable"

    def run(self, command: Sequence[str], *, pmem: bool = False, settings: Mapping[str, str] | None = None) -> str:
        """What the command prints.

        Args:
            command: what to run; it must end with status 0.
            pmem: whether it finds a libpmem.
            settings: further variables for its environment.
        """
        environment = {**os.environ, "LD_PRELOAD": str(self.library), "POWER_LOSS_LOG": str(self.log)}
        if pmem:
            # A link and not a copy: the loader then takes it for what it has loaded already, with what it remembers.
            self.library.with_name("libpmem.so.1").symlink_to(self.library)
            environment["LD_LIBRARY_PATH"] = str(self.library.parent)
        environment |= settings or {}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    def records(self) -> list[Durable]:
        """What reached the medium, in this order."""
        return list(self._read()) if self.log.exists() else []

    def after_power_loss(self, before: bytes) -> list[bytes]:
        """The file as the medium has it at first and after each record."""
        states = [before]
        for record in self.records():
            file = bytearray(states[-1])
            file[record.offset : record.offset + len(record.data)] = record.data
            states.append(bytes(file))
        return states

    def _read(self) -> Iterator[Durable]:
        with self.log.open("rb") as file:
            while line := file.readline():
                how, offset, length = line.split()
                yield Durable(how.decode(), int(offset), file.read(int(length)))


def _build(folder: Path) -> Path:
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        missing("found no cc and no CC in the environment: install a C compiler")
    library = folder / "power_loss.so"
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", library, SOURCE, "-ldl"], check=True)
    return library
