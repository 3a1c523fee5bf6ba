"""Other systems, played on Linux: what they lack is taken away."""

from __future__ import annotations

import platform
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tools.macos_shim import NoCompilerError, build_macos_shim
from tests.tools.missing import missing
from tests.tools.without_linux import ARCHITECTURES, command_without_linux

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class System:
    """A system to run a program on.

    Attributes:
        kill: a Linux-only call ends the process instead of failing with ENOSYS.
        shim: library with the rules of macOS, if they are to be kept.
    """

    kill: bool = False
    shim: Path | None = None

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs ``command`` there; by ``exec``, so the process stays the same."""
        preload = [] if self.shim is None else ["env", f"LD_PRELOAD={self.shim}"]
        return [*preload, *command_without_linux(command, kill=self.kill)]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a name short enough for the path of a socket."""
    with tempfile.TemporaryDirectory(prefix="vhost-user-") as name:
        yield Path(name)


@pytest.fixture(scope="session")
def macos_shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_macos_shim(tmp_path_factory.mktemp("macos_shim"))
    except NoCompilerError as error:
        missing(str(error))


@pytest.fixture(params=["without-linux", "killed-by-linux", "macos-rules"])
def system(request: pytest.FixtureRequest) -> System:
    """One after the other.

    without-linux: the calls that only Linux has answer ENOSYS.
    killed-by-linux: they kill, so a program that lives never made one.
    macos-rules: they answer ENOSYS, and shared memory and sockets have macOS's rules as well.
    """
    if sys.platform != "linux" or platform.machine() not in ARCHITECTURES:
        pytest.skip(f"no launcher for {sys.platform} on {platform.machine()}; the tests themselves may run here")
    if request.param == "macos-rules":
        return System(shim=request.getfixturevalue("macos_shim"))
    return System(kill=request.param == "killed-by-linux")
